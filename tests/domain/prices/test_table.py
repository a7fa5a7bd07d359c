from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.prices.table import DEFAULT, TASKS, Price, PriceTable, Rule, Sizes, Wanted

qualities = st.sampled_from(["low", "medium", "high"])
size_words = st.sampled_from(["1k", "4k", "1024x1024", "1536x1024", "3840x2160", "2048x1536"])
rules = st.builds(
    Rule,
    st.integers(0, 50_000),
    st.none() | qualities,
    st.none() | size_words,
    st.none() | st.sampled_from(TASKS),
    st.none() | st.sampled_from([1_000_000, 3_000_000, 20_000_000]),
)
tables = st.builds(
    PriceTable,
    st.lists(rules, max_size=8),
    st.sampled_from(["1", "1.5", "0.3333", "0"]).map(Decimal),
    st.sampled_from([0, 2_000, 3_840]),
    in_words=st.booleans(),
)
tasks = st.sampled_from(TASKS)
asked_qualities = st.sampled_from(["low", "high", "HD"])
asked_sizes = st.sampled_from(["1K", "4K", "1024x1024", "1536x1024", "3840x2160", "2048x2048", "square"])
LOW_OR_HIGH = [Rule(2_000, "low"), Rule(20_000, "high"), Rule(30_000, "high", "1536x1024"), Rule(45_000, None, "4k")]


def table_of(*given: Rule, edge: int = 3_840, in_words: bool = False) -> PriceTable:
    return PriceTable(given, Decimal(1), edge, in_words=in_words)


def price(table: PriceTable, quality: str | None, *sizes: str | None, task: str = "generation") -> Price:
    return table.price(Wanted(task, table.quality_of(quality), table.sizes_of(*sizes)))


# --- Laws -------------------------------------------------------------------------------------------------------------


@given(tables, tasks, asked_qualities, asked_sizes)
def test_more_conditions_never_lose_to_fewer_nor_a_dearer_one_to_as_many(
    table: PriceTable, task: str, quality: str, size: str
) -> None:
    sizes = table.sizes_of(size) or Sizes()
    matching = [rule for rule in table.rules if rule.matches(task, quality, sizes)]
    winner = table.winner(task, quality, sizes)
    if not matching:
        assert winner is None
        return
    assert winner is not None
    most = max(len(rule.conditions) for rule in matching)
    assert len(winner.conditions) == most
    assert winner.base_units == max(rule.base_units for rule in matching if len(rule.conditions) == most)


@given(tables, tasks, asked_qualities, asked_sizes)
def test_what_is_left_open_is_never_cheaper_than_what_a_rule_names(
    table: PriceTable, task: str, quality: str, size: str
) -> None:
    named = price(table, quality, size, task=task)
    if named.rule != DEFAULT:
        for open_quality, open_size in ((None, size), (quality, None), (None, None)):
            assert price(table, open_quality, open_size, task=task).units >= named.units


@given(tables, tasks, st.none() | asked_qualities, st.none() | asked_sizes)
def test_an_open_price_is_one_that_some_image_has(
    table: PriceTable, task: str, quality: str | None, size: str | None
) -> None:
    every_quality = [quality] if quality else ["low", "medium", "high", "other"]
    words = ["1k", "4k", "1024x1024", "1536x1024", "3840x2160", "2048x1536", "other"]
    # Each pixel count of a rule, and a little more, in shapes that are 4K and that are not.
    pixels = ["1000x1000", "1000x3000", "4000x5000", "1500x2000", "1999x501", "1999x1501"]
    every_size = [(size, None)] if size else [(one, other) for one in (*words, *pixels) for other in (None, *words)]
    reserved = price(table, quality, size, task=task).units
    # Most often one of the first: the many others are not asked for.
    assert any(price(table, one, *sizes, task=task).units == reserved for one in every_quality for sizes in every_size)


@given(tables, tasks, asked_qualities, asked_sizes)
def test_a_rule_that_never_wins_wins_nothing(table: PriceTable, task: str, quality: str, size: str) -> None:
    winner = table.winner(task, quality, table.sizes_of(size) or Sizes())
    assert all(winner is not rule for rule in table.useless())


@given(tables, tasks, st.none() | asked_qualities, st.none() | asked_sizes)
def test_nothing_costs_less_than_the_least(table: PriceTable, task: str, quality: str | None, size: str | None) -> None:
    assert price(table, quality, size, task=task).units >= table.least_units


# --- Cases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["4K", " 4 k", "3840x2160", "2160X3840"])
def test_a_rule_for_4k_is_one_for_all_that_is_4k(size: str) -> None:
    assert price(table_of(*LOW_OR_HIGH), "low", size) == Price("size=4k", 45_000)
    assert price(table_of(Rule(2_000, "low")), "medium", size) == Price(DEFAULT, 12_500)
    assert price(table_of(*LOW_OR_HIGH, edge=0), "low", "3840x2160").units == 2_000


def test_pixels_that_are_asked_for_as_a_word_cost_what_the_word_does() -> None:
    rules = (Rule(9_000, None, "2k"), Rule(1_000))
    assert price(table_of(*rules, in_words=True), None, "2048x2048").units == 9_000
    assert price(table_of(*rules), None, "2048x2048").units == 1_000


@pytest.mark.parametrize("nothing", [None, "", "auto", " AUTO "])
def test_what_says_nothing_leaves_it_open(nothing: str | None) -> None:
    table = table_of(*LOW_OR_HIGH)
    assert price(table, nothing, nothing) == Price("size=4k", 45_000)
    assert price(table, "low", nothing).units == 45_000
    assert price(table, nothing, "1024x1024").units == 20_000


def test_a_rule_that_cannot_apply_to_what_is_named_is_not_reserved() -> None:
    table = table_of(Rule(2_000, "low"), Rule(40_000, "high", task="edit"), Rule(9_000, min_pixels=3_000_000))
    assert price(table, None, "1024x1024").units == 5_000
    assert price(table, None, "1024x1024", task="edit").units == 40_000
    assert price(table, "low", None).units == 9_000


def test_where_another_quality_would_fall_under_no_rule_the_default_is_reserved() -> None:
    assert price(table_of(Rule(2_000, "low")), None, "1024x1024") == Price(DEFAULT, 5_000)
    assert price(table_of(Rule(2_000, "low"), Rule(1_000)), None, "1024x1024").units == 2_000


def test_rules_that_cannot_win_are_found() -> None:
    rules = [
        Rule(1_000, "low"),
        Rule(900, "low"),
        Rule(20, None, "1024x1024", min_pixels=3_000_000),
        Rule(30, task="edit"),
        Rule(5),
    ]
    table = table_of(*rules)
    assert {rule.name for rule in table.useless()} == {"quality=low", "size=1024x1024 min_pixels=3000000"}
    assert [rule.base_units for rule in table.useless() if rule.name == "quality=low"] == [900]
    assert price(table, "medium", "1k").rule == "any"


def test_many_different_requests_keep_the_memory_of_them_bounded() -> None:
    table = table_of(*LOW_OR_HIGH)
    for number in range(10_000):
        price(table, f"quality-{number}", f"{number + 1}x1")
    assert len(table._known) < 10
