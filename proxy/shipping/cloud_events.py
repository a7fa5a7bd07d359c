"""CloudEvents 1.0 over HTTPS, in batches of JSON.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md

An entry's id is its event's, so that a receiver can drop what it has: a batch whose answer was lost is sent again.
Places are those that the gateway knows, for a receiver of events keeps none.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from http import HTTPStatus
from time import time

import aiohttp
import orjson
from yarl import URL

from proxy.domain.headers import retry_after_seconds
from proxy.shipping.batch import Batch, Entry
from proxy.shipping.errors import ShippingError, Unavailable
from proxy.shipping.source import Head

MEDIA_TYPE = "application/cloudevents-batch+json"
BODY_LIMIT = 1_000_000
"""Bytes of one request, but for a single entry that is larger: what most receivers take."""

ANSWER_SHOWN = 300
"""Bytes of an answer that is no success, for the log."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SECRET_PREFIX = "whsec_"  # noqa: S105 - what stands before one


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the receiver knows the sender: a bearer token, a key that bodies are signed with, both or neither."""

    bearer: str = ""
    signing_key: str = ""

    def key_bytes(self) -> bytes:
        """What is signed with. Raises ShippingError for a ``whsec_`` that is no base64."""
        if not self.signing_key.startswith(SECRET_PREFIX):
            return self.signing_key.encode()
        try:
            return base64.b64decode(self.signing_key.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ShippingError("the key to sign with begins with whsec_, and what follows is not base64") from None


class CloudEvents:
    """A sink. ``write`` returns when every event has been answered with a 2xx."""

    def __init__(self, url: str, *, source: str, credentials: Credentials, timeout_s: float) -> None:
        """POST to ``url``, as the events' ``source``; an answer may take ``timeout_s``. Raises ShippingError."""
        self._url = _receiver(url)
        self._source = source
        self._bearer = credentials.bearer
        self._key = credentials.key_bytes()
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._body_limit = BODY_LIMIT
        self._taken: tuple[str, int] = "", 0
        """Of the batch that ends with this entry, how many events have been answered."""

    async def places(self, heads: Sequence[Head]) -> Mapping[str, str]:
        """What the gateway knows to have been shipped."""
        return {head.team: head.shipped for head in heads if head.shipped is not None}

    async def write(self, batch: Batch, _units_per_usd: Decimal | None) -> int:
        """Send a batch, in as many requests as its size takes; what was answered of it before is not sent again."""
        last = batch.entries[-1]["id"]
        taken = self._taken[1] if self._taken[0] == last else 0
        while taken < len(batch.entries):
            body, count = self._body(batch.entries[taken:])
            status = await self._send(body)
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                if count == 1:
                    raise Unavailable(f"{self._shown} takes no body of {len(body):,} bytes, that of a single entry")
                self._body_limit = len(body) // 2
                continue
            taken += count
            self._taken = last, taken
        self._taken = "", 0
        return 0

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            # Sockets are closed in the next turn of the event loop.
            await asyncio.sleep(0)

    @property
    def _shown(self) -> str:
        return f"the receiver at {self._url.origin()}"

    def _body(self, entries: Sequence[Entry]) -> tuple[bytes, int]:
        """As many entries as one request may have, at least one, and how many these are."""
        events: list[bytes] = []
        size = 1
        for event in map(self._event, entries):
            size += len(event) + 1
            if events and size > self._body_limit:
                break
            events.append(event)
        return b"[" + b",".join(events) + b"]", len(events)

    def _event(self, entry: Entry) -> bytes:
        return orjson.dumps(
            {
                "specversion": "1.0",
                "id": entry["id"],
                "source": self._source,
                "type": f"lightmeter.ledger.{entry['kind']}",
                "subject": entry["key"] or entry["team"],
                "time": entry["at"],
                "datacontenttype": "application/json",
                # The extension for partitioning: events of one team are in order.
                "partitionkey": entry["team"],
                "data": entry,
            }
        )

    async def _send(self, body: bytes) -> int:
        """The status: that of a success, or 413. Raises Unavailable for any other answer, and for none."""
        if self._session is None:
            # Certificates from SSL_CERT_FILE as well. No cookies, and no redirects: they would have the ledger.
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, timeout=self._timeout)
        try:
            async with self._session.post(
                self._url, data=body, headers=dict(self._headers(body)), allow_redirects=False
            ) as response:
                shown = (await response.content.read(ANSWER_SHOWN)).decode(errors="replace")
                status, wait_s = response.status, retry_after_seconds(response.headers, time())
                # The rest is nobody's: the connection ends with a long one.
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self._shown} gives no answer ({str(error) or 'too late'})") from None
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return status
        raise Unavailable(f"{self._shown} answers {status} ({' '.join(shown.split()) or 'nothing more'})", wait_s)

    def _headers(self, body: bytes) -> Iterator[tuple[str, str]]:
        yield "Content-Type", MEDIA_TYPE
        if self._bearer:
            yield "Authorization", f"Bearer {self._bearer}"
        if self._key:
            # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
            message, seconds = f"batch_{sha256(body).hexdigest()[:32]}", str(int(time()))
            signed = hmac.digest(self._key, f"{message}.{seconds}.".encode() + body, "sha256")
            yield "webhook-id", message
            yield "webhook-timestamp", seconds
            yield "webhook-signature", f"v1,{base64.b64encode(signed).decode()}"


def _receiver(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if not url.host or (url.scheme != "https" and url.host not in LOOPBACK):
        raise ShippingError("the receiver should be an address that begins with https://, or http:// on this machine")
    if url.user or url.password:
        raise ShippingError("the receiver's address holds a password: use LIGHTMETER_SHIP_BEARER instead")
    return url
