"""Tables for people, JSON for scripts."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import orjson

_COMMANDS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys, or what ends a line or turns its order around. Clients name end users as they like."""

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")


def show_json(answer: Any) -> None:
    """The answer as it came."""
    click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())


def leave_output() -> None:
    """Forget standard output, which takes nothing more: at the end of the process, Python would try once more."""
    if sys.stdout is None:
        # The process was started without one.
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need to be; numbers to the right, with separators."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    numeric = [bool(cells) and all(_is_number(line[column]) for line in cells) for column in range(len(headings))]
    for line in [list(headings), *cells]:
        columns = zip(line, widths, numeric, strict=True)
        click.echo("  ".join(text.rjust(w) if right else text.ljust(w) for text, w, right in columns).rstrip())


def show_facts(facts: Mapping[str, object]) -> None:
    """One fact a line."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: object) -> str:
    return _COMMANDS.sub(lambda found: repr(found[0])[1:-1], _text(value))


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()
