"""What a provider's failure means to the client, and what of the provider's words the client may read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import time

from proxy.domain.errors import (
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamUncertain,
)
from proxy.domain.headers import retry_after_seconds
from proxy.domain.requests.image import KNOWN_PARAMETERS
from proxy.telemetry.secrets import KNOWN_SECRETS

MESSAGE_LENGTH_LIMIT = 1_000
READ_LENGTH_LIMIT = 4_096
"""Characters that are looked at of a provider's message, which may be what a client has sent."""

CONTENT_REFUSALS = frozenset({400, 409, 413, 415, 422, 451})
"""Statuses by which a provider says that it will not make this image; its other 4xx are about the gateway."""

UNCERTAIN = frozenset(range(520, 525))
"""Statuses by which a proxy before the provider says that it lost the provider's answer."""

_REFUSING_WORDS = ("moderation", "policy", "safety", "content_filter", "prohibited")

_code = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_secret = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|org|proj|key|lm)[-_][\w*.-]{6,}|AIza[\w-]{10,}|Bearer\s+\S+)|https?://\S+"
    r"|[a-z0-9]{20,}",
    re.IGNORECASE | re.ASCII,
)
_letters_alone = re.compile(r"[a-z]+|[0-9]+", re.IGNORECASE | re.ASCII)
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What a provider says of an error, uncleaned."""

    message: str = ""
    code: str | None = None
    param: str | None = None


def error_for_status(status: int, headers: Mapping[str, str], report: ErrorReport) -> ProxyError:
    """The error for a provider's answer of ``status``, which is not a 2xx."""
    if status in CONTENT_REFUSALS:
        return ProviderRefusal(
            clean(report.message) or "The provider refused the request.",
            provider_status=status,
            provider_code=_plain_code(report.code),
            param=report.param if report.param in KNOWN_PARAMETERS | {"model", "prompt"} else None,
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return UpstreamRateLimit(
            "The provider is rate-limiting this gateway; nothing was charged. Try again later.",
            retry_after_s=retry_after_seconds(headers, time()) or 1,
        )
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT):
        return UpstreamTimeout("The provider took too long; nothing was charged.")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return UpstreamMisconfigured("The provider did not accept this gateway's request; its operator has been told.")
    if status in UNCERTAIN:
        return UpstreamUncertain(f"The provider failed with status {status}; nothing was charged.")
    return UpstreamError(f"The provider failed with status {status}; nothing was charged.")


def error_in_answer(report: ErrorReport) -> ProxyError:
    """The error that a provider reports within a 2xx, where no status says whose it is."""
    code = _plain_code(report.code) or ""
    if any(word in code.lower() for word in _REFUSING_WORDS):
        return ProviderRefusal(
            clean(report.message) or "The provider refused the request.",
            provider_status=HTTPStatus.BAD_REQUEST,
            provider_code=code,
            param=None,
        )
    message = clean(report.message)
    return UpstreamError(f"The provider failed: {message}" if message else "The provider failed in its answer.")


def _plain_code(code: str | None) -> str | None:
    return code if code and _code.fullmatch(code) and clean(code) == code else None


def clean(message: str) -> str:
    """A provider's message without control characters, links and what looks like a secret, of bounded length."""
    if len(message) > READ_LENGTH_LIMIT:
        # Not through the middle of a word: half of a secret would not be known as one.
        message = message[:READ_LENGTH_LIMIT]
        message = message.rpartition(" ")[0] or message
    plain = _control.sub(" ", KNOWN_SECRETS.remove(message))
    return _secret.sub(_remove, plain).strip()[:MESSAGE_LENGTH_LIMIT]


def _remove(found: re.Match[str]) -> str:
    """Letters and digits mixed in one long word are a key of a kind that has no mark."""
    return found[0] if _letters_alone.fullmatch(found[0]) else "[removed]"
