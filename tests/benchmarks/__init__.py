"""How fast is Lightmeter? Beside a direct call, nginx and a bare forwarder, in one run on one machine.

``make bench`` runs ``python -m tests.benchmarks.compare``. Look at its ratios and differences: an
absolute figure holds only beside its neighbours.

compare.py          the command: what is measured, in which order
servers.py          the subjects, one process each, and how they are started and stopped
provider.py         what answers all of them, and costs little
bare_forwarder.py   the measure: aiohttp with no metering
throughput.py       as much as goes through, by wrk
generators/         load that wrk cannot make: a constant rate, and thousands that wait
figures.py          medians and ratios; pure
table.py            what people read, and what was wanted beside what was found; pure
check/              ``make bench-check``: whether a request takes more of the processor than in the last release
peers/              ``make bench-peers``: beside LiteLLM, Portkey, and nginx that meters
"""
