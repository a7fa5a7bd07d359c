"""What ``admit.lua`` replies, read: how the rate limits stand, and why a request was refused, for the client."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from proxy.domain.billing.pricing import Quote
from proxy.domain.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdempotencyResponseGone,
    InsufficientQuota,
    ModelNotAllowed,
    RateLimitExceeded,
    StoreUnavailable,
)
from proxy.domain.limits import RATES, RateUsage, rate_limit_headers, whole_seconds
from proxy.domain.people import NOBODY, Person
from proxy.domain.requests.idempotency import AlreadyAnswered
from proxy.metering.redis_store import facts as records

Rates = tuple[tuple[str, RateUsage], ...]

_IDEMPOTENCY_REFUSALS: dict[bytes, Callable[[], Exception]] = {
    b"in_progress": IdempotencyInProgress,
    b"answer_gone": IdempotencyResponseGone,
    b"mismatch": IdempotencyMismatch,
}
_rates = struct.Struct(f">{3 * len(RATES)}q")
_WHOSE = {b"key": "the key", b"team": "its team", b"key_user": "of the key", b"team_user": "of its team"}
_PER_USER = {b"key_user": "limits_per_user.", b"team_user": "limits_per_user."}
_WINDOWS = {"quota_units": "", "quota_units_per_day": " for the day", "quota_units_per_month": " for the month"}


def read_rates(reply: bytes) -> Rates:
    """The tightest rate limit of each kind."""
    if not reply:
        return ()
    figures = _rates.unpack(reply)
    return tuple(
        (kind, RateUsage(*figures[at : at + 3])) for kind, at in zip(RATES, (0, 3), strict=True) if figures[at]
    )


def read_refusal(reply: list[Any], model: str, quote: Quote, person: Person = NOBODY) -> Exception:
    """The error for a reply that is no admission."""
    verdict = reply[0]
    if verdict == b"insufficient_quota":
        return _insufficient_quota(reply[1:], quote, person)
    if verdict == b"rate_limited":
        return _rate_limited(reply[1:], quote, person)
    if verdict == b"model_not_allowed":
        whose = "This API key" if reply[1] == b"key" else "The team of this API key"
        return ModelNotAllowed(f"{whose} may not use the model '{model}'.", param="model")
    if verdict == b"answered":
        return AlreadyAnswered(records.read_kept_answer(reply[1]))
    kind = _IDEMPOTENCY_REFUSALS.get(verdict)
    return kind() if kind else records.invalid_key(verdict) or StoreUnavailable()


def _whose(scope: bytes, person: Person) -> str:
    """Who has the limit: the key, its team, or the end user as stored."""
    whose = _WHOSE[scope]
    if scope in (b"key", b"team"):
        return whose
    return f"the user '{person.user}' {whose}" if person.user else f"the user '' (who is whoever names none) {whose}"


def _insufficient_quota(reply: list[Any], quote: Quote, person: Person) -> InsufficientQuota:
    scope, name, limit, posted, reserved, day = reply[:6]
    window = _WINDOWS[name.decode()]
    if window:
        text = records.utc_day(day * records.DAY_MS)
        window += f" {text}" if name.endswith(b"day") else f" {text[: records.MONTH_LENGTH]}"
    remaining = max(0, limit - posted - reserved)
    limit_name = _PER_USER.get(scope, "") + name.decode()
    return InsufficientQuota(
        f"This request needs {quote.units:,} quota units and {_whose(scope, person)} has {remaining:,} left{window} "
        f"({limit_name}: limit {limit:,}, used {posted:,}, reserved by requests in progress {reserved:,})."
    )


def _rate_limited(reply: list[Any], quote: Quote, person: Person) -> RateLimitExceeded:
    scope, kind, limit, wait_us, rates = reply[:5]
    whose, headers = _whose(scope, person), rate_limit_headers(read_rates(rates))
    per_user = _PER_USER.get(scope, "")
    if kind == b"concurrency":
        what = f"{whose} may have {limit:,} requests in progress at a time ({per_user}concurrent_requests)"
    else:
        what = f"{whose} may have {limit:,} {kind.decode()} a minute ({per_user}{kind.decode()}_per_minute)"
    if wait_us < 0:
        message = f"Rate limit for {kind.decode()}: {what}, and never {quote.images:,} at once. Ask for fewer."
        return RateLimitExceeded(message, retry_after_s=None, rate_limit_headers=headers)
    seconds = whole_seconds(wait_us)
    message = f"Rate limit reached for {kind.decode()}: {what}. Try again in {seconds} s."
    return RateLimitExceeded(message, retry_after_s=seconds, rate_limit_headers=headers)
