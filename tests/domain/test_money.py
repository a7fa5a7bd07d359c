from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.money import NO_MONEY, Money

rates = st.decimals("0.000001", 10**12, places=6)


@pytest.mark.parametrize(
    ("units", "usd"),
    [(0, "0.00"), (100_000, "1.00"), (25_000_000, "250.00"), (4_647, "0.04647"), (1, "0.00001"), (-5_000, "-0.05")],
)
def test_units_are_shown_in_dollars(units: int, usd: str) -> None:
    assert Money(Decimal(100_000)).usd(units) == usd


def test_dollars_are_shown_to_the_millionth() -> None:
    assert Money(Decimal(3)).usd(1) == "0.333333"
    assert Money(Decimal(10**9)).usd(1) == "0.00"


@given(st.integers(0, 10**8), rates)
def test_dollars_become_units_that_are_not_worth_more(cents: int, rate: Decimal) -> None:
    text = f"${cents // 100}.{cents % 100:02}"
    units = Money(rate).units(text)
    assert Decimal(units) <= Decimal(cents) / 100 * rate < units + 1
    assert Money(rate).units(f"-{text}") == -units


@pytest.mark.parametrize("text", ["250", "$", "$-5", "$1,000", "$1e3", "$ 5", "€5", "$01", "$1.", "$1.1234567", "$5\n"])
def test_what_is_not_written_as_dollars_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="US dollars like"):
        Money(Decimal(1)).units(text)


def test_where_nobody_says_what_a_unit_is_worth_there_are_none() -> None:
    view = {"charged": 5, "images": 1}
    assert (NO_MONEY.usd(5), NO_MONEY.beside(view, "charged")) == (None, view)
    with pytest.raises(ValueError, match=r"set accounting\.units_per_usd"):
        NO_MONEY.units("$5")


def test_dollars_stand_beside_units_and_no_limit_stays_none() -> None:
    view = {"limit": None, "posted": 200, "images": 1}
    assert Money(Decimal(100)).beside(view, "limit", "posted", "reserved") == {
        **view,
        "limit_usd": None,
        "posted_usd": "2.00",
    }
