from __future__ import annotations

import pytest

from proxy.cli.support.output import show_facts, show_table

HOSTILE = "\x1b]52;c;cm0=\x07\x1b[2J\n2026  9,999\x9b0m\x7f\u202etxt\u2028"
SHOWN = r"\x1b]52;c;cm0=\x07\x1b[2J\n2026  9,999\x9b0m\x7f\u202etxt\u2028"


def test_names_that_clients_give_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("USER", "UNITS"), [(HOSTILE, 5_000), ("änn 👩‍🎨 \\x1b", 7)])
    show_facts({"user": HOSTILE, "tags": [HOSTILE, "env=prod"]})
    heading, hostile, plain, *facts = capsys.readouterr().out.split("\n")
    assert heading == "USER".ljust(len(SHOWN)) + "  UNITS"
    assert hostile == f"{SHOWN}  5,000"
    assert plain.startswith("änn 👩‍🎨 \\x1b ")
    assert plain.endswith("      7")
    assert facts == [f"user  {SHOWN}", f"tags  {SHOWN}, env=prod", ""]
