"""Pieces of an answer, cut so that reading one of them holds nobody up.

Most bytes of an answer are an image's, which are read at gigabytes a second. A provider may send others: a piece of
64 KiB that is nothing but events or members takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

FIRST_PART_BYTES = 16_384
LEAST_PART_BYTES = 1_024
PART_S = 0.01
"""How long reading one part should take; after that, everybody else should have a turn."""

_LEAST_S = 1e-9


class EvenParts:
    """Of one answer: each part is as long as may be read in time at the pace of the one before it."""

    def __init__(self, read: Callable[[bytes], bytes], clock: Callable[[], float] = perf_counter) -> None:
        """``read`` takes the answer's next bytes; ``clock`` counts seconds."""
        self._read = read
        self._clock = clock
        self._part_bytes = FIRST_PART_BYTES
        self.is_turn_due = False
        """Whether the last part took so long that others should have a turn before the next."""

    def read(self, piece: bytes) -> Iterator[bytes]:
        """What comes of each part of ``piece``."""
        if len(piece) <= LEAST_PART_BYTES:
            # None is shorter, however long it takes.
            self.is_turn_due = False
            yield self._read(piece)
            return
        if len(piece) <= self._part_bytes:
            yield self._timed(piece)
            return
        start = 0
        while start < len(piece):
            part = piece[start : start + self._part_bytes]
            start += len(part)
            yield self._timed(part)

    def _timed(self, part: bytes) -> bytes:
        began = self._clock()
        read = self._read(part)
        took_s = self._clock() - began
        part_bytes = int(len(part) * PART_S / max(took_s, _LEAST_S))
        self._part_bytes = max(LEAST_PART_BYTES, part_bytes)
        self.is_turn_due = took_s > PART_S / 2
        return read
