"""Which headers cross the gateway, and what a key looks like in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.domain.api_key import Credential, parse_credential
from proxy.domain.errors import InvalidApiKey


def parse_authorization(values: Sequence[str]) -> Credential:
    """The credential in the ``Authorization`` headers of a request (RFC 6750 section 2.1).

    Raises InvalidApiKey where there is none, more than one, or one that is not a Lightmeter key.
    """
    if not values:
        raise InvalidApiKey("You didn't provide an API key. Send it as 'Authorization: Bearer lm_...'.")
    if len(values) > 1:
        raise InvalidApiKey("There is more than one Authorization header; send exactly one.")
    scheme, _, text = values[0].strip().partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidApiKey("The Authorization header should be 'Bearer lm_...'.")
    text = text.strip()
    credential = parse_credential(text)
    if credential is None:
        raise InvalidApiKey("The API key is malformed: it is not a Lightmeter key, or it was mistyped.")
    return credential


def retry_after_seconds(headers: Mapping[str, str]) -> int | None:
    """A provider's ``Retry-After`` in seconds (RFC 9110 section 10.2.3), at most an hour; None for a date or none."""
    value = headers.get("Retry-After", "").strip()
    if not (value.isascii() and value.isdigit()):
        return None
    return min(int(value[:9]), 3600)
