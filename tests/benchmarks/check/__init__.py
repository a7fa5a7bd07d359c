"""Does this tree take more of a processor than the last release? ``make bench-check``, which fails past 5 %.

By instructions (the default, and CI's): callgrind counts those of one gateway, and of the bare forwarder beside it. A
count does not depend on what else the machine does. The ratio of the two hardly depends on the build of Python and its
libraries, and can be compared with the one that the last release had.

__main__.py    the command
counting.py    one program under callgrind: started, asked, and its counts for each kind of request
driving.py     client and provider in one loop, in lock-step, so that each run does the same work
callgrind.py   what callgrind writes; pure
timing.py      by processor time, beside another tree in the same run
other.py       that other tree: a folder, or a commit
verdict.py     ratios, what is allowed, and the words of it; pure
baseline.py    what the last release had: baseline.json
"""
