"""Numbers in memory that several processes see: one process writes each of them, any may read it.

A segment is a list of series, each a head, which says what it is, and its numbers. It only grows, up to a size that is
set at the start; memory that is not touched is not taken. A number is written in one move of the processor, and a
series is seen when it is whole, so that a process may be killed at any moment.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

SEGMENT_BYTES = 16 * 2**20
WORD = 8
ALIGNED = ~(WORD - 1)
LENGTHS = 2
"""Two numbers of four bytes lead a series: its own length, written last, and that of its head."""


class SegmentFullError(Exception):
    """There is no room for one more series."""


class Segment:
    """A piece of memory by its descriptor, which a child process may be given."""

    def __init__(self, descriptor: int) -> None:
        """Use the memory behind ``descriptor``, which is this object's from now on. Raises OSError."""
        self.descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._memory = mmap.mmap(descriptor, self._size)
        self._view = memoryview(self._memory)
        self._lengths = self._view.cast("I")
        self._numbers = self._view.cast("d")
        self._series: list[tuple[bytes, memoryview[float]]] = []
        self._end = 0

    @classmethod
    def create(cls, size: int = SEGMENT_BYTES) -> Segment:
        """A new one, empty, without a name in any folder. Raises OSError."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("lightmeter")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size)
        return cls(descriptor)

    def add(self, head: bytes, count: int) -> memoryview[float]:
        """The ``count`` numbers of a new series, zero at first. Raises SegmentFullError."""
        self.series()
        start = self._end
        head_bytes = LENGTHS * 4 + len(head)
        first = (head_bytes + WORD - 1) & ALIGNED
        total = first + WORD * count
        if start + total + WORD > self._size:
            raise SegmentFullError
        self._view[start + LENGTHS * 4 : start + head_bytes] = head
        self._lengths[start // 4 + 1] = len(head)
        self._lengths[start // 4] = total
        return self.series()[-1][1]

    def series(self) -> list[tuple[bytes, memoryview[float]]]:
        """The head and the numbers of each series, in the order in which they were added, by whichever process."""
        while total := self._lengths[self._end // 4]:
            start = self._end
            head_bytes = LENGTHS * 4 + self._lengths[start // 4 + 1]
            first = (head_bytes + WORD - 1) & ALIGNED
            head = bytes(self._view[start + LENGTHS * 4 : start + head_bytes])
            self._series.append((head, self._numbers[(start + first) // WORD : (start + total) // WORD]))
            self._end = start + total
        return self._series

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last view of it."""
        os.close(self.descriptor)
