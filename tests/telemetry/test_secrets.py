"""Secrets are found however JSON, a URL or base64 spells them, and in every line of the log."""

from __future__ import annotations

import json
import logging
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from time import process_time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.logs import JsonFormatter
from proxy.telemetry.secrets import KNOWN_SECRETS, LENGTH_LEAST, KnownSecrets
from tests.support.growth import check_growth

KEY = "AbC/dEf+12=="


def remove(text: str, *secrets: str) -> str:
    known = KnownSecrets()
    known.add(secrets or [KEY])
    return known.remove(text)


SPELLINGS = {
    "as it is": KEY,
    "with a slash as PHP escapes it": KEY.replace("/", "\\/"),
    "as JSON within JSON": KEY.replace("/", "\\\\/"),
    "with letters escaped": KEY.replace("/", "\\u002f").replace("+", "\\u002B"),
    "every letter escaped": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "in a URL": quote(KEY, safe=""),
    "in a URL within a URL": quote(quote(KEY, safe=""), safe=""),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_it_is_found_however_it_is_spelled(spelling: str) -> None:
    assert remove(f"bad key {spelling}, says the provider") == "bad key [removed], says the provider"


@given(st.binary(max_size=8), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=9, max_size=40))
def test_it_is_found_in_base64_wherever_it_begins(before: bytes, secret: str) -> None:
    whole = before + secret.encode() + b":x"
    for encoded in (b64encode(whole).decode(), urlsafe_b64encode(whole).decode()):
        cleaned = remove(encoded, secret)
        assert "[removed]" in cleaned
        # What is left holds no more than the bits at its two ends, which it shares with what stands beside it.
        assert len(cleaned.replace("[removed]", "")) <= (len(before) + 2) * 4 / 3 + 8


@given(st.text(max_size=60), st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=LENGTH_LEAST))
def test_no_text_keeps_any_of_it(around: str, secret: str) -> None:
    assert secret not in remove(around + secret + around, secret) or secret in "[removed]"


def test_what_is_too_short_is_no_secret_and_without_any_nothing_is_removed() -> None:
    known = KnownSecrets()
    assert (known.remove("abc"), known.are_in("abc")) == ("abc", False)
    known.add(["abc", ""])
    assert known.remove("abc") == "abc"


def test_the_longer_of_two_that_begin_alike_goes_whole() -> None:
    assert remove("sk-abcdef-more", "sk-abcdef", "sk-abcdef-more") == "[removed]"


def test_what_was_known_once_stays_known() -> None:
    known = KnownSecrets()
    known.add([KEY])
    known.add(["another-secret"])
    assert known.remove(f"{KEY} another-secret") == "[removed] [removed]"
    assert known.are_in(f"x{KEY}x")


def test_no_line_of_the_log_holds_one_its_traceback_included() -> None:
    secret = 'the-"key"-of-this-test'
    KNOWN_SECRETS.add([secret])
    try:
        raise ValueError(f"header: Bearer {secret}")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, __file__, 1, "it says %r", (secret,), caught)
    line = JsonFormatter().format(record)
    assert "key" not in line.replace("traceback", "")
    assert json.loads(line)["message"] == "it says '[removed]'"
    assert "Bearer [removed]" in json.loads(line)["traceback"]


@pytest.mark.parametrize("text", ["A", "\\", "AbC/dEf", "%25", "\\u002", "QWJDL2RFZisxMj"])
def test_looking_takes_no_longer_than_the_text_is_long(text: str) -> None:
    known = KnownSecrets()
    known.add([KEY, "\\" * 12, "a" * 40])
    check_growth(lambda size: known.remove(text * (size // len(text))), 2**18)


def test_a_long_secret_is_removed_from_its_begin_on_and_its_end_where_that_stands_alone() -> None:
    secrets, token = KnownSecrets(), "eyJhbGciOi." + "aB3-_" * 400 + sha256(b"its signature").hexdigest()
    secrets.add([token])
    assert secrets.remove(f"Bearer {token}, bad") == "Bearer [removed], bad"
    assert secrets.remove(f"…{token[-60:]} bad") == f"…{token[-60:-32]}[removed] bad"
    assert secrets.remove(json.dumps({"a": token}, separators=(",", ":"))) == '{"a":"[removed]"}'
    assert secrets.remove(b64encode(token.encode()).decode()).endswith("[removed]")
    assert secrets.are_in(quote(token))


def test_of_secrets_that_change_the_latest_are_known() -> None:
    secrets = KnownSecrets()
    for number in range(6):
        secrets.add_changing("a place", f"secret-number-{number}")
    secrets.add_changing("a place", "secret-number-5")
    secrets.add_changing("another", "secret-number-0x")
    known = [number for number in range(6) if secrets.are_in(f"secret-number-{number} ")]
    assert known == [3, 4, 5]
    assert secrets.are_in("secret-number-0x")


def test_one_of_many_tokens_that_change_is_known_before_a_request_would_notice() -> None:
    secrets = KnownSecrets()
    secrets.add([f"constant-secret-{number}-{'x' * 80}" for number in range(20)])
    tokens = [f"eyJ0eXAi{number}" + "aB3-_" * 400 for number in range(20)]
    began = process_time()
    for token in tokens:
        secrets.add_changing("a place", token)
    # All anew each time, it is four seconds.
    assert process_time() - began < 2
    assert secrets.remove(f"{tokens[-1]} constant-secret-3-{'x' * 80}") == "[removed] [removed]"
