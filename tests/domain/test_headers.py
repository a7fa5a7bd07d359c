from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.domain.api_key import make_key_text, parse_credential
from proxy.domain.errors import InvalidApiKey
from proxy.domain.headers import KEY_HEADERS, parse_authorization, read_credential, retry_after_seconds

NOW_S = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT: the example of RFC 9110."""

HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
KEY = make_key_text("acme_0123456789", lambda characters: characters[7])
OTHER_KEY = make_key_text("acme_0123456789", lambda characters: characters[8])
BEARER = f"Bearer {KEY}"
DIFFERENT, MALFORMED, MISSING = "different keys", "malformed", "You didn't provide an API key"

# --- Authorization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}", f"Bearer   {KEY}", f" Bearer {KEY} ", f"Bearer {KEY}\t"],
)
def test_a_key_is_read_whatever_the_case_of_the_scheme(value: str) -> None:
    credential = parse_authorization([value])
    assert credential == parse_credential(KEY)
    assert credential.key_id == "acme_0123456789"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "You didn't provide an API key"),
        ([f"Bearer {KEY}", f"Bearer {KEY}"], "more than one"),
        ([f"Bearer {KEY}", ""], "more than one"),
        ([""], "should be 'Bearer lm_...'"),
        ([KEY], "should be 'Bearer lm_...'"),
        ([f"Basic {KEY}"], "should be 'Bearer lm_...'"),
        ([f"Token {KEY}"], "should be 'Bearer lm_...'"),
        ([f"Bearer{KEY}"], "should be 'Bearer lm_...'"),
        ([f"Bearer:{KEY}"], "should be 'Bearer lm_...'"),
        (["Bearer"], "malformed"),
        (["Bearer "], "malformed"),
        ([f"Bearer {KEY[:-1]}"], "malformed"),
        ([f"Bearer {KEY} {KEY}"], "malformed"),
        ([f"Bearer {KEY},{KEY}"], "malformed"),
        ([f"Bearer Bearer {KEY}"], "malformed"),
        ([f'Bearer "{KEY}"'], "malformed"),
        (["Bearer sk-0123456789abcdef"], "malformed"),
    ],
)
def test_what_is_no_single_bearer_key_is_refused_and_the_message_says_why(values: list[str], message: str) -> None:
    with pytest.raises(InvalidApiKey) as caught:
        parse_authorization(values)
    assert message in caught.value.message
    assert caught.value.wire_status == 401


@given(st.lists(st.text(max_size=30), max_size=2), st.text(max_size=60))
def test_a_refusal_never_repeats_what_was_sent(values: list[str], secret: str) -> None:
    for sent in (values, [f"Bearer {secret}secret-{KEY}"], [f"{secret}secret-{KEY}"]):
        with pytest.raises(InvalidApiKey) as caught:
            parse_authorization(sent)
        assert "secret-" not in caught.value.message
        assert KEY not in caught.value.message


# --- The key in other headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", BEARER)], [("api-key", KEY)], [("x-api-key", KEY)], [("API-Key", f" {KEY}\t")],
        [("X-API-KEY", KEY), ("Api-Key", KEY)], [("Authorization", BEARER), ("api-key", KEY), ("x-api-key", KEY)],
        [("Authorization", f"bearer  {KEY}"), ("x-api-key", f"{KEY} ")], [("api-key", KEY), ("api-key", KEY)],
        [("Authorization", BEARER), ("api-key", "")], [("x-api-key", " "), ("api-key", KEY)],
    ],
)  # fmt: skip
def test_a_key_is_read_wherever_a_client_puts_it(headers: list[tuple[str, str]]) -> None:
    assert read_credential(CIMultiDict(headers)) == parse_credential(KEY)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], MISSING), ([("api-key", "")], MISSING), ([("api-key", ""), ("x-api-key", " ")], MISSING),
        ([("key", KEY), ("api_key", KEY), ("x-key", KEY)], MISSING),
        ([("Authorization", BEARER), ("api-key", OTHER_KEY)], DIFFERENT),
        ([("Authorization", BEARER), ("x-api-key", OTHER_KEY)], DIFFERENT),
        ([("api-key", KEY), ("x-api-key", OTHER_KEY)], DIFFERENT),
        ([("api-key", KEY), ("api-key", OTHER_KEY)], DIFFERENT),
        ([("Authorization", BEARER), ("x-api-key", "sk-of-another")], DIFFERENT),
        ([("Authorization", "Bearer sk-of-another"), ("api-key", KEY)], DIFFERENT),
        ([("Authorization", "Bearer"), ("api-key", KEY)], DIFFERENT),
        ([("Authorization", BEARER), ("api-key", BEARER)], DIFFERENT),
        ([("Authorization", f"Basic {KEY}"), ("api-key", KEY)], "should be 'Bearer"),
        ([("Authorization", BEARER), ("Authorization", BEARER), ("api-key", KEY)], "more than one"),
        ([("api-key", BEARER)], MALFORMED), ([("x-api-key", KEY[:-1])], MALFORMED),
        ([("api-key", f"{KEY},{KEY}")], MALFORMED),
    ],
)  # fmt: skip
def test_keys_that_are_none_or_differ_are_refused(headers: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(InvalidApiKey) as caught:
        read_credential(CIMultiDict(headers))
    assert message in caught.value.message
    assert caught.value.wire_status == 401


@given(st.lists(st.tuples(st.sampled_from(["Authorization", *KEY_HEADERS]), st.text(max_size=60)), max_size=3))
def test_no_refusal_repeats_what_was_sent_in_any_header(headers: list[tuple[str, str]]) -> None:
    secret = f"secret-{KEY}"
    with pytest.raises(InvalidApiKey) as caught:
        read_credential(CIMultiDict([*headers, ("api-key", secret), ("x-api-key", f"{secret}x")]))
    assert "secret-" not in caught.value.message
    assert KEY not in caught.value.message


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0), ("1", 1), ("120", 120), (" 7 ", 7), ("86400", 86_400), ("86401", 86_400), ("9" * 5_000, 86_400),
        ("20.7", 21), ("1.0", 1), ("0.2", 1), ("1s", 1), ("34.07s", 35), ("20 seconds", 20), ("1m30s", 90),
        ("2h", 7_200), ("250ms", 1), ("20, 20", 20), ('"20"', 20),
        ("", None), ("-1", None), ("-1.5", None), ("+1", None), ("1e3", None), (".", None), ("1.5.5", None),
        ("s", None), ("soon", None), ("1 2", None),
        ("\u0661", None), ("\u00b2", None), ("1_0", None),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30), ("Sunday, 06-Nov-94 08:50:07 GMT", 30), ("Sun Nov  6 08:50:07 1994", 30),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0), ("Fri, 31 Dec 1993 23:59:59 GMT", 0),
        ("Sun, 06 Nov 1994 20:00:00 GMT", 40_223), ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Sun, 06 Nov 1994 25:00:00 GMT", None), ("Sun, 36 Nov 1994 08:50:07 GMT", None), ("Sun", None),
        ("1994-11-06T08:50:07Z", None), ("06 Nov 1994 08:50:07", None), (f"Sun, 06 Nov 1994 08:50:07 {'G' * 99}", None),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_retry_after_is_seconds_a_duration_or_a_date_and_at_most_a_day(value: str, seconds: int | None) -> None:
    assert retry_after_seconds({"Retry-After": value}, NOW_S) == seconds


def test_a_date_is_counted_from_the_providers_own_clock() -> None:
    headers = {"Retry-After": "Sun, 06 Nov 1994 08:50:07 GMT", "Date": "Sun, 06 Nov 1994 08:50:00 GMT"}
    assert retry_after_seconds(headers, NOW_S) == 7
    assert retry_after_seconds({**headers, "Date": "some day"}, NOW_S) == 30
    assert retry_after_seconds({**headers, "Date": "some day"}, NOW_S + 0.5) == 30


def test_a_wait_in_milliseconds_is_read_as_openai_and_azure_name_it() -> None:
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        assert retry_after_seconds({name: "25000", "Retry-After": "1"}, NOW_S) == 25


def test_no_retry_after_is_none() -> None:
    assert retry_after_seconds({}, NOW_S) is None


@given(st.text() | st.from_regex(r"\A(Mon|Sun), [ -~]{0,36}\Z") | st.datetimes().map(lambda at: at.strftime(HTTP_DATE)))
def test_any_retry_after_is_within_a_day_or_none(value: str) -> None:
    seconds = retry_after_seconds({"Retry-After": value}, NOW_S)
    assert seconds is None or 0 <= seconds <= 86_400
