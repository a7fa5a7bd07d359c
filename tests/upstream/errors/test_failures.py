from __future__ import annotations

import unicodedata
from http import HTTPStatus

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.api_key import make_key_text
from proxy.domain.errors import (
    NothingGenerated,
    ProviderOutOfCredit,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
)
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.requests.image import KNOWN_PARAMETERS
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.dialects.protocol import Dialect
from proxy.upstream.errors.failures import (
    MESSAGE_LENGTH_LIMIT,
    READ_LENGTH_LIMIT,
    clean,
    error_for_status,
    error_in_answer,
)
from proxy.upstream.errors.reports import ErrorReport
from tests.support.examples import examples

# --- Statuses ---------------------------------------------------------------------------------------------------------

MEANINGS: dict[int, type[ProxyError]] = {
    100: UpstreamMisconfigured,
    301: UpstreamMisconfigured,
    302: UpstreamMisconfigured,
    304: UpstreamMisconfigured,
    400: ProviderRefusal,
    401: UpstreamMisconfigured,
    402: ProviderOutOfCredit,
    403: UpstreamMisconfigured,
    404: UpstreamMisconfigured,
    405: UpstreamMisconfigured,
    407: UpstreamMisconfigured,
    408: UpstreamTimeout,
    409: ProviderRefusal,
    413: ProviderRefusal,
    415: ProviderRefusal,
    418: UpstreamMisconfigured,
    422: ProviderRefusal,
    429: UpstreamRateLimit,
    451: ProviderRefusal,
    500: UpstreamError,
    501: UpstreamError,
    502: UpstreamError,
    503: UpstreamError,
    504: UpstreamTimeout,
    529: UpstreamError,
    599: UpstreamError,
}


@pytest.mark.parametrize(("status", "kind"), MEANINGS.items())
def test_each_status_of_a_provider_has_its_meaning(status: int, kind: type[ProxyError]) -> None:
    assert type(error_for_status(status, {}, ErrorReport("It failed.", "some_code", "prompt"))) is kind


@pytest.mark.parametrize("status", [status for status in range(100, 600) if not 200 <= status < 300])
def test_the_client_sees_the_providers_status_only_where_its_content_was_refused(status: int) -> None:
    error = error_for_status(status, {}, ErrorReport("It failed.", "some_code", "prompt"))
    if isinstance(error, ProviderRefusal):
        assert error.wire_status == status < 500
        assert error.body()["error"]["code"] == "some_code"
    else:
        assert error.wire_status == (status if status in (429, 504) else 504 if status == 408 else 502)
        assert "It failed." not in error.message
        assert "some_code" not in str(error.body())
    assert error.wire_status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, "7"),
        ({"Retry-After": "86401"}, "86400"),
        ({"Retry-After": "0"}, "1"),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, "1"),
        ({}, "1"),
    ],
)
def test_a_providers_rate_limit_keeps_its_retry_after(headers: dict[str, str], seconds: str) -> None:
    assert error_for_status(429, headers, ErrorReport()).headers() == {"Retry-After": seconds}


# --- The provider's words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", " ", "\n", "\x00\x1b"])
def test_a_refusal_without_words_gets_some(message: str) -> None:
    assert error_for_status(400, {}, ErrorReport(message)).message == "The provider refused the request."


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Incorrect API key provided: se***EY.", UpstreamMisconfigured),
        ("invalid api key", UpstreamMisconfigured),
        ("The prompt 'Incorrect API key provided' is too short.", ProviderRefusal),
        ("Invalid api keyboard layout.", ProviderRefusal),
    ],
)
def test_a_refusal_that_begins_with_the_gateways_key_is_not_the_clients(message: str, kind: type[ProxyError]) -> None:
    assert type(error_for_status(400, {}, ErrorReport(message))) is kind


def test_a_refusal_keeps_the_providers_words() -> None:
    message = "Your request was rejected by the safety system: “violence”, n°5 — 100 % (see policy)."
    assert error_for_status(400, {}, ErrorReport(message)).message == message


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("moderation_blocked", "moderation_blocked"),
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("content.policy-2", "content.policy-2"),
        ("x" * 64, "x" * 64),
        (None, "provider_refusal"),
        ("", "provider_refusal"),
        ("x" * 65, "provider_refusal"),
        ("two words", "provider_refusal"),
        ("line\nbreak", "provider_refusal"),
        ("code\n", "provider_refusal"),
        ("<b>", "provider_refusal"),
        ("h\u00e9", "provider_refusal"),
        ("https://x.example", "provider_refusal"),
        ("sk-abcdefghijklmnopqrstuvwx01234567", "provider_refusal"),
        ("0123456789abcdef0123456789abcdef", "provider_refusal"),
        ("unsupported_image_generation_parameter_2", "unsupported_image_generation_parameter_2"),
    ],
)
def test_a_refusals_code_is_one_plain_word_or_our_own(code: str | None, shown: str) -> None:
    assert error_for_status(400, {}, ErrorReport("no", code)).wire_code == shown


@pytest.mark.parametrize(
    "param",
    [
        *sorted(KNOWN_PARAMETERS), "model", "prompt", "image", "image[0]", "image[]", "mask", "messages",
        "messages[0].content", "messages[12].content[0].image_url.url", "messages.0.content", "input_fidelity",
        "generationConfig.imageConfig", "image_config.image_size", "N",
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_at_fault(param: str) -> None:
    assert error_for_status(400, {}, ErrorReport("no", None, param)).param == param


@pytest.mark.parametrize(
    "param",
    [
        None, "", "x" * 1_000, "a.b.c.d.e.f.g.h.i.j", "two words", "<b>", "image[x]", "image[0", "1st", "n;drop",
        "a..b", "sk-abcdefghijklmnopqrstuvwx01234567", "0123456789abcdef0123456789abcdef",
        "https://x.example", "h\u00e9", "prompt\n",
    ],
)  # fmt: skip
def test_what_looks_like_no_field_is_left_out(param: str | None) -> None:
    assert error_for_status(400, {}, ErrorReport("no", None, param)).param is None


# --- Cleaning ---------------------------------------------------------------------------------------------------------

SECRETS = {
    "OpenAI": "sk-abcdefghijklmnopqrstuvwx01234567",
    "OpenAI's projects": "sk-proj-AbC_dEf-0123456789abcdefghij",
    "masked by OpenAI": "sk-proj-********************1234",
    "Stripe-like": "sk_live_0123456789abcdef",
    "restricted": "rk_test_0123456789abcdef",
    "public": "pk-0123456789abcdef",
    "an organisation": "org-AbCdEf0123456789",
    "a project": "proj_AbCdEf0123456789",
    "Google": "AIzaSyA0123456789-abcdefghijklmnopqrstu",
    "a bearer token": "Bearer 0123456789abcdef",
    "a bearer token in lower case": "bearer 0123456789abcdef",
    "Lightmeter": make_key_text("acme_0123456789", lambda characters: characters[9]),
    "hexadecimal": "0123456789abcdef0123456789abcdef",
    "of no known kind": "r8Zq7Kp2Xw9Lm4Nv6Tb1",
    "a link": "http://10.0.0.5:8080/internal/queue",
    "a signed link": "https://user:password@images.example/1.png?sig=0123456789abcdef",
    "a link in capitals": "HTTPS://images.example/1.png?sig=0123456789abcdef",
}
AROUND = [
    ("", ""), (" ", " "), ("(", "\t)"), ("'", "\n'"), (":", ""), ("=", " "), (",", " ,"), ("\n", "\n"),
    ("\x00", "\x00"), ("key=", ""), ("Incorrect API key provided: ", " is not valid."),
]  # fmt: skip


def is_removed(secret: str, before: str = "", after: str = "") -> bool:
    cleaned, secret_part = clean(before + secret + after), secret.rpartition(" ")[2]
    return "[removed]" in cleaned and secret_part[:8] not in cleaned and secret_part[-8:] not in cleaned


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_secrets_and_links_are_removed_wherever_they_stand(secret: str) -> None:
    for before, after in AROUND:
        assert is_removed(secret, before, after)


@pytest.mark.parametrize("before", ["无效的令牌", "\u00e9", "token_"], ids=ascii)
def test_a_secret_is_removed_also_where_no_blank_stands_before_it(before: str) -> None:
    for secret in (SECRETS["OpenAI"], SECRETS["Google"], SECRETS["Lightmeter"], SECRETS["a bearer token"]):
        assert is_removed(secret, before)


@pytest.mark.parametrize("secret", [SECRETS["OpenAI"], SECRETS["a bearer token"], SECRETS["a signed link"]])
def test_a_secret_is_removed_before_the_message_is_cut(secret: str) -> None:
    secret_part = secret.rpartition(" ")[2]
    for at in range(len(secret)):
        assert secret_part[:8] not in clean("x" * (MESSAGE_LENGTH_LIMIT - at - 1) + " " + secret)


@pytest.mark.parametrize(
    "message",
    [
        "Your prompt was rejected.",
        "The size should be 1024x1024, not 4K.",
        "'n' must be between 1 and 10.",
        "Ask skilled people; sketch-like and key-frame pictures are fine.",
        "organisation, project, key",
        "The model gpt-image-1-2025-04-23 has no internationalisationparameters.",
        "12345678901234567890123 is too large a number.",
    ],
)
def test_what_is_no_secret_stays(message: str) -> None:
    assert clean(message) == message


messages = st.text(max_size=80) | st.text(
    st.sampled_from("abz ;:/\n\x00\x1b\x7f\u009b\u2028") | st.characters(categories=["Cc", "Zl", "Zp"]), max_size=80
)


def read_whole(answer: Answer, body: bytes) -> None:
    answer.feed(body)
    answer.finish()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize(
    "spelling", ["AbC\\/dEf+12==", "AbC\\u002fdEf+12==", "AbC%2FdEf%2B12%3D%3D", "QWJDL2RFZisxMj09"]
)
def test_the_providers_own_key_is_removed_however_it_spells_it(dialect: Dialect, spelling: str) -> None:
    KNOWN_SECRETS.add(["AbC/dEf+12=="])
    body = b'{"error":{"message":"bad key %b","code":"invalid","status":"INVALID"}}' % spelling.encode()
    for error in (dialect.read_refusal(400, {}, body), dialect.read_refusal(422, {}, body)):
        assert error.message == "bad key [removed]"
    for is_stream in (False, True):
        written = b"data: " + body + b"\n\n" if is_stream else body
        answer = read_images(dialect.reading, ImagesHead(0), comes_as_events=is_stream, stream=False)
        with pytest.raises((ProxyError, MalformedResponse)) as caught:
            read_whole(answer, written)
        assert "AbC" not in str(caught.value)
        assert "QWJD" not in str(caught.value)


def test_an_error_in_an_answer_that_is_no_json_is_the_providers_failure() -> None:
    answer = read_images(DIALECTS["openrouter"].reading, ImagesHead(0), comes_as_events=False, stream=False)
    with pytest.raises(UpstreamError):
        read_whole(answer, b'{"error":{"code":500,"message":"\\q"}}')


def test_a_reason_of_any_length_becomes_no_code() -> None:
    assert NothingGenerated("x", reason="IMAGE_SAFETY").wire_code == "image_safety"
    assert NothingGenerated("x", reason="A" * 65).wire_code == "provider_refusal"
    assert NothingGenerated("x", reason="no word").wire_code == "provider_refusal"


def test_half_of_a_secret_is_not_left_where_a_message_is_too_long_to_be_read() -> None:
    KNOWN_SECRETS.add(["an-odd/key.of:the~provider"])
    for at in range(30):
        message = (
            "sk-" + "x" * (READ_LENGTH_LIMIT - 60 - at) + " is bad, and so is an-odd/key.of:the~provider " + "y" * 90
        )
        assert "an-odd" not in clean(message)


@given(messages)
@example("\x1b[31mred\x1b[0m")
@example("\u009b31mred")
@example("a\r\nb\x85c")
@examples(200, deadline=2_000)
def test_no_control_character_is_passed_on(message: str) -> None:
    assert "Cc" not in {unicodedata.category(character) for character in clean(message)}


@given(messages, st.integers(1, 200))
@settings(deadline=2_000)
def test_a_message_is_of_bounded_length_without_blanks_around_it(message: str, times: int) -> None:
    cleaned = clean(message * times)
    assert len(cleaned) <= MESSAGE_LENGTH_LIMIT
    assert cleaned == cleaned.lstrip()
    assert cleaned == cleaned.rstrip() or len(cleaned) == MESSAGE_LENGTH_LIMIT


def test_a_message_is_cut_at_its_limit_and_not_before() -> None:
    assert clean("x" * MESSAGE_LENGTH_LIMIT) == "x" * MESSAGE_LENGTH_LIMIT
    assert clean("x" * (MESSAGE_LENGTH_LIMIT + 1)) == "x" * MESSAGE_LENGTH_LIMIT


# --- Errors within a 2xx ----------------------------------------------------------------------------------------------


def in_answer(dialect: str, error: dict[str, object]) -> ProxyError:
    answer = read_images(DIALECTS[dialect].reading, ImagesHead(0), comes_as_events=False, stream=False)
    with pytest.raises(ProxyError) as caught:
        read_whole(answer, orjson.dumps({"error": error}))
    return caught.value


@pytest.mark.parametrize("dialect", ["openrouter", "gemini"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"code": 429}, 429, "upstream_rate_limit"),
        ({"code": "429"}, 429, "upstream_rate_limit"),
        ({"code": "rate_limit_exceeded"}, 429, "upstream_rate_limit"),
        ({"status": "RESOURCE_EXHAUSTED"}, 429, "upstream_rate_limit"),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, 429, "upstream_rate_limit"),
        ({"code": 403, "message": "flagged"}, 400, "provider_refusal"),
        ({"code": 403, "metadata": {"reasons": ["violence"]}}, 400, "provider_refusal"),
        ({"code": 403, "status": "PERMISSION_DENIED"}, 502, "upstream_error"),
        ({"status": "PERMISSION_DENIED"}, 502, "upstream_error"),
        ({"code": 401}, 502, "upstream_error"),
        ({"code": "invalid_api_key"}, 502, "upstream_error"),
        ({"code": 404}, 502, "upstream_error"),
        ({"code": 408}, 504, "upstream_timeout"),
        ({"code": 504}, 504, "upstream_timeout"),
        ({"status": "DEADLINE_EXCEEDED"}, 504, "upstream_timeout"),
        ({"status": 400}, 400, "provider_refusal"),
        ({"code": 400, "status": "INVALID_ARGUMENT"}, 400, "INVALID_ARGUMENT"),
        ({"code": 422}, 422, "provider_refusal"),
        ({"status": "INVALID_ARGUMENT"}, 400, "INVALID_ARGUMENT"),
        ({"code": "content_policy_violation"}, 400, "content_policy_violation"),
        ({"code": "invalid_size", "type": "invalid_request_error"}, 400, "invalid_size"),
        ({"type": "invalid_request_error"}, 400, "provider_refusal"),
        ({"type": "server_error"}, 502, "upstream_error"),
        ({"status": "UNAVAILABLE"}, 502, "upstream_error"),
        ({"code": 524}, 502, "upstream_error"),
        ({"code": 7}, 502, "upstream_error"),
        ({}, 502, "upstream_error"),
    ],
)
def test_an_error_within_a_2xx_means_what_its_status_would(
    dialect: str, error: dict[str, object], status: int, code: str
) -> None:
    found = in_answer(dialect, {"message": "no", **error})
    assert (found.wire_status, found.wire_code) == (status, code)


def test_the_wait_that_an_error_within_a_2xx_asks_for_is_passed_on() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}]
    for dialect in ("openrouter", "gemini"):
        assert in_answer(dialect, {"code": 429, "details": details}).headers() == {"Retry-After": "35"}
        assert in_answer(dialect, {"code": 503, "details": details}).headers() == {"Retry-After": "35"}


def test_a_key_that_a_400_is_about_is_the_operators() -> None:
    for dialect in DIALECTS.values():
        for word in ("invalid_api_key", "API_KEY_INVALID"):
            body = orjson.dumps({"error": {"message": "bad key", "code": word}})
            assert dialect.read_refusal(400, {}, body).wire_status == 502


@pytest.mark.parametrize(
    ("status", "error", "word"),
    [
        (400, {"code": "moderation_blocked", "type": "user_error"}, "moderation_blocked"),
        (401, {"code": "invalid_api_key"}, "invalid_api_key"),
        (429, {"code": None, "type": "tokens"}, "tokens"),
        (500, {"code": 1113}, "1113"),
        (500, {"code": "sk-abcdefghijklmnopqrstuvwx01234567"}, ""),
        (500, {"code": 500}, ""),
        (502, {"code": 503}, "503"),
    ],
)
def test_the_providers_own_word_is_kept_for_the_log(status: int, error: dict[str, object], word: str) -> None:
    for dialect in DIALECTS.values():
        assert dialect.read_refusal(status, {}, orjson.dumps({"error": error})).provider_error == word


# --- The gateway's account --------------------------------------------------------------------------------------------

WITHOUT_CREDIT: list[tuple[int, dict[str, object]]] = [
    (400, {"code": "billing_hard_limit_reached"}),
    (400, {"code": "billing_not_active"}),
    (400, {"code": "account_deactivated"}),
    (401, {"code": "account_deactivated"}),
    (400, {"type": "insufficient_quota"}),
    (429, {"code": "insufficient_quota"}),
    (429, {"type": "insufficient_quota", "code": None}),
    (429, {"type": "exceeded_current_quota_error"}),
    (402, {}),
    (402, {"code": "payment_required"}),
    (400, {"code": "insufficient_credits"}),
    (400, {"code": "not_enough_credits"}),
    (400, {"code": "insufficientBalance"}),
    (400, {"code": "Arrearage"}),
    (403, {"code": "AccountOverdueError"}),
    (403, {"code": "insufficient_user_quota"}),
    (400, {"code": 400, "status": "FAILED_PRECONDITION"}),
    (403, {"code": 403, "status": "FAILED_PRECONDITION"}),
    (403, {"status": "PERMISSION_DENIED",
           "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "BILLING_DISABLED"}]}),
    (403, {"message": "User is locked. Reason: Exhausted balance. Top up your balance."}),
    (429, {"message": "Your team has either used all available credits or reached its monthly spending limit."}),
]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("status", "error"), WITHOUT_CREDIT, ids=ascii)
def test_an_account_without_credit_is_the_operators_affair(dialect: str, status: int, error: dict[str, object]) -> None:
    said = {"message": "Billing hard limit has been reached.", **error}
    refused = DIALECTS[dialect].read_refusal(status, {"Retry-After": "1"}, orjson.dumps({"error": said}))
    assert type(refused) is ProviderOutOfCredit
    assert refused.wire_status == 502
    assert refused.headers() == {"x-should-retry": "false"}
    assert "illing" not in str(refused.body())


@pytest.mark.parametrize("dialect", ["openrouter", "gemini"])
@pytest.mark.parametrize(("status", "error"), WITHOUT_CREDIT, ids=ascii)
def test_so_it_is_within_a_2xx(dialect: str, status: int, error: dict[str, object]) -> None:
    assert type(in_answer(dialect, {"message": "no", **error, "status_code": status})) is ProviderOutOfCredit


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        # A client may have a provider repeat anything in a message.
        (400, {"message": "You cannot draw 'insufficient credits, billing hard limit'."}, ProviderRefusal),
        (400, {"message": "x", "param": "billing"}, ProviderRefusal),
        (429, {"code": "rate_limit_exceeded", "message": "Limit 5, used 5."}, UpstreamRateLimit),
        (429, {"status": "RESOURCE_EXHAUSTED",
               "message": "You exceeded your current quota, please check your plan and billing details."},
         UpstreamRateLimit),
        (403, {"code": "model_not_allowed"}, UpstreamMisconfigured),
        (500, {"message": "billing service failed"}, UpstreamError),
        (429, {"code": 429, "metadata": {"raw": '{"error":{"code":"insufficient_quota"}}'}}, UpstreamRateLimit),
    ],
)  # fmt: skip
def test_what_is_no_matter_of_credit_stays_what_it_is(
    status: int, error: dict[str, object], kind: type[ProxyError]
) -> None:
    for dialect in DIALECTS.values():
        assert type(dialect.read_refusal(status, {}, orjson.dumps({"error": error}))) is kind


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("contentFilter", 400),
        ("ContentFiltered", 400),
        ("DataInspectionFailed", 400),
        ("OutputImageSensitiveContentDetected", 400),
        ("InvalidParameter", 400),
        ("Throttling.RateQuota", 429),
        ("TooManyRequests", 429),
        ("RateLimitExceeded", 429),
        ("DeploymentNotFound", 502),
        ("InternalServerError", 502),
    ],
)
def test_a_word_means_the_same_however_it_is_spelt(word: str, status: int) -> None:
    error = error_in_answer(ErrorReport(message="no", code=word, words=(word,)))
    assert error.wire_status == status
    assert (type(error) is UpstreamMisconfigured) == (word == "DeploymentNotFound")


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for images per minute: Limit 5, Used 5. Please try again in 12s. Visit us.", 12),
        ("Rate limit reached. Please try again in 450ms.", 1),
        ("Rate limit reached. Please try again in 1m30.5s.", 91),
        ("Requests have exceeded the call rate limit. Please retry after 26 seconds.", 26),
        ("You exceeded your rate. Please retry in 34.074824224s.", 35),
        ("Please try again in a minute.", 1),
        ("Please retry after 26 seconds of thought, or in 5 minutes", 26),
    ],
)
def test_a_wait_stands_in_the_message_where_no_header_has_it(message: str, seconds: int) -> None:
    report = ErrorReport(message=message, code="rate_limit_exceeded", words=("rate_limit_exceeded",))
    assert error_for_status(429, {}, report).retry_after_s == seconds
    assert error_for_status(429, {"Retry-After": "3"}, report).retry_after_s == 3
