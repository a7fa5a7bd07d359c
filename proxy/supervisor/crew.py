"""The workers of one configuration: all started, each replaced when it dies, and drained together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterable
from time import monotonic

from proxy.settings.mistakes import ConfigurationError
from proxy.supervisor.process import BAD_CONFIGURATION, SIGNALLED, WorkerProcess

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 30.0
GOOD_LIFE_S = 60.0
"""A worker that lived for so long is replaced at once."""

START_S = 300.0
"""A worker that does not serve after so long hangs, and is killed as well. Many at once on a slow machine take long."""

LOOK_EVERY_S = 5.0
HUNG_S = 30.0
"""A worker whose event loop stands still for so long is killed, as systemd does by WatchdogSec= with a single one."""


class CrewError(Exception):
    """The workers cannot be had; the message says why."""


class Crew:
    """So many workers, each in a place of its own."""

    def __init__(
        self, count: int, start: Callable[[int], WorkerProcess], bury: Callable[[WorkerProcess], None]
    ) -> None:
        """Start the worker of each place by ``start``, which may raise OSError; each that is gone goes to ``bury``."""
        self.count = count
        self.workers: list[WorkerProcess] = []
        """Those that live."""
        self.worst_status = 0
        """Of those that have ended since all should."""
        self._start = start
        self._bury = bury
        self._ending = asyncio.Event()
        self._deaths = 0
        self._refusal = ""
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None

    @property
    def ready(self) -> int:
        """How many of them serve."""
        return sum(worker.is_ready for worker in self.workers)

    # --- Its beginning ------------------------------------------------------------------------------------------------

    async def start(self, tries: int | None = None) -> None:
        """Start all, and return when all serve.

        Raises ConfigurationError where one cannot start with its configuration, and CrewError where ``tries`` of them
        have died before all served; without ``tries`` it goes on for ever.
        """
        self._tasks += [asyncio.create_task(self._keep(index, None)) for index in range(self.count)]
        while self.ready < self.count:
            await self._changed.wait()
            self._changed.clear()
            if self._refusal:
                raise ConfigurationError(self._refusal)
            if tries is not None and self._deaths >= tries:
                raise CrewError(f"{self._deaths} workers died at their start; the log says how")
        self._watch = asyncio.create_task(self._look_after())

    def take_over(self, workers: Iterable[WorkerProcess]) -> None:
        """Go on with workers that another program has started in this process; needs a running event loop."""
        living = {worker.given.index: worker for worker in workers}
        self._tasks += [asyncio.create_task(self._keep(index, living.get(index))) for index in range(self.count)]
        self._watch = asyncio.create_task(self._look_after())

    # --- Its end ------------------------------------------------------------------------------------------------------

    def leave(self, *, to_workers: bool) -> None:
        """Have all serve what they have, and end; others take what comes."""
        self._end_soon()
        for worker in self.workers:
            worker.leave(to_workers=to_workers)

    def stop(self) -> None:
        """Have all refuse what comes, and finish what they have."""
        self._end_soon()
        for worker in self.workers:
            worker.say(do="stop")

    async def drained(self) -> None:
        """Return when all have finished what they had."""
        await asyncio.gather(*(worker.drained.wait() for worker in self.workers))

    def end(self) -> None:
        """Let those that are stopped end."""
        for worker in self.workers:
            worker.say(do="end")

    def kill(self) -> None:
        """End all at once."""
        self._end_soon()
        for worker in self.workers:
            worker.kill()

    def _end_soon(self) -> None:
        self._ending.set()
        for worker in self.workers:
            worker.should_end = True

    async def wait(self) -> None:
        """Return when all are gone."""
        self._ending.set()
        if self._tasks:
            # Whoever waits here may be told to wait no more; they go on.
            await asyncio.wait(self._tasks)
        if self._watch is not None:
            self._watch.cancel()

    async def wait_or_kill(self, within_s: float) -> None:
        """The same; those that are not gone ``within_s`` seconds are killed."""
        try:
            async with asyncio.timeout(within_s):
                await self.wait()
        except TimeoutError:
            logger.error("workers that did not end within %g s are killed: %d", within_s, len(self.workers))
            self.kill()
            await self.wait()

    # --- One place ----------------------------------------------------------------------------------------------------

    async def _keep(self, index: int, worker: WorkerProcess | None) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._ending.is_set():
            began_s = monotonic()
            if worker is not None:
                await self._outlive(worker, is_new=False)
            else:
                try:
                    worker = self._start(index)
                except OSError as error:
                    logger.error("a worker cannot be started: %s", error.strerror or error)
                else:
                    await self._outlive(worker, is_new=True)
            if self._ending.is_set():
                return
            self._deaths += 1
            if monotonic() - began_s >= GOOD_LIFE_S:
                pause_s = FIRST_PAUSE_S
            if worker is not None:
                how = worker.why_not or _how(worker.status)
                logger.error("worker %d (process %d) ended: %s", index, worker.process_id, how)
            logger.warning("another worker %d starts in %g s", index, pause_s)
            self._changed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ending.wait()
            pause_s = min(LAST_PAUSE_S, pause_s * 2)
            worker = None

    async def _outlive(self, worker: WorkerProcess, *, is_new: bool) -> None:
        """Attend to a worker until it is gone."""
        self.workers.append(worker)
        await worker.attend(is_new=is_new)
        if self._ending.is_set():
            worker.kill()
        try:
            async with asyncio.timeout(None if worker.is_ready else START_S):
                await worker.changed.wait()
        except TimeoutError:
            if not self._ending.is_set():
                logger.error("worker process %d does not serve after %g s, and is killed", worker.process_id, START_S)
                worker.kill()
        self._changed.set()
        await worker.gone.wait()
        self.workers.remove(worker)
        if worker.status == BAD_CONFIGURATION and worker.why_not:
            self._refusal = worker.why_not
        if self._ending.is_set():
            self.worst_status = max(self.worst_status, worker.status)
        self._bury(worker)

    async def _look_after(self) -> None:
        """Kill workers that hang."""
        while not self._ending.is_set():
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.gather(*(self._look_at(worker) for worker in self.workers if worker.is_ready))

    async def _look_at(self, worker: WorkerProcess) -> None:
        if await worker.ask(HUNG_S, status=False) is None and worker.is_ready:
            logger.error("worker process %d has not answered for %g s, and is killed", worker.process_id, HUNG_S)
            worker.kill()


def _how(status: int) -> str:
    if status <= SIGNALLED:
        return f"exit status {status}"
    return f"killed by {signal.Signals(status - SIGNALLED).name}"
