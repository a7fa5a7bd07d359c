"""Whether a gateway under full load stays as large as it is: its memory, open files and tasks, sampled and drawn.

``make soak-memory MINUTES=30`` ends with status 1 where one of them grows.
"""
