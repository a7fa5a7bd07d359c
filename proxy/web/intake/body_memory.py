"""How much memory the large bodies of all requests may take together, and those of one key."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from proxy.domain.errors import BodiesUnavailable
from proxy.machine.limits import SharedCount

logger = logging.getLogger(__name__)

SHARE = 4
"""One key may hold a fourth of it, or one body of the largest size."""


class BodyMemory:
    """Counts the bytes of bodies that are held, from when they are read until their requests have ended."""

    def __init__(self, max_bytes: int, *, max_body_bytes: int, shared: SharedCount | None = None) -> None:
        """Hold at most ``max_bytes`` bytes, of which one body may have ``max_body_bytes``.

        Where other processes serve beside this one, all together hold no more: ``shared`` is what they have. A key's
        share is counted here alone.
        """
        self._shared = shared
        self._max_bytes = max_bytes
        self._max_key_bytes = max(max_bytes // SHARE, max_body_bytes)
        self._of_keys: dict[str, int] = {}
        self.held_bytes = 0

    def open(self, key_id: str) -> HeldBody:
        """For one request of this key: a context."""
        return HeldBody(self, key_id)

    def take(self, key_id: str, size: int) -> None:
        """Count ``size`` bytes more. Raises BodiesUnavailable where they would be too many."""
        of_key = self._of_keys.get(key_id, 0) + size
        if of_key > self._max_key_bytes and self.held_bytes + size <= self._max_bytes:
            raise BodiesUnavailable
        if self.held_bytes + size > self._max_bytes or (
            self._shared is not None and not self._shared.take(size, self._max_bytes)
        ):
            logger.warning(
                "bodies would be more than the %d bytes of server.max_body_memory: one was refused", self._max_bytes
            )
            raise BodiesUnavailable
        self.held_bytes += size
        self._of_keys[key_id] = of_key

    def give(self, key_id: str, size: int) -> None:
        """Count ``size`` bytes less."""
        self.held_bytes -= size
        if self._shared is not None:
            self._shared.give(size)
        left = self._of_keys.get(key_id, 0) - size
        if left > 0:
            self._of_keys[key_id] = left
        else:
            self._of_keys.pop(key_id, None)


class HeldBody:
    """What one request holds; leaving the context gives it back."""

    __slots__ = ("_key_id", "_memory", "_size")

    def __init__(self, memory: BodyMemory, key_id: str) -> None:
        """Nothing yet."""
        self._memory = memory
        self._key_id = key_id
        self._size = 0

    def grow_to(self, size: int) -> None:
        """Hold ``size`` bytes in all. Raises BodiesUnavailable."""
        if size > self._size:
            self._memory.take(self._key_id, size - self._size)
            self._size = size

    def __enter__(self) -> Self:
        """Use it until the block is left."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Give everything back."""
        self._memory.give(self._key_id, self._size)
        self._size = 0
