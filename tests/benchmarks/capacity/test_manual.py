"""What ``deploy/README.md`` says of capacity follows from the figures that it states."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from click.testing import CliRunner

from tests.benchmarks.capacity.__main__ import MANUAL, main
from tests.benchmarks.capacity.manual import as_stated, cut_out, read, write
from tests.benchmarks.capacity.sizing import Assumptions

IN_FLIGHT_BYTES_MOST = 32_000
"""With its client's connection."""

TEXT = MANUAL.read_text(encoding="utf-8")


def test_the_manual_follows_from_its_figures() -> None:
    assert cut_out(TEXT) == write(read(TEXT))


def test_its_assumptions_are_those_that_the_program_begins_with() -> None:
    assert read(TEXT).assumed == Assumptions()


def test_a_request_in_flight_takes_no_more_than_is_promised() -> None:
    figures = read(TEXT).figures
    both_bytes = figures.connection_bytes + figures.in_flight_bytes
    assert both_bytes <= IN_FLIGHT_BYTES_MOST
    assert f"takes {both_bytes / 1000:.0f} kB of a gateway" in TEXT


def test_what_it_writes_out_is_right_for_whoever_works_it_out() -> None:
    checked = 0
    for line in re.findall(r"^- .*$", cut_out(TEXT).replace("\n  ", " "), re.MULTILINE):
        _name, *steps = line.split(" = ")
        values = [_work_out(step) for step in steps]
        for one, other in pairwise(values):
            if one is None or other is None:
                continue
            checked += 1
            # Each is shown with three figures, and one that was rounded up is a whole number.
            assert one <= other + 1 if "rounded up" in line else one == pytest.approx(other, rel=0.01), line
    assert checked >= 10


def _work_out(step: str) -> float | None:
    """The value of an expression, None where it is none."""
    plain = re.sub(r", rounded up|\s(?:µs|s|GB|workers)\b|,(?=\d)", "", step)
    plain = plain.replace("×", "*").replace("÷", "/").replace("^", "**")
    if not re.fullmatch(r"[\d.()*/+ ]+", plain):
        return None
    return float(eval(plain, {"__builtins__": {}}))  # noqa: S307 - figures and operators alone


@pytest.mark.parametrize("lost", ["| keys |", "Measured on", "| store: a settled id, bytes |", "capacity: end"])
def test_a_manual_that_lacks_something_is_told(lost: str) -> None:
    assert lost in TEXT
    with pytest.raises(ValueError, match=r".+"):
        read(TEXT.replace(lost, "| nothing |"))


def test_another_price_is_another_table_and_reads_back_as_it_was_written() -> None:
    section = read(TEXT)
    dearer = replace(section, assumed=replace(section.assumed, usd_per_gb_month=7))
    assert read(write(dearer)) == dearer
    told = CliRunner().invoke(main, ["--stated", "--table", "--usd-per-gb-month", "7"])
    assert told.output == write(dearer) + "\n"
    assert "= 9" in CliRunner().invoke(main, ["--stated", "--images", "9", "--images-per-request", "1"]).output


def test_figures_are_stated_in_whole_numbers() -> None:
    figures = read(TEXT).figures
    assert as_stated(replace(figures, admit_us=12.7)) == replace(figures, admit_us=13)
