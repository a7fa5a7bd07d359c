from __future__ import annotations

import pytest

from proxy.sample_provider.behaviour import (
    FLAGS,
    Behaviour,
    UnknownBehaviour,
    parse_overrides,
    split_prompt,
    with_overrides,
)


@pytest.mark.parametrize("text", ["delay_ms=50,images=2", "delay_ms=50 images=2", " images=2 , delay_ms=50 "])
def test_overrides_are_separated_by_commas_or_blanks(text: str) -> None:
    assert parse_overrides(text) == {"delay_ms": 50, "images": 2}


def test_no_overrides_leave_the_very_same_behaviour() -> None:
    behaviour = Behaviour(delay_ms=3)
    assert with_overrides(behaviour, "") is behaviour


def test_overrides_replace_only_what_they_name() -> None:
    changed = with_overrides(Behaviour(delay_ms=3, seed=4), "images=0 failure_rate=0.25 answer=b64_json")
    assert changed == Behaviour(delay_ms=3, seed=4, images=0, failure_rate=0.25, answer="b64_json")


def test_a_switch_may_stand_alone_and_may_be_turned_off() -> None:
    assert with_overrides(Behaviour(), "malformed").malformed
    assert with_overrides(Behaviour(), "endless=true").endless
    assert not with_overrides(Behaviour(malformed=True), "malformed=false").malformed


def test_none_unsets_what_is_optional() -> None:
    assert with_overrides(Behaviour(status=429, images=2), "status=none images=none") == Behaviour()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour=red", "'colour'"),
        ("api_key=other", "'api_key'"),
        ("seed=1", "'seed'"),
        ("images", "images must be a whole number from 0 to 1000"),
        ("images=1001", "images must be a whole number"),
        ("delay_ms=-1", "delay_ms must be a whole number"),
        ("delay_ms=1.5", "delay_ms must be a whole number"),
        ("delay_ms=none", "delay_ms must be a whole number"),
        ("status=200", "status must be a whole number from 300 to 599"),
        ("failure_rate=2", "failure_rate must be a number from 0 to 1"),
        ("failure_rate=nan", "failure_rate must be a number from 0 to 1"),
        ("failure_rate=often", "failure_rate must be a number from 0 to 1"),
        ("answer=png", "answer must be url or b64_json"),
        ("malformed=perhaps", "malformed must be true or false"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_named(text: str, message: str) -> None:
    with pytest.raises(UnknownBehaviour, match=message):
        parse_overrides(text)


@pytest.mark.parametrize(
    ("prompt", "overrides", "rest"),
    [
        ("a blue cube", "", "a blue cube"),
        ("[sample images=2 delay_ms=50] a blue cube", "images=2 delay_ms=50", "a blue cube"),
        ("  [sample images=2]a blue cube", "images=2", "a blue cube"),
        ("[sample]a blue cube", "", "a blue cube"),
        ("[sample images=2]", "images=2", ""),
        ("[samples] a blue cube", "", "[samples] a blue cube"),
        ("[sample images=2 a blue cube", "", "[sample images=2 a blue cube"),
        ("a [sample images=2] cube", "", "a [sample images=2] cube"),
    ],
)
def test_a_prompt_gives_up_its_prefix_and_nothing_else(prompt: str, overrides: str, rest: str) -> None:
    assert split_prompt(prompt) == (overrides, rest)


def test_every_field_is_explained() -> None:
    assert set(FLAGS) == set(Behaviour.__dataclass_fields__)
    assert all(flag.explanation.endswith((".", "]")) for flag in FLAGS.values())
