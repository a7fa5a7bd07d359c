"""What a worker has of its supervisor."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.machine.limits import SharedLimits
from proxy.machine.segment import Segment


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's: the sockets that it accepts from, where its numbers stand, and what it shares with the others."""

    store_url: str
    doors: Sequence[socket.socket]
    segment: Segment
    limits: SharedLimits
    workers: int
    index: int
    """From 0 to ``workers`` - 1."""

    def share_of(self, amount: int) -> int:
        """What this worker has of an ``amount`` that is divided among all; at least 1."""
        return max(1, amount // self.workers + (self.index < amount % self.workers))
