"""What a fleet needs: measured costs of one request, key and connection, and the arithmetic from them to machines.

``python -m tests.benchmarks.capacity`` measures on a real store and a real gateway. It reads processor time and memory
of their processes, which hardly depend on what else the machine does.
"""
