"""Alerts to an HTTP receiver, signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
from http import HTTPStatus
from time import time

import aiohttp
import orjson

from proxy.alerts.rules import SendingError
from proxy.domain.alerts import Alert

TIMEOUT_S = 10.0
SECRET_PREFIX = "whsec_"  # noqa: S105 - how such secrets begin, not one


def key_of(secret: str) -> bytes:
    """The key in a secret: ``whsec_`` and base64, or any text as it is. Raises ValueError."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"should be base64 behind {SECRET_PREFIX}") from None


def signature(key: bytes, message_id: str, seconds: int, body: bytes) -> str:
    """What a receiver compares with ``webhook-signature``."""
    signed = hmac.digest(key, f"{message_id}.{seconds}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"


class Webhook:
    """One receiver. What it answers with any 2xx has been taken."""

    def __init__(self, url: str, secret: str) -> None:
        """Nothing is sent yet; without a ``secret``, nothing is signed."""
        self._url = url
        self._key = key_of(secret) if secret else b""
        self._session: aiohttp.ClientSession | None = None

    async def send(self, alert: Alert, alert_id: str) -> None:
        """Send it once. Raises SendingError."""
        about = {"kind": alert.kind, "team": alert.team, "text": alert.text, **alert.facts}
        body = orjson.dumps({"id": alert_id, "type": f"lightmeter.{alert.kind}", "data": about})
        headers = {"Content-Type": "application/json", "webhook-id": alert_id}
        seconds = int(time())
        headers["webhook-timestamp"] = str(seconds)
        if self._key:
            headers["webhook-signature"] = signature(self._key, alert_id, seconds, body)
        session = self._open()
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SendingError(f"the webhook gives no answer ({type(error).__name__})") from None
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise SendingError(f"the webhook answers {status}")

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Certificates from SSL_CERT_FILE as well. No cookies, and no redirects: the address is the operator's.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            )
        return self._session
