from __future__ import annotations

import re
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain import api_key
from proxy.domain.api_key import (
    BASE36,
    BASE62,
    Credential,
    hash_key,
    is_team_id,
    make_key_id,
    make_key_text,
    parse_credential,
    team_of,
)
from tests.support.examples import examples

SAMPLE = "lm_acme_0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef23b64af5"

teams = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str, str]:
    """A team, the id of a key of it, and the key's text."""
    team = draw(teams)
    suffix = iter(draw(st.text(BASE36, min_size=10, max_size=10)))
    secret = iter(draw(st.text(BASE62, min_size=32, max_size=32)))
    key_id = make_key_id(team, lambda _: next(suffix))
    return team, key_id, make_key_text(key_id, lambda _: next(secret))


@given(keys())
def test_a_key_says_its_team_its_id_and_its_hash(key: tuple[str, str, str]) -> None:
    team, key_id, text = key
    assert parse_credential(text) == Credential(team, key_id, sha256(text.encode()).hexdigest())
    assert hash_key(text) == sha256(text.encode()).hexdigest()
    assert team_of(key_id) == team


@given(keys())
def test_a_key_has_the_form_that_secret_scanners_are_told_of(key: tuple[str, str, str]) -> None:
    told = re.search(r"``(lm_\[\S+)``", api_key.__doc__ or "")
    assert told is not None
    assert re.fullmatch(told[1], key[2])


@given(keys())
@examples(20)
def test_a_key_with_any_one_character_changed_left_out_or_typed_twice_is_refused(key: tuple[str, str, str]) -> None:
    text = key[2]
    for at, character in enumerate(text):
        before, after = text[:at], text[at + 1 :]
        assert parse_credential(before + after) is None
        assert parse_credential(before + character + character + after) is None
        for other in BASE62 + "-_ \n\u00e9":
            assert other == character or parse_credential(before + other + after) is None


@given(keys())
def test_a_key_with_two_neighbours_exchanged_is_refused(key: tuple[str, str, str]) -> None:
    text = key[2]
    for at, (one, other) in enumerate(pairwise(text)):
        assert one == other or parse_credential(text[:at] + other + one + text[at + 2 :]) is None


def test_the_checksum_is_part_of_the_format() -> None:
    # Keys outlive releases: this one has to be good for ever.
    secret = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef")
    assert make_key_text("acme_0123456789", lambda _: next(secret)) == SAMPLE
    assert parse_credential(SAMPLE) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lm_",
        "sk-proj-0123456789",
        SAMPLE[:-1],
        SAMPLE + "0",
        f" {SAMPLE}",
        f"{SAMPLE} ",
        f"{SAMPLE}\n",
        SAMPLE.upper(),
        SAMPLE.replace("lm_", "LM_"),
        SAMPLE.replace("_", "-"),
        SAMPLE.replace("0", "\u0660"),
        SAMPLE.replace("acme", "-acme"),
        SAMPLE.replace("acme", ""),
        SAMPLE.removeprefix("lm_"),
        SAMPLE * 2,
        "\x00" * 60,
        "x" * 100_000,
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    assert parse_credential(text) is None


@given(st.text(max_size=80))
def test_a_guess_is_refused(text: str) -> None:
    assert parse_credential(text) is None
    assert parse_credential("lm_acme_0123456789_" + text) is None


def test_ids_and_secrets_ask_for_every_character_alone() -> None:
    asked: list[str] = []

    def choose(characters: str) -> str:
        asked.append(characters)
        return characters[0]

    make_key_text(make_key_id("acme", choose), choose)
    assert asked == [BASE36] * 10 + [BASE62] * 32
    assert len(set(BASE62)) == 62
    assert len(set(BASE36)) == 36


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a", True), ("0", True), ("a-b", True), ("a--b", True), ("a" * 40, True), ("team-1", True),
        ("", False), ("-", False), ("-a", False), ("a-", False), ("a" * 41, False), ("A", False), ("a_b", False),
        ("a b", False), ("a\n", False), ("\u00e9", False), ("a.b", False), ("{a}", False), ("\u0660", False),
    ],
)  # fmt: skip
def test_a_team_id_is_1_to_40_letters_digits_and_inner_hyphens(text: str, good: bool) -> None:
    assert is_team_id(text) is good
    assert team_of(f"{text}_0123456789") == (text if good else None)


@pytest.mark.parametrize(
    "key_id", ["", "acme", "acme_", "acme_012345678", "acme_01234567890", "acme_012345678A", "_0123456789", SAMPLE]
)
def test_what_is_no_key_id_has_no_team(key_id: str) -> None:
    assert team_of(key_id) is None
