"""The section of the manual: a table, what is wanted and found, and who holds a budget. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tests.benchmarks.peers.figures import (
    LITELLM_BUDGET,
    NGINX_LUA,
    PORTKEY,
    Budget,
    Enforcement,
    Found,
    Run,
    cpu_us,
    gigabytes,
    percentiles_ms,
    rate,
    verdicts,
)

BEGIN = "<!-- From here to the end mark, make bench-peers writes. -->"
END = "<!-- The end of what make bench-peers writes. -->"
PICTURE = "peers.svg"
WIDTH = 120
BUSY_LOAD = 1.0
BUSY = "Other work had its cores, too (a load average of {load:.0f} before it began): read the ratios, and CPU first. "

HEADINGS = (
    "",
    "small answers, requests/s",
    "CPU of each, µs",
    "its store's, µs",
    "one at a time, p50 and p99, ms",
    "4 MB answers, GB/s",
    "CPU of each, ms",
    "memory, MB",
    "its store's, MB",
    "a budget of 10 images",
)
WORDS = {
    Enforcement.EXACT: "holds",
    Enforcement.LATE: "holds late",
    Enforcement.NONE: "no budget",
    Enforcement.UNKNOWN: "unclear",
}
REMARKS = {
    NGINX_LUA: "It reserves and settles by two scripts, and charges what was asked for, since it does not read what"
    " came. It has no leases, so that what a killed worker held stays reserved, and no ledger.",
    PORTKEY: "The gateway that npm has knows no budgets; they belong to its hosted product.",
    LITELLM_BUDGET: "The keys come from a `custom_auth`: its own need a database, whose engine is in no package. So it"
    " writes nothing to a database here, which is less work than elsewhere. Where a model is priced by tokens, it"
    " reserves before it forwards, and lets the request through that crosses the budget. Where one is priced by the"
    " image, it looks at what has been spent, and adds to that after the answer.",
}


def insert(text: str, section: str) -> str:
    """``text`` with ``section`` between its marks. Raises ValueError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the marks between which the table stands are gone")
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}"


def write_section(run: Run) -> str:
    """All of it as Markdown."""
    versions = ", ".join(f"{name} ({run.found[name].version})" for name in run.names())
    rounds = f"Medians of {run.rounds} rounds of {run.seconds:g} s, in which all take turns."
    busy = BUSY.format(load=run.load) if run.load >= BUSY_LOAD else ""
    parts = [
        f"![What goes through each, and whether a budget holds]({PICTURE})",
        "\n".join(_table(run)),
        _wrapped(f"Measured on {run.measured} on {run.machine}. {busy}{rounds} {versions}."),
        *(_wrapped(f"{name} is left out: {reason}.") for name, reason in run.left_out.items()),
        "\n".join(_wanted(run)),
        "\n".join(_enforcers(run)),
    ]
    return "\n\n".join(part for part in parts if part)


def describe_budget(budget: Budget) -> str:
    """How many got through, in a cell's words."""
    return f"{WORDS[budget.enforcement]}: {budget.first} of {budget.asked}, then {budget.then}"


def _table(run: Run) -> Iterator[str]:
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{'---|' * len(HEADINGS)}"
    for name in run.names():
        yield f"| {' | '.join(_row(name, run.found[name]))} |"


def _row(name: str, found: Found) -> Iterator[str]:
    small_us, store_us = cpu_us(found.small)
    large_us, _ = cpu_us(found.large)
    p50_ms, p99_ms = percentiles_ms(found.alone)
    has_store = found.store_memory_mb > 0
    yield f"{name} ({found.failed:,} failed)" if found.failed else name
    yield f"{rate(found.small):,.0f}"
    yield f"{small_us:,.0f}"
    yield f"{store_us:,.0f}" if has_store else ""
    yield f"{p50_ms:.2f}, {p99_ms:.2f}"
    yield gigabytes(rate(found.large))
    yield f"{large_us / 1e3:,.1f}"
    yield f"{found.memory_mb:,.0f}"
    yield f"{found.store_memory_mb:,.0f}" if has_store else ""
    yield "; ".join(f"{account} {describe_budget(budget)}".strip() for account, budget in found.budgets.items())


def _wanted(run: Run) -> Iterator[str]:
    for verdict in verdicts(run.found):
        met = "met" if verdict.met else "not met"
        found = f"{verdict.ratio:.2f} times as much, where {verdict.wanted:g} are wanted: {met}"
        yield _wrapped(
            f"{verdict.what}: {found}. The other takes {verdict.cpu_ratio:.2f} times the CPU for each.", "- "
        )


def _enforcers(run: Run) -> Iterator[str]:
    names = run.names()
    for enforcement, words in (
        (Enforcement.EXACT, "To ten images exactly"),
        (Enforcement.LATE, "Only for those that come later"),
        (Enforcement.NONE, "Not at all"),
        (Enforcement.UNKNOWN, "In no way that the figures tell"),
    ):
        held = [
            f"{name} ({account})" if account else name
            for name in names
            for account, budget in run.found[name].budgets.items()
            if budget.enforcement is enforcement
        ]
        if held:
            yield _wrapped(f"{words}: {', '.join(held)}.", "- ")
    for name, remark in REMARKS.items():
        if name in names:
            yield _wrapped(f"{name}: {remark}", "- ")


def _wrapped(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        bullet + text,
        WIDTH,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
