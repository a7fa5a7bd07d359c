"""``Idempotency-Key``: the same request sent twice runs once, and has one answer.

The header is that of https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256

from proxy.domain.errors import InvalidRequest
from proxy.domain.records import record

HEADER = "Idempotency-Key"
LENGTH_LIMIT = 255


class IdempotencyState(StrEnum):
    """What becomes of an idempotency key when its request has ended."""

    FREE = "free"
    """The request may run again."""

    DONE = "done"
    """It has an answer, which is given instead."""

    GONE = "gone"
    """It must not run again, and its answer was not kept."""


@record
class Idempotency:
    """What a client calls its request, and what the request is; both as SHA-256 in hexadecimal."""

    key_sha256: str
    body_sha256: str


@record
class KeptAnswer:
    """An answer that can be given again. ``body`` is JSON."""

    status: int
    body: bytes


@record
class IdempotencyResult:
    """An idempotency key at the end of its request; ``answer`` where it is ``DONE``."""

    idempotency: Idempotency
    state: IdempotencyState
    answer: KeptAnswer | None = None


class AlreadyAnswered(Exception):
    """The request has run before; this is its answer."""

    def __init__(self, answer: KeptAnswer) -> None:
        """Carry the answer to whoever sends it."""
        super().__init__()
        self.answer = answer


class AnswerKeeper:
    """Gathers an answer for as long as it is small enough."""

    def __init__(self, limit_bytes: int) -> None:
        """Keep at most ``limit_bytes`` bytes; 0 keeps nothing."""
        self.limit_bytes = limit_bytes
        self._body: bytearray | None = bytearray()

    def add(self, piece: bytes) -> None:
        """The answer goes on."""
        if self._body is not None:
            self._body += piece
            if len(self._body) > self.limit_bytes:
                self._body = None

    @property
    def body(self) -> bytes | None:
        """All of it, None where it was too large."""
        return None if self._body is None else bytes(self._body)


def parse_idempotency(values: Sequence[str], path: str, body: bytes, user: str = "") -> Idempotency:
    """What the ``Idempotency-Key`` headers of a request say. Raises InvalidRequest.

    ``user`` is whom a header says that the request is for: nobody is given the answer to somebody else's.
    """
    if len(values) > 1:
        raise InvalidRequest(f"There is more than one {HEADER} header; send exactly one.", param=HEADER)
    key = values[0].strip()
    if not (1 <= len(key) <= LENGTH_LIMIT and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The {HEADER} header should be 1 to {LENGTH_LIMIT} printable ASCII characters.", param=HEADER
        )
    named = b"\n" + user.encode(errors="replace") if user else b""
    request = sha256(path.encode() + named + b"\0" + body)
    return Idempotency(key_sha256=sha256(key.encode()).hexdigest(), body_sha256=request.hexdigest())
