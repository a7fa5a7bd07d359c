"""A request's body on its way to a provider, with files in it that are not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from proxy.domain.requests.inputs import Upload


@dataclass(frozen=True, slots=True)
class FileBytes:
    """The bytes of an uploaded file, as they are or in base64 (RFC 4648 section 4)."""

    upload: Upload
    in_base64: bool = False

    @property
    def size_bytes(self) -> int:
        """How many bytes are sent."""
        size = self.upload.size_bytes
        return 4 * ((size + 2) // 3) if self.in_base64 else size


@dataclass(frozen=True)
class OutgoingBody:
    """What is sent, piece by piece. Its length is known before."""

    content_type: str
    pieces: Sequence[bytes | FileBytes]

    @cached_property
    def size_bytes(self) -> int:
        """The length of all of it."""
        return sum(len(piece) if isinstance(piece, bytes) else piece.size_bytes for piece in self.pieces)


def splice_files(text: bytes, placeholders: Iterable[tuple[bytes, Upload]]) -> list[bytes | FileBytes]:
    """``text`` with the base64 of each file in place of its placeholder; they stand in it in this order, once each."""
    pieces: list[bytes | FileBytes] = []
    for placeholder, upload in placeholders:
        before, _, text = text.partition(placeholder)
        pieces += before, FileBytes(upload, in_base64=True)
    return [*pieces, text]
