"""Several workers on one port: one process that has the sockets, the store and the admin listener, and keeps them.

supervisor.py   one gateway of several processes, from its start to its end
front.py        what the supervisor has itself: store, admin listener, and the sockets of the public one
crew.py         the workers of one configuration: started, replaced when they die, drained
process.py      one worker as its supervisor sees it
worker.py       the same as it sees itself
channel.py      what the two say to each other
operations.py   health and metrics of all of them together
cpus.py         how many workers "auto" is

A worker that dies has lost no count and no settlement: its numbers stand in memory that the supervisor has as well
(telemetry/shared), its journal is posted by another one, and what it had of shared limits is free again (machine).
"""
