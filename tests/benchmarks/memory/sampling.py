"""What is sampled of a gateway's processes while they work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

from tests.benchmarks.servers import memory_bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment, in seconds since the load began; ``files`` are those in the gateway's data folder."""

    seconds: float
    answered: int
    memory_bytes: int
    store_bytes: int
    descriptors: int
    tasks: int
    files: int


class Sampler:
    """Looks at a gateway and at its embedded store again and again."""

    def __init__(self, gateway: psutil.Process, tasks: Path, data: Path, answered: Callable[[], int]) -> None:
        """``tasks`` is the file in which the gateway writes how many tasks it has; its store is its only child."""
        self._gateway = gateway
        self._store = gateway.children()[0]
        self._tasks = tasks
        self._data = data
        self._answered = answered
        self.samples: list[Sample] = []

    async def look(self, for_s: float, every_s: float) -> None:
        """Take samples for so long."""
        begun = monotonic()
        while (seconds := monotonic() - begun) < for_s:
            self.samples.append(self._sample(seconds))
            await asyncio.sleep(every_s)

    def _sample(self, seconds: float) -> Sample:
        return Sample(
            seconds=seconds,
            answered=self._answered(),
            memory_bytes=memory_bytes(self._gateway.pid),
            store_bytes=memory_bytes(self._store.pid),
            descriptors=self._gateway.num_fds(),
            tasks=int(self._tasks.read_text()),
            files=sum(each.is_file() for each in self._data.rglob("*")),
        )
