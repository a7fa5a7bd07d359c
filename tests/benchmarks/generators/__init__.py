"""Load that wrk cannot make, each a program of its own: a plan as JSON comes in, samples as JSON go out.

latency.py    at a constant rate, whatever the answers take
crowd.py      thousands of requests that wait at the same time
connection.py one keep-alive connection, which both ask on
"""
