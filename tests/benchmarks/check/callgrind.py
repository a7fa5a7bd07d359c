"""What callgrind writes, read. Pure.

The format: https://valgrind.org/docs/manual/cl-format.html
"""

from __future__ import annotations

import re
from collections import Counter

_total = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
_name = re.compile(r"^(c?fn|c?ob)=\((\d+)\)(?: (.*))?$")
_cycle = re.compile(r"'\d+$")


def instructions_of(text: str) -> int:
    """All that one dump has counted. Raises ValueError where it tells nothing."""
    found = _total.findall(text)
    if not found:
        raise ValueError("callgrind has told no total")
    return int(found[-1])


def functions_of(text: str) -> Counter[str]:
    """The instructions of each function itself, without those that it calls."""
    counts: Counter[str] = Counter()
    names: dict[tuple[str, str], str] = {}
    current = library = ""
    is_call = False
    for line in text.splitlines():
        if named := _name.match(line):
            kind, number, name = named.groups()
            space = kind[-2:]
            if name is not None:
                names[space, number] = name
            known = names.get((space, number), "?")
            if kind == "ob":
                library = known.rpartition("/")[2]
            elif kind == "fn":
                current = f"{library} {known}" if known.startswith("0x") else _cycle.sub("", known)
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
            cost = line.split()[1:]
            if cost and not is_call:
                counts[current] += int(cost[0])
            is_call = False
    return counts
