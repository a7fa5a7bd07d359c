from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import orjson
import pytest

from proxy.domain import errors
from proxy.domain.errors import (
    Blame,
    BodiesUnavailable,
    ClientGone,
    Conflict,
    ExpectationFailed,
    HeadersTooLarge,
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdempotencyResponseGone,
    InsufficientQuota,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    JournalUnavailable,
    MethodNotAllowed,
    ModelNotAllowed,
    ModelNotFound,
    NoConnectionLeft,
    NoCredentials,
    NotFound,
    NothingGenerated,
    PayloadTooLarge,
    ProviderOutOfCredit,
    ProviderRefusal,
    ProxyError,
    RateLimitExceeded,
    RequestTimeout,
    RoleNotAllowed,
    ShuttingDown,
    StillCounting,
    StoreBusy,
    StoreUnavailable,
    TaskUnknown,
    TooManyConnections,
    UnknownParameter,
    UnsupportedMediaType,
    UploadsUnavailable,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUncertain,
    UpstreamUnreachable,
)

WIRE: list[tuple[ProxyError, int, str, Blame]] = [
    (ProxyError("x"), 500, "internal_error", Blame.GATEWAY),
    (InternalError("x"), 500, "internal_error", Blame.GATEWAY),
    (InvalidRequest("x"), 400, "invalid_request", Blame.CLIENT),
    (UnknownParameter("x"), 400, "unknown_parameter", Blame.CLIENT),
    (InvalidApiKey("x"), 401, "invalid_api_key", Blame.CLIENT),
    (ModelNotAllowed("x"), 403, "model_not_allowed", Blame.CLIENT),
    (RoleNotAllowed("x"), 403, "role_not_allowed", Blame.CLIENT),
    (ModelNotFound("x"), 404, "model_not_found", Blame.CLIENT),
    (NotFound("x"), 404, "not_found", Blame.CLIENT),
    (MethodNotAllowed("x", allow="GET"), 405, "method_not_allowed", Blame.CLIENT),
    (RequestTimeout("x"), 408, "request_timeout", Blame.CLIENT),
    (Conflict("x"), 409, "conflict", Blame.CLIENT),
    (PayloadTooLarge("x"), 413, "payload_too_large", Blame.CLIENT),
    (UnsupportedMediaType("x"), 415, "unsupported_media_type", Blame.CLIENT),
    (ExpectationFailed(), 417, "expectation_failed", Blame.CLIENT),
    (HeadersTooLarge(), 431, "headers_too_large", Blame.CLIENT),
    (InsufficientQuota("x"), 429, "insufficient_quota", Blame.CLIENT),
    (RateLimitExceeded("x", retry_after_s=1, rate_limit_headers={}), 429, "rate_limit_exceeded", Blame.CLIENT),
    (
        ProviderRefusal("x", provider_status=422, provider_code="moderation_blocked", param=None),
        422,
        "moderation_blocked",
        Blame.CLIENT,
    ),
    (NothingGenerated("x", reason="IMAGE_SAFETY"), 400, "image_safety", Blame.CLIENT),
    (UpstreamRateLimit("x"), 429, "upstream_rate_limit", Blame.PROVIDER),
    (UpstreamError("x"), 502, "upstream_error", Blame.PROVIDER),
    (UpstreamUncertain("x"), 502, "upstream_error", Blame.PROVIDER),
    (TaskUnknown(), 502, "upstream_error", Blame.PROVIDER),
    (UpstreamTruncated("x"), 502, "upstream_error", Blame.PROVIDER),
    (UpstreamUnreachable("x"), 502, "upstream_error", Blame.PROVIDER),
    (NoConnectionLeft("x"), 503, "upstream_busy", Blame.OPERATOR),
    (UpstreamMisconfigured("x"), 502, "upstream_error", Blame.OPERATOR),
    (NoCredentials(), 502, "upstream_error", Blame.OPERATOR),
    (ProviderOutOfCredit(), 502, "upstream_error", Blame.OPERATOR),
    (UpstreamTimeout("x"), 504, "upstream_timeout", Blame.PROVIDER),
    (IdempotencyInProgress(), 409, "idempotency_in_progress", Blame.CLIENT),
    (IdempotencyResponseGone(), 409, "idempotency_response_gone", Blame.CLIENT),
    (IdempotencyMismatch(), 422, "idempotency_mismatch", Blame.CLIENT),
    (ClientGone(), 499, "client_gone", Blame.CLIENT),
    (StoreUnavailable(), 503, "store_unavailable", Blame.OPERATOR),
    (StillCounting("acme"), 503, "store_unavailable", Blame.OPERATOR),
    (StoreBusy(), 503, "store_unavailable", Blame.OPERATOR),
    (JournalUnavailable(), 503, "store_unavailable", Blame.OPERATOR),
    (UploadsUnavailable(), 503, "store_unavailable", Blame.OPERATOR),
    (BodiesUnavailable(), 503, "store_unavailable", Blame.OPERATOR),
    (TooManyConnections(), 503, "too_many_connections", Blame.OPERATOR),
    (ShuttingDown(), 503, "shutting_down", Blame.OPERATOR),
]
EVERY_ERROR = [error for error, *_ in WIRE]


def name_of(value: object) -> str:
    return type(value).__name__


def family(kind: type[ProxyError] = ProxyError) -> Iterator[type[ProxyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


def test_the_family_is_closed_and_the_table_has_all_of_it() -> None:
    assert {kind.__name__ for kind in family()} | {"Blame", "ProxyError"} == set(errors.__all__)
    assert {type(error) for error in EVERY_ERROR} == set(family())


@pytest.mark.parametrize(("error", "status", "code", "blame"), WIRE, ids=name_of)
def test_an_error_has_its_status_its_code_and_its_blame(
    error: ProxyError, status: int, code: str, blame: Blame
) -> None:
    assert (error.wire_status, error.wire_code, error.blame) == (status, code, blame)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=name_of)
def test_every_error_has_the_four_members_that_openais_have(error: ProxyError) -> None:
    body = orjson.loads(orjson.dumps(error.body()))
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"] == error.message == str(error) != ""
    assert body["error"]["code"] == error.wire_code
    assert body["error"]["param"] is None
    assert type(body["error"]["type"]) is str


@pytest.mark.parametrize("error", EVERY_ERROR, ids=name_of)
def test_the_blame_fits_the_status(error: ProxyError) -> None:
    assert (error.blame is Blame.CLIENT) == (error.wire_status < 500 and not isinstance(error, UpstreamRateLimit))


def test_the_parameter_is_named_on_the_wire() -> None:
    for kind in (InvalidRequest, UnknownParameter, ModelNotFound):
        assert kind("x", param="n").body()["error"]["param"] == "n"


def test_a_code_has_one_status_and_one_meaning() -> None:
    by_code: dict[str, list[type[ProxyError]]] = defaultdict(list)
    for kind in family():
        by_code[kind.code].append(kind)
    for kinds in by_code.values():
        # Several classes may say the same word to the client only where one is a kind of the other.
        assert all(issubclass(kind, kinds[0]) for kind in kinds)
        assert len({(kind.status, kind.type) for kind in kinds}) == 1


# --- Headers ----------------------------------------------------------------------------------------------------------

RETRY_SOON = {"Retry-After": "1"}
DO_NOT_RETRY = {"x-should-retry": "false"}
OWN_HEADERS: dict[type[ProxyError], dict[str, str]] = {
    InvalidApiKey: {"WWW-Authenticate": "Bearer"},
    MethodNotAllowed: {"Allow": "GET"},
    InsufficientQuota: DO_NOT_RETRY,
    RateLimitExceeded: {"Retry-After": "1"},
    IdempotencyInProgress: {"Retry-After": "2"},
    IdempotencyResponseGone: DO_NOT_RETRY,
    UpstreamTruncated: DO_NOT_RETRY,
    UpstreamUncertain: DO_NOT_RETRY,
    TaskUnknown: DO_NOT_RETRY,
    UpstreamTimeout: DO_NOT_RETRY,
    UpstreamMisconfigured: DO_NOT_RETRY,
    NoCredentials: DO_NOT_RETRY,
    ProviderOutOfCredit: DO_NOT_RETRY,
    ProxyError: DO_NOT_RETRY,
    InternalError: DO_NOT_RETRY,
    Conflict: DO_NOT_RETRY,
    StoreUnavailable: RETRY_SOON,
    StillCounting: RETRY_SOON,
    StoreBusy: RETRY_SOON,
    NoConnectionLeft: RETRY_SOON,
    JournalUnavailable: {"Retry-After": "5"},
    UploadsUnavailable: {"Retry-After": "10"},
    BodiesUnavailable: {"Retry-After": "5"},
    TooManyConnections: RETRY_SOON,
    ShuttingDown: RETRY_SOON,
}


@pytest.mark.parametrize("error", EVERY_ERROR, ids=name_of)
def test_an_error_has_the_headers_of_its_kind_and_no_others(error: ProxyError) -> None:
    assert error.headers() == OWN_HEADERS.get(type(error), {})


@pytest.mark.parametrize("seconds", [0, 1, 60])
@pytest.mark.parametrize(
    "kind", [UpstreamRateLimit, InsufficientQuota, InvalidApiKey, UpstreamTruncated, RequestTimeout]
)
def test_the_seconds_to_wait_stand_beside_the_kinds_own_headers(kind: type[ProxyError], seconds: int) -> None:
    error = kind("x", retry_after_s=seconds)
    assert error.headers() == {**OWN_HEADERS.get(kind, {}), "Retry-After": str(seconds)}


@pytest.mark.parametrize("error", EVERY_ERROR, ids=name_of)
def test_sdks_are_kept_from_retrying_what_cannot_succeed(error: ProxyError) -> None:
    # https://github.com/openai/openai-python: _should_retry
    retried = error.wire_status in (408, 409, 429) or error.wire_status >= 500
    assert error.headers().get("x-should-retry") == ("false" if retried and not error.retryable else None)


def test_a_providers_own_conflict_is_not_retried() -> None:
    error = ProviderRefusal("x", provider_status=409, provider_code=None, param=None)
    assert error.headers() == DO_NOT_RETRY


def test_what_may_succeed_unchanged_is_retryable() -> None:
    assert {type(error) for error in EVERY_ERROR if error.retryable} == {
        RequestTimeout, UpstreamRateLimit, UpstreamError, UpstreamUnreachable, StoreUnavailable,
        NoConnectionLeft, StillCounting,
        StoreBusy, JournalUnavailable, UploadsUnavailable, ShuttingDown, IdempotencyInProgress, RateLimitExceeded,
        TooManyConnections, BodiesUnavailable,
    }  # fmt: skip


# --- The provider's own words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "shown"), [("content_policy", "content_policy"), (None, "provider_refusal")])
def test_a_refusal_passes_on_the_providers_status_code_and_parameter(code: str | None, shown: str) -> None:
    error = ProviderRefusal("Not this one.", provider_status=451, provider_code=code, param="prompt")
    assert error.wire_status == 451
    assert error.body() == {
        "error": {"message": "Not this one.", "type": "invalid_request_error", "param": "prompt", "code": shown}
    }


@pytest.mark.parametrize("error", [StoreUnavailable(), JournalUnavailable(), ShuttingDown()], ids=name_of)
def test_what_ends_before_the_provider_is_called_says_that_nothing_was_charged(error: ProxyError) -> None:
    assert "nothing was charged" in error.message
