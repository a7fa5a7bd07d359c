"""Bytes in base64 (RFC 4648 section 4), piece by piece, as they come."""

from __future__ import annotations

from base64 import b64encode

_GROUP = 3
"""Bytes that four characters stand for."""


class Base64Pieces:
    """What has been taken is given in whole groups; less than one is kept."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        """Nothing has been taken yet."""
        self._left = b""

    def take(self, piece: bytes) -> bytes:
        """All whole groups so far that were not given before; maybe none."""
        whole = self._left + piece
        end = len(whole) - len(whole) % _GROUP
        self._left = whole[end:]
        return b64encode(whole[:end])

    def end(self) -> bytes:
        """The rest, with its padding."""
        left, self._left = self._left, b""
        return b64encode(left)
