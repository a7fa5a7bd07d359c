"""Which headers cross the gateway, and what a key looks like in one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from typing import Protocol

from proxy.domain.api_key import Credential, parse_credential
from proxy.domain.errors import InvalidApiKey

KEY_HEADERS = ("api-key", "x-api-key")
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
    texts = {text.strip() for name in KEY_HEADERS for text in headers.getall(name, ())} - {""}
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


RETRY_AFTER_LIMIT_S = 3600
_DATE_LENGTH_LIMIT = 40
DAYS_LIMIT, HOURS, MINUTES = 31, 24, 60


def retry_after_seconds(headers: Mapping[str, str], now_s: float) -> int | None:
    """A provider's ``Retry-After`` in seconds (RFC 9110 section 10.2.3), from 0 to an hour; None where it has none.

    A date is counted from the answer's own ``Date``, for the provider's clock may not be ours; without that, from
    ``now_s``, in seconds since the epoch.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(int(value[:9]), RETRY_AFTER_LIMIT_S)
    until_s = _date_s(value)
    if until_s is None:
        return None
    sent_s = _date_s(headers.get("Date", "").strip())
    wait_s = until_s - (now_s if sent_s is None else sent_s)
    return math.ceil(min(max(0.0, wait_s), RETRY_AFTER_LIMIT_S))


def _date_s(value: str) -> float | None:
    """An HTTP date (RFC 9110 section 5.6.7) in seconds since the epoch, None where it is not one."""
    # Each of its three forms begins with a day's name; Python would read much else as a date.
    if not value.isascii() or len(value) > _DATE_LENGTH_LIMIT or value[:3] not in _DAYS:
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
