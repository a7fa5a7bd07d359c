"""A gateway of several processes: the supervisor starts it, passes signals on, and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from proxy.machine.limits import COLUMNS
from proxy.machine.segment import Segment
from proxy.settings.settings import Settings, parse_settings, read_text
from proxy.supervisor.crew import Crew
from proxy.supervisor.front import Front
from proxy.supervisor.operations import READY, WorkersRoutes
from proxy.supervisor.process import Given, WorkerProcess
from proxy.telemetry.secrets import KNOWN_SECRETS

logger = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long a scrape waits for a worker to look up what is only looked up then; it shows what was before, after that."""

AFTER_THE_DRAIN_S = 60.0
"""At most, what follows the drain takes a worker; then it is killed."""


class Supervisor:
    """Front and crew of one gateway."""

    def __init__(self, settings: Settings, text: str, path: Path, workers: int) -> None:
        """``settings`` are what ``text``, of the file at ``path``, says. Nothing runs yet."""
        self._settings = settings
        self._path = path
        self._text = self._now = text
        self._count = workers
        self._generation = 1
        self._columns: set[int] = set()
        self._stopping = False
        self.front = Front(settings, os.environ)
        self.crew = Crew(workers, self._start_worker, self._bury)

    async def start(self) -> None:
        """Start all of it, and return when all workers serve.

        Raises ConfigurationError or EmbeddedStoreError, and leaves nothing running then.
        """
        await self.front.start(WorkersRoutes(self._status, self._render).routes())
        try:
            await self.crew.start()
        except BaseException:
            self.crew.kill()
            await self.crew.wait()
            await self.front.close()
            raise

    async def stop(self) -> int:
        """Finish what is in flight, for as long as ``drain_seconds``, then stop everything; the exit status."""
        self._stopping = True
        crew, server = self.crew, self._settings.server
        try:
            async with asyncio.timeout(server.drain_seconds + AFTER_THE_DRAIN_S):
                if server.reuse_port:
                    # Another gateway takes what comes; what waits here already is for whichever worker is the last.
                    self.front.close_doors()
                    crew.leave(to_workers=False)
                else:
                    crew.stop()
                    await crew.drained()
                    crew.end()
                await crew.wait()
        except TimeoutError:
            logger.error("workers that did not end in time are killed: %d", len(crew.workers))
            crew.kill()
            await crew.wait()
        await self.front.close()
        return crew.worst_status

    def kill(self) -> None:
        """End all workers at once."""
        self.crew.kill()

    def reload(self) -> None:
        """Have every worker offer the models of the file as it is now.

        Raises ConfigurationError, and nothing changes.
        """
        text = read_text(self._path)
        settings = parse_settings(text, str(self._path))
        KNOWN_SECRETS.add(settings.secret_texts(os.environ))
        self._now = text
        for worker in self.crew.workers:
            worker.say(do="reload", text=text, source=str(self._path))

    # --- Workers ------------------------------------------------------------------------------------------------------

    def _start_worker(self, index: int) -> WorkerProcess:
        column = min(set(range(COLUMNS)) - self._columns)
        given = Given(index, self._count, column, self.front.store_url, str(self._path), self._text, self._now)
        segment = Segment.create()
        try:
            worker = WorkerProcess.start(
                given, self._generation, segment, self.front.board.segment, self.front.doors.sockets
            )
        except OSError:
            segment.close()
            raise
        self._columns.add(column)
        return worker

    def _bury(self, worker: WorkerProcess) -> None:
        """What a worker has counted stays, and what it had is free again."""
        self.front.figures.gone.add(worker.segment)
        self.front.figures.processes.gone_cpu_s += worker.cpu_s
        self.front.board.clear(worker.given.column)
        self._columns.discard(worker.given.column)
        worker.release()

    # --- What they are asked ------------------------------------------------------------------------------------------

    async def _ask_all(self, *, status: bool) -> list[str | None]:
        return await asyncio.gather(*(worker.ask(ANSWER_S, status=status) for worker in self.crew.workers))

    async def _status(self) -> str:
        if self._stopping:
            return "shutting_down"
        if self.crew.ready < self.crew.count:
            return "workers_starting"
        for answer in await self._ask_all(status=True):
            if answer != READY:
                return answer or "worker_not_answering"
        if not await self.front.runner.ping():
            return "store_unavailable"
        return READY

    async def _render(self) -> bytes:
        await self._ask_all(status=False)
        self.front.metrics.refresh()
        # Those that have died meanwhile are counted where they are now.
        workers = self.crew.workers
        return self.front.figures.render(
            (worker.segment for worker in workers), (worker.process_id for worker in workers)
        )
