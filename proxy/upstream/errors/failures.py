"""What a provider's failure means to the client, and what of the provider's words the client may read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from time import time

from proxy.domain.errors import (
    ProviderOutOfCredit,
    ProviderRefusal,
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamUncertain,
)
from proxy.domain.headers import duration_s, retry_after_seconds, whole_wait_s
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.upstream.errors.reports import ErrorReport, read_report

MESSAGE_LENGTH_LIMIT = 1_000
READ_LENGTH_LIMIT = 4_096
"""Characters that are looked at of a provider's message, which may be what a client has sent."""
PARAM_LENGTH_LIMIT = 128

CONTENT_REFUSALS = frozenset({400, 409, 413, 415, 422, 451})
"""Statuses by which a provider says that it will not make this image; its other 4xx are about the gateway."""

UNCERTAIN = frozenset(range(520, 525))
"""Statuses by which a proxy before the provider says that it lost the provider's answer."""

_REFUSING_WORDS = (
    "moderation", "policy", "safety", "contentfilter", "prohibited", "sensitive", "nsfw", "inspection", "flagged",
)  # fmt: skip
_KEY_WORDS = frozenset(
    {"invalid_api_key", "api_key_invalid", "api_key_expired", "incorrect_api_key", "unauthenticated"}
)
_key_message = re.compile(r"(?:incorrect|invalid) api key\b", re.IGNORECASE)
"""How a message begins that is about the gateway's key, as xAI's is, whose 400 has no word for it.

Only how it begins: what a client has sent is repeated further on, if at all.
"""

_STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 401,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "CANCELLED": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Google's words (https://cloud.google.com/apis/design/errors#handling_errors); its 403 is about the key."""

_MEANINGS: Sequence[tuple[str, int]] = (
    ("ratelimit", 429), ("toomanyrequests", 429), ("throttl", 429), ("overloaded", 503), ("unavailable", 503),
    ("timeout", 504), ("apikey", 401), ("authentication", 401), ("permission", 401), ("notfound", 404),
    ("servererror", 500), ("internal", 500), ("invalid", 400), ("unsupported", 400), ("usererror", 400),
)  # fmt: skip
"""What a part of an error's word says, without case and signs, where nothing else does; the first that is found counts.
"""

_ACCOUNT = re.compile(
    r"billing|arrear|overdue|payment|insufficient(?:user|account|api)?(?:quota|credit|balance|fund)"
    r"|(?:quota|credit|balance|fund)s?(?:not(?:enough|sufficient)|insufficient|exhausted|depleted|toolow)"
    r"|notenough(?:quota|credit|balance|fund)|outof(?:credit|fund|balance)|creditlimit|spend(?:ing)?limit|hardlimit"
    r"|exceededcurrentquota|(?:account|organi[sz]ation|project|workspace|user|consumer)"
    r"(?:is)?(?:deactivated|suspended|disabled|overdue|inactive|notactive|locked)"
)
"""What says that the gateway's account is at fault, in an error's words without case and signs.

Only in words: they are the provider's alone, and a message may repeat what a client has sent.
"""
_ACCOUNT_MESSAGE = re.compile(
    r"insufficient (?:account )?(?:balance|credits?|funds|quota)|(?:out of|used all|no) (?:\w+ )?credits?\b"
    r"|exhausted balance|credit balance|spending limit|billing (?:hard )?limit",
    re.IGNORECASE,
)
_ACCOUNT_STATUSES = frozenset({401, 403, 429})
"""Statuses whose messages may say it too: they are about who asks, not about what is asked for."""
_not_alphanumeric = re.compile(r"[^a-z0-9]+")

_wait = re.compile(
    r"(?:try again in|retry (?:after|in))\s+"
    r"((?:\d{1,3}h)?(?:\d{1,4}m(?!s))?\d{1,7}(?:\.\d{1,12})?\s?(?:ms|s(?:ec(?:ond)?s?)?)\b)",
    re.IGNORECASE | re.ASCII,
)
"""A wait in an error's message, as OpenAI's and Azure's have it."""
_code = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_param = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}(?:\[\d{0,4}\]|\.[A-Za-z_][A-Za-z0-9_-]{0,63}|\.\d{1,4}){0,8}")
_secret = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|org|proj|key|lm)[-_][\w*.-]{6,}|AIza[\w-]{10,}|Bearer\s+\S+)|https?://\S+"
    r"|[a-z0-9]{20,}",
    re.IGNORECASE | re.ASCII,
)
_letters_alone = re.compile(r"[a-z]+|[0-9]+", re.IGNORECASE | re.ASCII)
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def error_for_status(status: int, headers: Mapping[str, str], report: ErrorReport) -> ProxyError:
    """The error for a provider's answer of ``status``, which is not a 2xx."""
    error = _error_for_status(status, headers, report)
    words = (report.code, *report.words, None if report.status in (None, status) else str(report.status))
    error.provider_error = next((word for word in map(_plain_code, words) if word), "")
    return error


def error_in_answer(report: ErrorReport) -> ProxyError:
    """The error that a provider reports within a 2xx: as for the status that it names, in a number or in words."""
    status = _status_of(report) or HTTPStatus.INTERNAL_SERVER_ERROR
    error = error_for_status(status, {}, report)
    error.reported_status = int(status)
    if type(error) is UpstreamError:
        message = clean(report.message)
        error.message = f"The provider failed: {message}" if message else "The provider failed in its answer."
        error.args = (error.message,)
    return error


def error_told(body: bytes) -> ProxyError | None:
    """The error that a document tells of in which nothing else is, and which calls nothing an error; None of any other.

    Unless it names a failure, the provider may have made something all the same.
    """
    report = read_report(body)
    if not report.message:
        return None
    error = error_in_answer(report)
    if type(error) is not UpstreamError or (report.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return error
    uncertain = UpstreamUncertain(error.message)
    uncertain.provider_error, uncertain.reported_status = error.provider_error, error.reported_status
    return uncertain


def _error_for_status(status: int, headers: Mapping[str, str], report: ErrorReport) -> ProxyError:
    if _is_about_the_account(status, report):
        return ProviderOutOfCredit()
    if status == HTTPStatus.FORBIDDEN and _is_about_the_content(report):
        status = HTTPStatus.BAD_REQUEST
    if status in CONTENT_REFUSALS and not _is_about_the_key(report):
        return ProviderRefusal(
            clean(report.message) or "The provider refused the request.",
            provider_status=status,
            provider_code=_plain_code(report.code),
            param=_plain_param(report.param),
        )
    return _failure(status, headers, report)


def _failure(status: int, headers: Mapping[str, str], report: ErrorReport) -> ProxyError:
    """What is not about this request."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return UpstreamRateLimit(
            "The provider is rate-limiting this gateway; nothing was charged. Try again later.",
            retry_after_s=_wait_s(headers, report) or 1,
        )
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT):
        return UpstreamTimeout("The provider took too long; nothing was charged.")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return UpstreamMisconfigured("The provider did not accept this gateway's request; its operator has been told.")
    if status in UNCERTAIN:
        return UpstreamUncertain(f"The provider failed with status {status}; nothing was charged.")
    return UpstreamError(
        f"The provider failed with status {status}; nothing was charged.", retry_after_s=_wait_s(headers, report)
    )


def _status_of(report: ErrorReport) -> int | None:
    """The status that an error within a 2xx would have had; None where it does not say.

    The 2xx shows that the gateway's key was taken: a 403 without another word is about the content.
    """
    words = [word.lower() for word in report.words]
    named = next((_STATUSES[word] for word in report.words if word in _STATUSES), None)
    said = report.status or named
    if said == HTTPStatus.FORBIDDEN and not _is_about_the_account(said, report):
        is_about_the_key = any(part in word for word in words for part in ("key", "permission", "auth"))
        return HTTPStatus.UNAUTHORIZED if is_about_the_key else HTTPStatus.BAD_REQUEST
    if said is not None:
        return said
    if _is_about_the_content(report):
        return HTTPStatus.BAD_REQUEST
    plain = [_plain_word(word) for word in words]
    return next((status for part, status in _MEANINGS for word in plain if part in word), None)


def _is_about_the_key(report: ErrorReport) -> bool:
    words = {word.lower() for word in report.words}
    return not _KEY_WORDS.isdisjoint(words) or _key_message.match(report.message) is not None


def _is_about_the_content(report: ErrorReport) -> bool:
    words = (report.code or "", *report.words)
    return report.is_flagged or any(part in _plain_word(word) for word in words for part in _REFUSING_WORDS)


def _is_about_the_account(status: int, report: ErrorReport) -> bool:
    """Whether no request of this gateway will be served until its operator has paid, or moved."""
    if status == HTTPStatus.PAYMENT_REQUIRED or "FAILED_PRECONDITION" in report.words:
        return True
    if any(_ACCOUNT.search(_plain_word(word)) for word in report.words):
        return True
    return status in _ACCOUNT_STATUSES and bool(_ACCOUNT_MESSAGE.search(report.message[:READ_LENGTH_LIMIT]))


def _plain_word(word: str) -> str:
    """Without case and signs: ``content_filter`` and ``contentFilter`` are the same word."""
    return _not_alphanumeric.sub("", word.lower())


def _wait_s(headers: Mapping[str, str], report: ErrorReport) -> int | None:
    """The wait that the headers ask for, or else the body; at least a second."""
    wait_s = retry_after_seconds(headers, time())
    if wait_s is None and report.retry_after_s is not None:
        wait_s = whole_wait_s(report.retry_after_s)
    if wait_s is None and (said := _wait.search(report.message[:READ_LENGTH_LIMIT])) is not None:
        told_s = duration_s(said[1])
        wait_s = None if told_s is None else whole_wait_s(told_s)
    return None if wait_s is None else max(1, wait_s)


def _plain_param(param: str | None) -> str | None:
    """The name of a field, and where in it; nothing else."""
    if param is None or len(param) > PARAM_LENGTH_LIMIT or not _param.fullmatch(param):
        return None
    return param if clean(param) == param else None


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
