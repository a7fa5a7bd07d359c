"""Limits that hold over all processes of a gateway: each process counts what it has, and sees what the others have.

A process writes its own column only. Who takes from what is nearly used up holds a lock of the kernel (fcntl(2)) for a
few microseconds, which ends with its process. The column of a process that died is cleared by its supervisor.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.machine.segment import Segment

COLUMNS = 128
"""More than twice as many as there may be workers: while they are replaced, the old ones and the new ones live."""

LOOK_S = 0.01
"""Between two looks of whoever waits for what another process has."""

WIDTH = "width"
ACCEPTING = "accepting"
CONNECTIONS = "connections"


class SharedCount:
    """What all processes have of one thing."""

    __slots__ = ("_board", "_cells", "_column", "_width")

    def __init__(self, board: Board, cells: memoryview[float], column: int) -> None:
        """``column`` of the ``cells`` is this process's own."""
        self._board = board
        self._cells = cells
        self._column = column
        self._width = board.width

    @property
    def used(self) -> int:
        """What all have together."""
        return int(sum(self._cells[: int(self._width[0])]))

    @property
    def own(self) -> int:
        """What this process has."""
        return int(self._cells[self._column])

    @own.setter
    def own(self, amount: int) -> None:
        self._cells[self._column] = amount

    def all(self) -> list[float]:
        """What each process has, by its column."""
        return list(self._cells)

    def take(self, amount: int, limit: int) -> bool:
        """Have ``amount`` more, unless all would then have more than ``limit``; whether there was so much."""
        if amount == 1 and self.used + self._width[0] <= limit:
            # However many take one at this moment, there is enough.
            self._cells[self._column] += 1
            return True
        with self._board.locked():
            if sum(self._cells) + amount > limit:
                return False
            self._cells[self._column] += amount
            return True

    def give(self, amount: int) -> None:
        """Have ``amount`` less."""
        self._cells[self._column] -= amount


class Board:
    """All counts, in memory that a gateway's processes share."""

    def __init__(self, segment: Segment) -> None:
        """Keep them in ``segment``."""
        self.segment = segment
        self.width = self._find(WIDTH, 1)
        """How many columns, from the first on, have ever been used."""

    def count(self, name: str, column: int) -> SharedCount:
        """The count of this name, for the process that has ``column``. Raises SegmentFullError."""
        cells = self._find(name, COLUMNS)
        with self.locked():
            self.width[0] = max(self.width[0], column + 1)
        return SharedCount(self, cells, column)

    def clear(self, column: int) -> None:
        """The process that had this column is gone."""
        for _, cells in self.segment.series():
            if len(cells) == COLUMNS:
                cells[column] = 0

    def _find(self, name: str, length: int) -> memoryview[float]:
        head = name.encode()
        with self.locked():
            for known, cells in self.segment.series():
                if known == head:
                    return cells
            return self.segment.add(head, length)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else has this lock meanwhile."""
        fcntl.lockf(self.segment.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.segment.descriptor, fcntl.LOCK_UN)


class SharedLimits:
    """The counts of one process."""

    def __init__(self, board: Board, column: int) -> None:
        """The process has ``column`` of the ``board``."""
        self._board = board
        self._column = column
        self._accepting, self._connections = self.count(ACCEPTING), self.count(CONNECTIONS)

    def accepts(self, *, accepting: bool) -> None:
        """Whether this process takes new connections."""
        self._accepting.own = int(accepting)

    def count(self, name: str) -> SharedCount:
        """The count of this name."""
        return self._board.count(name, self._column)

    def semaphore(self, name: str, limit: int) -> SharedSemaphore:
        """What ``limit`` requests of all processes may have at a time."""
        return SharedSemaphore(self.count(name), limit)

    def has_more_connections(self, own: int) -> bool:
        """Whether this process has ``own`` connections, and another one that accepts has fewer."""
        self._connections.own = own
        pairs = zip(self._accepting.all(), self._connections.all(), strict=True)
        return any(accepts and connections < own for accepts, connections in pairs)


class SharedSemaphore:
    """As asyncio's own, over all processes. Who waits looks now and then, for nobody is told."""

    def __init__(self, count: SharedCount, limit: int) -> None:
        """At most ``limit`` have it at a time."""
        self._count = count
        self._limit = limit

    def locked(self) -> bool:
        """Whether all of it is taken."""
        return self._count.used >= self._limit

    async def acquire(self) -> bool:
        """Have one."""
        while not self._count.take(1, self._limit):  # noqa: ASYNC110 - other processes tell nobody
            await asyncio.sleep(LOOK_S)
        return True

    def release(self) -> None:
        """Have one less."""
        self._count.give(1)
