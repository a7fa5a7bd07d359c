"""How fast is Lightmeter beside what others run? All of them on the same work, in one run on one machine.

``make bench-peers`` runs ``python -m tests.benchmarks.peers``: it installs LiteLLM, Portkey and nginx with its Lua
module into ``.bench``, each apart from the machine's own packages, runs them beside nginx, a bare forwarder and
Lightmeter, and writes the table and the picture into the manual. A peer that cannot be installed or started is left out
by name.

__main__.py       the command: what is measured, in which order
packages.py       the peers' packages, at the versions that are written down here
starting.py       the peers, each in processes of its own
metering.lua      nginx that reserves and settles in a store, as one would write it in a hundred lines
litellm_key.py    the keys of LiteLLM, run by LiteLLM
loopback.cjs      keeps Portkey off every address but this machine's own
load.py           as much as goes through, and one request at a time, by wrk
quota.py          whether a budget holds when many ask at once
figures.py        medians, ratios and verdicts; pure
page.py           the section of the manual; pure
picture.py        the same as a picture; pure
"""
