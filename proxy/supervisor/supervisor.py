"""A gateway of several processes: the supervisor starts it, passes signals on, and ends with it.

It also becomes the program of a newer version without a request noticing (``restart``): the new program has the same
process, sockets, store and workers. It starts workers of its own, and lets the old ones finish once those serve.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from proxy.domain.errors import Conflict, InvalidRequest
from proxy.machine.limits import COLUMNS
from proxy.machine.segment import Segment
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, parse_settings, read_text
from proxy.supervisor.crew import Crew, CrewError
from proxy.supervisor.front import Front
from proxy.supervisor.handover import TrialError, become, try_out
from proxy.supervisor.operations import READY, WorkersRoutes
from proxy.supervisor.process import Given, WorkerProcess
from proxy.telemetry.logs import standard_error
from proxy.telemetry.secrets import KNOWN_SECRETS

logger = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long a scrape waits for a worker to look up what is only looked up then; it shows what was before, after that."""

AFTER_THE_DRAIN_S = 60.0
"""At most, what follows the drain takes a worker; then it is killed."""

TRIES = 3
"""Of the workers of a new version, so many may die before it is given up."""

LAST_LINES_S = 1.0
LAST_SIGNALS_S = 0.01


class Supervisor:
    """Front and crews of one gateway."""

    def __init__(self, settings: Settings, text: str, path: Path, workers: int) -> None:
        """``settings`` are what ``text``, of the file at ``path``, says. Nothing runs yet."""
        self._settings = settings
        self._path = path
        self._text = self._now = text
        self._generation = 1
        self._columns: set[int] = set()
        self._stopping = False
        self._restart_asked = asyncio.Event()
        self._restarting = False
        self._why_not = ""
        self._finishing: set[asyncio.Task[None]] = set()
        self.front = Front(settings, os.environ)
        self.crew = Crew(workers, partial(self._start_worker, workers, 1), self._bury)
        """The one that serves."""
        self._others: list[Crew] = []
        """Those that come, and those that go."""

    async def start(self) -> None:
        """Start all of it, and return when all workers serve.

        Raises ConfigurationError or EmbeddedStoreError, and leaves nothing running then.
        """
        await self.front.start(self._routes())
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
        crews, server = [self.crew, *self._others], self._settings.server
        for task in self._finishing:
            task.cancel()
        try:
            async with asyncio.timeout(server.drain_seconds + AFTER_THE_DRAIN_S):
                if server.reuse_port:
                    # Another gateway takes what comes; what waits here already is for whichever worker is the last.
                    self.front.close_doors()
                    for crew in crews:
                        crew.leave(to_workers=False)
                else:
                    for crew in crews:
                        crew.stop()
                    await asyncio.gather(*(crew.drained() for crew in crews))
                    for crew in crews:
                        crew.end()
                await asyncio.gather(*(crew.wait() for crew in crews))
        except TimeoutError:
            logger.error("workers that did not end in time are killed: %d", len([*self._workers()]))
            self.kill()
            await asyncio.gather(*(crew.wait() for crew in crews))
        await self.front.close()
        return max(crew.worst_status for crew in crews)

    def kill(self) -> None:
        """End all workers at once."""
        for crew in (self.crew, *self._others):
            crew.kill()

    def reload(self) -> None:
        """Have every worker offer the models of the file as it is now.

        Raises ConfigurationError, and nothing changes.
        """
        text = read_text(self._path)
        settings = parse_settings(text, str(self._path))
        KNOWN_SECRETS.add(settings.secret_texts(os.environ))
        self._now = text
        self.front.reload(settings)
        for worker in self._workers():
            worker.say(do="reload", text=text, source=str(self._path))

    # --- Becoming another program -------------------------------------------------------------------------------------

    async def restart_asked(self) -> None:
        """Return when this program should hand over to the next one."""
        await self._restart_asked.wait()

    async def hand_over(self, is_to_stop: Callable[[], bool]) -> None:
        """Become the next program, unless this process ``is_to_stop`` meanwhile. Raises OSError.

        Where it returns or raises, only an end is left.
        """
        front = await self.front.hand_over()
        standard_error().flush(LAST_LINES_S)
        # A signal that came until now has its turn of the event loop: the next program would not hear of it.
        await asyncio.sleep(LAST_SIGNALS_S)
        if is_to_stop():
            return
        handed = {
            **front,
            "generation": self._generation,
            "workers": [worker.record() for worker in self.crew.workers],
            "count": self.crew.count,
            "text": self._text,
            "now": self._now,
            "drain_s": self._settings.server.drain_seconds,
        }
        become(self._path, handed)

    async def take_over(self, handed: Mapping[str, Any], workers: int) -> None:
        """Go on with what the program before has ``handed`` over, and replace its crew by one of so many ``workers``.

        It returns while the crew before still serves. Raises ConfigurationError or EmbeddedStoreError.
        """
        before = handed["generation"]
        text, self._text = self._text, handed["text"]
        now, self._now = self._now, handed["now"]
        self._generation = before
        living = [WorkerProcess.again(record) for record in handed["workers"]]
        self._columns.update(worker.given.column for worker in living)
        count = handed["count"]
        old = self.crew = Crew(count, partial(self._start_worker, count, before), self._bury)
        await self.front.start(self._routes(), handed)
        old.take_over(living)
        self._restarting = True
        drain_s = handed.get("drain_s", self._settings.server.drain_seconds)
        task = asyncio.create_task(self._replace(workers, text, now, drain_s))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _replace(self, workers: int, text: str, now: str, drain_s: float) -> None:
        """Start a crew with the configuration in ``text``, and let the one before go when it serves.

        That has ``drain_s`` seconds to finish what it has.
        """
        old, before = self.crew, (self._text, self._now)
        new = Crew(workers, partial(self._start_worker, workers, self._generation + 1), self._bury)
        self._others.append(new)
        self._text, self._now = text, now
        try:
            await new.start(TRIES)
        except (ConfigurationError, CrewError) as error:
            # Unless the file was read again meanwhile: the old ones have that already.
            self._text, self._now = before[0], before[1] if self._now is now else self._now
            self._why_not = str(error)
            logger.error("the new workers do not come up, and the old ones stay: %s", error)
            new.kill()
            await new.wait()
            self._others.remove(new)
            self._restarting = False
            return
        self._generation += 1
        self.crew = new
        self._others[self._others.index(new)] = old
        self._restarting = False
        logger.info("%d new workers serve: the ones before finish what they have", workers)
        old.leave(to_workers=True)
        await old.wait_or_kill(drain_s + AFTER_THE_DRAIN_S)
        self._others.remove(old)
        logger.info("the workers before have ended")

    async def ask_to_restart(self) -> int:
        """Try the next program out, and have this one hand over soon; the generation that its workers will be.

        Raises Conflict and InvalidRequest.
        """
        if self._restarting or self._others or self._stopping:
            raise Conflict("The gateway is restarting or stopping already: its old workers still finish requests.")
        self._restarting, self._why_not = True, ""
        try:
            await try_out(self._path)
            self._check_same_places()
        except (TrialError, ConfigurationError) as error:
            self._restarting = False
            raise InvalidRequest(f"Nothing was restarted: {error}") from None
        except BaseException:
            self._restarting = False
            raise
        # When the answer is on its way.
        asyncio.get_running_loop().call_later(ANSWER_S / 10, self._restart_asked.set)
        return self._generation + 1

    def _check_same_places(self) -> None:
        """Raise ConfigurationError where the configuration has other places than those that are handed over."""
        old, new = self._settings, parse_settings(read_text(self._path), str(self._path))
        for name, one, other in (
            ("server.listen", old.server.listen, new.server.listen),
            ("server.reuse_port", old.server.reuse_port, new.server.reuse_port),
            ("admin.listen", old.admin.listen, new.admin.listen),
            ("server.data_folder", old.data_folder, new.data_folder),
            ("store.url", old.embedded_folder, new.embedded_folder),
        ):
            if one != other:
                raise ConfigurationError(f"{self._path}: {name} has changed, which takes a stop and a start")

    # --- Workers ------------------------------------------------------------------------------------------------------

    def _workers(self) -> Iterator[WorkerProcess]:
        for crew in (self.crew, *self._others):
            yield from crew.workers

    def _start_worker(self, workers: int, generation: int, index: int) -> WorkerProcess:
        column = min(set(range(COLUMNS)) - self._columns)
        given = Given(index, workers, column, self.front.store_url, str(self._path), self._text, self._now)
        segment = Segment.create()
        try:
            board, doors = self.front.board.segment, self.front.doors.sockets
            worker = WorkerProcess.start(given, generation, segment, board, doors)
        except OSError:
            segment.close()
            raise
        self._columns.add(column)
        return worker

    def _bury(self, worker: WorkerProcess) -> None:
        """What a worker has counted stays, and what it had is free again."""
        self.front.figures.gone.add(worker.segment)
        self.front.figures.processes.gone_cpu_s += worker.cpu_s
        if not worker.should_end:
            self.front.workers.died()
        self.front.board.clear(worker.given.column)
        self._columns.discard(worker.given.column)
        worker.release()

    # --- What they are asked ------------------------------------------------------------------------------------------

    def _routes(self) -> WorkersRoutes:
        return WorkersRoutes(self._status, self._render, self.ask_to_restart, self._tell)

    async def _status(self) -> str:
        if self._stopping:
            return "shutting_down"
        if self.crew.ready < self.crew.count:
            return "workers_starting"
        for answer in await asyncio.gather(*(worker.ask(ANSWER_S, status=True) for worker in self.crew.workers)):
            if answer != READY:
                return answer or "worker_not_answering"
        if not await self.front.runner.ping():
            return "store_unavailable"
        return READY

    async def _render(self) -> bytes:
        await asyncio.gather(*(worker.ask(ANSWER_S, status=False) for worker in self._workers()))
        self.front.metrics.refresh()
        self.front.workers.show(ready=self.crew.ready, wanted=self.crew.count)
        # Those that have died meanwhile are counted where they are now.
        workers = [*self._workers()]
        return self.front.figures.render(
            (worker.segment for worker in workers), (worker.process_id for worker in workers)
        )

    def _tell(self) -> dict[str, Any]:
        return {
            "generation": self._generation,
            "restarting": self._restarting,
            "why_not_restarted": self._why_not or None,
            "data": [
                {
                    "index": worker.given.index,
                    "process_id": worker.process_id,
                    "generation": worker.generation,
                    "state": worker.state.value,
                }
                for worker in self._workers()
            ],
        }
