"""Metrics of several processes of one machine: each keeps its numbers in shared memory, one adds them up."""
