"""Which headers cross the gateway, and what a key looks like in one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from typing import Protocol

from proxy.domain.api_key import Credential, parse_credential
from proxy.domain.errors import InvalidApiKey

AZURE_KEY, OTHER_KEY = KEY_HEADERS = ("api-key", "x-api-key")
"""Where else a key may stand: ``AzureOpenAI`` of OpenAI's SDKs sends the first, many other clients the second."""

_DAYS = frozenset({"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"})


class Headers(Protocol):
    """The headers of a request, whatever the case of their names."""

    def getall(self, key: str, default: tuple[()], /) -> Sequence[str]:
        """Every value of the header ``key``, or ``default``."""


def read_credential(headers: Headers) -> Credential:
    """The credential in ``Authorization``, ``api-key`` or ``x-api-key``, which may be in several of them.

    Raises InvalidApiKey where there is none, where two differ, or where it is not a Lightmeter key.
    """
    authorization = headers.getall("Authorization", ())
    others = [*headers.getall(AZURE_KEY, ()), *headers.getall(OTHER_KEY, ())]
    texts = {text.strip() for text in others} - {""} if others else set()
    if not texts:
        return parse_authorization(authorization)
    if authorization:
        texts.add(_bearer_token(authorization))
    if len(texts) > 1:
        raise InvalidApiKey("The headers Authorization, api-key and x-api-key hold different keys; send one of them.")
    return _parse_key(texts.pop())


def parse_authorization(values: Sequence[str]) -> Credential:
    """The credential in the ``Authorization`` headers of a request (RFC 6750 section 2.1).

    Raises InvalidApiKey where there is none, more than one, or one that is not a Lightmeter key.
    """
    if not values:
        raise InvalidApiKey("You didn't provide an API key. Send it as 'Authorization: Bearer lm_...'.")
    return _parse_key(_bearer_token(values))


def _bearer_token(values: Sequence[str]) -> str:
    if len(values) > 1:
        raise InvalidApiKey("There is more than one Authorization header; send exactly one.")
    scheme, _, text = values[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidApiKey("The Authorization header should be 'Bearer lm_...'.")
    return text.strip()


def _parse_key(text: str) -> Credential:
    credential = parse_credential(text)
    if credential is None:
        raise InvalidApiKey("The API key is malformed: it is not a Lightmeter key, or it was mistyped.")
    return credential


RETRY_AFTER_LIMIT_S = 86_400
_VALUE_LENGTH_LIMIT = 40
DAYS_LIMIT, HOURS, MINUTES = 31, 24, 60
_duration = re.compile(
    r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?(?:(?P<s>\d+(?:\.\d*)?)\s?(?:s|secs?|seconds?)?)?|(?P<ms>\d+(?:\.\d*)?)\s?ms",
    re.IGNORECASE | re.ASCII,
)


def retry_after_seconds(headers: Mapping[str, str], now_s: float) -> int | None:
    """The wait that a provider asks for, in whole seconds from 0 to a day; None where it asks for none.

    It is ``retry-after-ms``, as OpenAI's SDKs read it, or ``Retry-After`` (RFC 9110 section 10.2.3), whose seconds may
    be a fraction here, or have a unit. A date is counted from the answer's own ``Date``, for the provider's clock may
    not be ours; without that, from ``now_s``, in seconds since the epoch.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        exact_s = duration_s(headers.get(name, "").strip() + "ms")
        if exact_s is not None:
            return whole_wait_s(exact_s)
    value = headers.get("Retry-After", "").strip().strip('"')
    if value[:3] not in _DAYS:
        # One that a proxy has doubled is a list.
        value = value.partition(",")[0].strip()
    if value.isascii() and value.isdigit():
        return whole_wait_s(int(value[:9]))
    wait_s = duration_s(value)
    if wait_s is not None:
        return whole_wait_s(wait_s)
    until_s = _date_s(value)
    if until_s is None:
        return None
    sent_s = _date_s(headers.get("Date", "").strip())
    return whole_wait_s(until_s - (now_s if sent_s is None else sent_s))


def duration_s(text: str) -> float | None:
    """The seconds in ``20``, ``20.7``, ``34.07s``, ``1m30s`` or ``250ms``; None where it is none of these."""
    found = _duration.fullmatch(text) if 0 < len(text) <= _VALUE_LENGTH_LIMIT else None
    if found is None:
        return None
    if found["ms"] is not None:
        return float(found["ms"]) / 1_000
    return (float(found["h"] or 0) * MINUTES + float(found["m"] or 0)) * MINUTES + float(found["s"] or 0)


def whole_wait_s(wait_s: float) -> int:
    """A wait as ``Retry-After`` has it, from 0 to a day."""
    return math.ceil(min(max(0.0, wait_s), RETRY_AFTER_LIMIT_S))


def _date_s(value: str) -> float | None:
    """An HTTP date (RFC 9110 section 5.6.7) in seconds since the epoch, None where it is not one."""
    # Each of its three forms begins with a day's name; Python would read much else as a date.
    if not value.isascii() or len(value) > _VALUE_LENGTH_LIMIT or value[:3] not in _DAYS:
        return None
    try:
        parts = parsedate_tz(value)
        if parts is None or not _is_a_time(*parts[2:6]):
            return None
        return mktime_tz(parts)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _is_a_time(day: int, hour: int, minute: int, second: int) -> bool:
    return 1 <= day <= DAYS_LIMIT and hour < HOURS and minute < MINUTES and second <= MINUTES
