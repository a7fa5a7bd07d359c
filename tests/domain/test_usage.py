from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.catalog import TOKENS_LIMIT
from proxy.domain.usage import (
    SUM_BYTES_LIMIT,
    Tokens,
    add_usage,
    later_usage,
    reported_cost,
    tokens_by_kind,
    total_tokens,
)
from tests.support.price_tables import gemini_usage, openai_usage, openrouter_usage

counts = st.integers(0, 10**6)
kinds = st.fixed_dictionaries(
    {"input_text": counts, "input_image": counts, "output_text": counts, "output_image": st.integers(1, 10**6)}
)


def tokens_of(usage: dict[str, Any]) -> Tokens | None:
    return tokens_by_kind(orjson.dumps(usage))


def modality(kind: str, count: float) -> dict[str, Any]:
    return {"modality": kind, "tokenCount": count}


# --- As providers publish it ------------------------------------------------------------------------------------------


@given(kinds, st.sampled_from([openai_usage, openrouter_usage, gemini_usage]))
def test_every_dialect_tells_the_same_kinds(usage: dict[str, int], write: Any) -> None:
    assert tokens_of(write(usage)) == Tokens(**usage)


@given(kinds, kinds, st.sampled_from([openai_usage, openrouter_usage, gemini_usage]))
def test_two_reports_add_up_kind_by_kind(one: dict[str, int], other: dict[str, int], write: Any) -> None:
    added = add_usage(orjson.dumps(write(one)), orjson.dumps(write(other)))
    assert tokens_by_kind(added) == Tokens(**{kind: one[kind] + other[kind] for kind in one})


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        # gpt-image-1, before it told what its output was made of
        (
            {
                "total_tokens": 4_483,
                "input_tokens": 323,
                "output_tokens": 4_160,
                "input_tokens_details": {"text_tokens": 13, "image_tokens": 310},
            },
            Tokens(13, 310, 0, 4_160),
        ),
        # OpenRouter's POST /images
        ({"completion_tokens": 4_175, "cost": 0.04, "prompt_tokens": 0, "total_tokens": 4_175}, Tokens(0, 0, 0, 4_175)),
        # OpenRouter's chat, with thoughts
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 1_400,
                "total_tokens": 1_410,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 100, "image_tokens": 1_290},
            },
            Tokens(10, 0, 110, 1_290),
        ),
        # Gemini, with a text beside the image, thoughts and a tool
        (
            {
                "promptTokenCount": 268,
                "candidatesTokenCount": 1_300,
                "thoughtsTokenCount": 200,
                "toolUsePromptTokenCount": 30,
                "totalTokenCount": 1_798,
                "promptTokensDetails": [modality("TEXT", 10), modality("IMAGE", 258)],
                "candidatesTokensDetails": [modality("IMAGE", 1_290)],
                "toolUsePromptTokensDetails": [modality("TEXT", 30)],
            },
            Tokens(40, 258, 210, 1_290),
        ),
        # Details that are all zero say nothing
        (
            {
                "input_tokens": 50,
                "output_tokens": 400,
                "total_tokens": 450,
                "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
                "output_tokens_details": {"text_tokens": 0, "image_tokens": 0},
            },
            Tokens(50, 0, 0, 400),
        ),
        ({"total_tokens": 4_160}, Tokens(0, 0, 0, 4_160)),
        # Numbers as some write them
        (
            {"output_tokens": 400.0, "output_tokens_details": {"image_tokens": "390", "text_tokens": 10.0}},
            Tokens(0, 0, 10, 390),
        ),
        ({"candidatesTokensDetails": [modality("IMAGE", 1_290.0)]}, Tokens(0, 0, 0, 1_290)),
        ({"totalTokenCount": 1_300, "promptTokenCount": 10}, Tokens(10, 0, 0, 1_290)),
        ({"output_tokens": 400, "total_tokens": 450}, Tokens(50, 0, 0, 400)),
        (
            {"total_tokens": 450, "output_tokens_details": {"image_tokens": 400}, "input_tokens_details": {}},
            Tokens(50, 0, 0, 400),
        ),
        ({"completion_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 30}}, Tokens(0, 0, 30, 70)),
        # Numbers written otherwise, in a total and in its details alike
        (
            {
                "input_tokens": 60.0,
                "output_tokens": "500",
                "input_tokens_details": {"text_tokens": 50.0, "image_tokens": 10.0},
                "output_tokens_details": {"text_tokens": "100", "image_tokens": "400"},
            },
            Tokens(50, 10, 100, 400),
        ),
        (
            {"candidatesTokenCount": 9, "candidatesTokensDetails": [modality("image", 5), modality("Text", 4)]},
            Tokens(0, 0, 4, 5),
        ),
    ],
)
def test_tokens_are_read_by_kind(usage: dict[str, Any], tokens: Tokens) -> None:
    assert tokens_of(usage) == tokens


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0},
        {"total_tokens": -5},
        {"total_tokens": True},
        {"output_tokens": "many", "output_tokens_details": [1, None, {"modality": []}]},
        {"output_tokens": TOKENS_LIMIT + 1},
        {"output_tokens_details": {"image_tokens": 2**60}},
        {"cost": 1},
    ],
)
def test_what_reports_no_tokens_that_can_be_true_reports_none(usage: dict[str, Any]) -> None:
    assert tokens_of(usage) is None
    assert tokens_by_kind(None) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["total_tokens", "input_tokens", "output_tokens", "input_tokens_details", "candidatesTokensDetails", "cost",
     "is_byok", "output_tokens_details", "promptTokenCount", "cost_details", "completion_tokens_details"]
)  # fmt: skip


@given(st.dictionaries(names, json_values), st.dictionaries(names, json_values))
def test_whatever_a_provider_reports_is_read_and_added(one: dict[str, Any], other: dict[str, Any]) -> None:
    added = add_usage(orjson.dumps(one), orjson.dumps(other))
    for usage in (orjson.dumps(one), added):
        tokens, cost = tokens_by_kind(usage), reported_cost(usage)
        assert tokens is None or tokens.input_text + tokens.input_image + tokens.output_text + tokens.output_image > 0
        assert cost is None or cost >= 0
        assert total_tokens(usage) >= 0


# --- Costs ------------------------------------------------------------------------------------------------------------


@given(st.decimals(0, 1_000, places=7), st.decimals(0, 1_000, places=7))
def test_costs_are_read_and_added_as_they_are_written(one: Decimal, other: Decimal) -> None:
    reports = [orjson.dumps({"cost": float(cost)}) for cost in (one, other)]
    assert reported_cost(reports[0]) == one
    assert reported_cost(add_usage(*reports)) == one + other


def test_a_key_of_ones_own_costs_what_both_charge() -> None:
    report = {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1}}
    assert reported_cost(orjson.dumps(report)) == Decimal("1.05")
    assert reported_cost(orjson.dumps({**report, "is_byok": False})) == Decimal("0.05")


@pytest.mark.parametrize(
    ("usage", "total"),
    [
        ({"total_tokens": 0, "prompt_tokens": 10, "completion_tokens": 20}, 30),
        ({"total_tokens": "30"}, 30),
        ({"total_tokens": 30.0}, 30),
        ({"prompt_tokens": 10.0, "completion_tokens": "20"}, 30),
        ({"total_tokens": "about 30", "prompt_tokens": 10, "completion_tokens": 20}, 30),
        ({"total_tokens": 30.5}, 0),
        ({"total_tokens": True}, 0),
        ({"total_tokens": "9" * 400}, 0),
        ({"total_tokens": 0, "prompt_tokens": 0}, 0),
    ],
)
def test_a_total_is_read_in_any_way_of_writing_a_number(usage: dict[str, Any], total: int) -> None:
    assert total_tokens(orjson.dumps(usage)) == total


@pytest.mark.parametrize(
    ("one", "other", "added"),
    [
        ({"cost": "0.1"}, {"cost": "0.2"}, {"cost": "0.3"}),
        ({"cost": "0.1"}, {"cost": 1}, {"cost": "1.1"}),
        ({"total_tokens": "100"}, {"total_tokens": "200"}, {"total_tokens": "300"}),
        ({"total_tokens": 2**64 - 1}, {"total_tokens": 2**64 - 1}, {"total_tokens": float(2**65)}),
        ({"total_tokens": 2**62}, {"total_tokens": 2**62}, {"total_tokens": float(2**63)}),
        ({"id": "one"}, {"id": "two"}, {"id": "two"}),
        ({"cost": "1e999999999"}, {"cost": "1e999999999"}, {"cost": "1e999999999"}),
    ],
)
def test_numbers_add_up_however_they_are_written(
    one: dict[str, Any], other: dict[str, Any], added: dict[str, Any]
) -> None:
    assert orjson.loads(add_usage(orjson.dumps(one), orjson.dumps(other)) or b"") == added


@pytest.mark.parametrize(
    "cost",
    ["1e-99999999", "1e99999999", "9" * 5_000, "0." + "1" * 5_000, "NaN", "sNaN", "Infinity", "1_0", "\u0661", "", "."],
)
def test_a_cost_that_is_no_number_of_dollars_is_none(cost: str) -> None:
    report = {"is_byok": True, "cost": cost, "cost_details": {"upstream_inference_cost": cost}}
    assert reported_cost(orjson.dumps(report)) is None
    assert reported_cost(orjson.dumps({**report, "cost": 2})) == 2


@pytest.mark.parametrize("cost", ["9e999", "1e-999", 1e308, 5e-324])
def test_a_cost_at_an_end_of_what_is_read_can_be_written_down(cost: float | str) -> None:
    report = {"is_byok": True, "cost": cost, "cost_details": {"upstream_inference_cost": cost}}
    read = reported_cost(add_usage(orjson.dumps(report), orjson.dumps(report)))
    assert read is None or len(f"{read:f}") < 2_000


# --- Long reports -----------------------------------------------------------------------------------------------------


def with_padding(report: dict[str, Any], number: int) -> bytes:
    """Names that no other report has, as many as one report may have."""
    details = {**report, "padding": {f"member {number} {each}": each for each in range(600)}}
    return orjson.dumps(details)


@given(st.lists(kinds, min_size=2, max_size=5), st.sampled_from([openai_usage, openrouter_usage, gemini_usage]))
def test_the_sum_of_long_reports_is_as_short_as_one_and_counts_the_same(
    usages: list[dict[str, int]], write: Any
) -> None:
    short: bytes | None = None
    long: bytes | None = None
    for number, usage in enumerate(usages):
        report = {
            **write(usage), "cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": "0.25"},
        }  # fmt: skip
        short, long = add_usage(short, orjson.dumps(report)), add_usage(long, with_padding(report, number))
    assert long is not None
    assert len(long) <= SUM_BYTES_LIMIT
    assert tokens_by_kind(long) == tokens_by_kind(short)
    assert total_tokens(long) == total_tokens(short)
    assert reported_cost(long) == reported_cost(short) == len(usages) * Decimal("0.35")


@given(st.dictionaries(names, json_values), st.dictionaries(names, json_values))
def test_a_long_report_counts_as_it_does_alone(one: dict[str, Any], other: dict[str, Any]) -> None:
    added = add_usage(with_padding(one, 1), with_padding(other, 2))
    assert added is not None
    assert len(added) <= SUM_BYTES_LIMIT


def test_lists_do_not_grow_either() -> None:
    total: bytes | None = None
    for number in range(20):
        lists = [{"modality": f"{number} {each}", "tokenCount": 1} for each in range(300)]
        report = {"promptTokensDetails": [*lists, None, 5], "candidatesTokenCount": 7, "other": [*range(900)]}
        total = add_usage(total, orjson.dumps(report))
    assert total is not None
    assert len(total) <= SUM_BYTES_LIMIT
    assert tokens_by_kind(total) == Tokens(20 * 300, 0, 0, 140)


# --- One report after another -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [None, b"{}", b'{"total_tokens":0}', b'{"prompt_tokens":null,"cost":null}'])
def test_a_later_report_counts_unless_it_says_nothing(silent: bytes | None) -> None:
    told, total = b'{"total_tokens":3}', b'{"total_tokens":9}'
    assert later_usage(told, total) == total
    assert later_usage(told, silent) == told
    assert later_usage(silent, told) == told
    assert later_usage(told, b'{"cost":0}') == b'{"cost":0}'
    assert later_usage(b"{}", b'{"a":1}') == b"{}"
