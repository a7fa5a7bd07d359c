"""One worker as its supervisor sees it: started as a fresh interpreter, spoken to, and waited for."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from time import monotonic
from typing import Any

from proxy.machine.segment import Segment
from proxy.supervisor.channel import Channel
from proxy.supervisor.handover import VARIABLE, command

logger = logging.getLogger(__name__)

BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits(3): another try would end alike."""


SIGNALLED = 128
"""What a shell adds to a signal's number."""

LAST_WORDS_S = 1.0


class State(Enum):
    """How far a worker has come."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker is told at its start."""

    index: int
    workers: int
    column: int
    store_url: str
    source: str
    text: str
    now: str
    """The configuration that is in force now, where it has been read again since the start."""


TOLD = ("index", "workers", "column", "store_url", "source", "text", "now")


class WorkerProcess:
    """A process that serves, has served, or will."""

    def __init__(self, process_id: int, given: Given, generation: int, segment: Segment, end: socket.socket) -> None:
        """The process runs. Its numbers are in ``segment``; it is spoken to at ``end``, once ``attend`` was called."""
        self.process_id = process_id
        self.given = given
        self.generation = generation
        self.segment = segment
        self.end = end
        self.state = State.STARTING
        self.why_not = ""
        """Why it could not start with this configuration."""
        self.should_end = False
        """Whether it was told to."""
        self.status = 0
        """Its exit status, as a shell would say it."""
        self.cpu_s = 0.0
        self.drained = asyncio.Event()
        self.changed = asyncio.Event()
        """Set when it is ready, or gone."""
        self.gone = asyncio.Event()
        self.began_s = monotonic()
        self._channel: Channel | None = None
        self._listening: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._unsaid: list[dict[str, Any]] = []
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._ids = count(1)
        # subprocess would wait for it as well, should it be forgotten there.
        self._popen: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls, given: Given, generation: int, segment: Segment, board: Segment, doors: Sequence[socket.socket]
    ) -> WorkerProcess:
        """Start one, by the command of this process. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            handed = {
                "control": theirs.fileno(),
                "segment": segment.descriptor,
                "board": board.descriptor,
                "doors": [door.fileno() for door in doors],
            }
            process = subprocess.Popen(  # noqa: S603 - it is this process's own command
                command(given.source),
                stdin=subprocess.DEVNULL,
                env={**os.environ, VARIABLE: json.dumps(handed)},
                pass_fds=(theirs.fileno(), segment.descriptor, board.descriptor, *handed["doors"]),  # type: ignore[misc]
                # Ctrl-C at a terminal is for the supervisor.
                process_group=0,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        made = cls(process.pid, given, generation, segment, ours)
        made._popen = process
        return made

    async def attend(self, *, is_new: bool) -> None:
        """Listen to it; one that ``is_new`` is told what it needs for its start."""
        channel = self._channel = await Channel.open(self.end)
        if is_new:
            channel.send(**{name: getattr(self.given, name) for name in TOLD})
        for message in self._unsaid:
            channel.send(**message)
        self._listening = asyncio.create_task(self._listen(channel))
        threading.Thread(target=self._wait, args=(asyncio.get_running_loop(),), daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether it serves, and goes on to."""
        return self.state is State.READY

    def say(self, **message: Any) -> None:
        """Tell it to do something, as soon as it is attended to."""
        if self._channel is None:
            self._unsaid.append(message)
        elif self.state is not State.GONE:
            self._channel.send(**message)

    def leave(self, *, to_workers: bool) -> None:
        """Have it serve what it has, and end; what waits at the door is left ``to_workers`` that live, or served."""
        self.state = State.LEAVING if self.state is not State.GONE else self.state
        self.say(do="leave", to_workers=to_workers)

    async def ask(self, timeout_s: float, *, status: bool) -> str | None:
        """Have it bring its figures up to date, and tell its ``status`` where that is asked for.

        None where it does not answer.
        """
        if self.state is State.GONE:
            return None
        number = next(self._ids)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.say(do="ask", id=number, status=status)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._asked.pop(number, None)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, unless it is gone."""
        if self.state is not State.GONE:
            os.kill(self.process_id, number)

    def record(self) -> Mapping[str, Any]:
        """What another program needs to know of it that takes this one's place."""
        given = self.given
        for descriptor in (self.segment.descriptor, self.end.fileno()):
            os.set_inheritable(descriptor, True)
        return {
            "process_id": self.process_id,
            "generation": self.generation,
            "segment": self.segment.descriptor,
            "end": self.end.fileno(),
            "is_ready": self.is_ready,
            "given": {name: getattr(given, name) for name in TOLD},
        }

    @classmethod
    def again(cls, record: Mapping[str, Any]) -> WorkerProcess:
        """One that another program has started in this process, and has made a ``record`` of."""
        for descriptor in (record["segment"], record["end"]):
            os.set_inheritable(descriptor, False)
        end, segment = socket.socket(fileno=record["end"]), Segment(record["segment"])
        made = cls(record["process_id"], Given(**record["given"]), record["generation"], segment, end)
        made.state = State.READY if record["is_ready"] else State.STARTING
        return made

    def release(self) -> None:
        """It is gone, and has been counted."""
        if self._listening is not None:
            self._listening.cancel()
        if self._channel is not None:
            self._channel.close()
        self.segment.close()

    async def _listen(self, channel: Channel) -> None:
        while message := await channel.receive():
            told = message.get("tell")
            if told == State.READY.value and self.state is State.STARTING:
                self.state = State.READY
                self.changed.set()
            elif told == "failed":
                self.why_not = message["why"]
            elif told == "drained":
                self.drained.set()
            elif "answer" in message:
                answer = self._asked.get(message["answer"])
                if answer is not None and not answer.done():
                    answer.set_result(message["status"])

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own, for nothing else tells what one child has used."""
        status, cpu_s = 0, 0.0
        try:
            _, status, usage = os.wait4(self.process_id, 0)
            cpu_s = usage.ru_utime + usage.ru_stime
        except ChildProcessError:
            logger.warning("how worker process %d ended is not known", self.process_id)
        code = os.waitstatus_to_exitcode(status)
        # After the end of the loop, nobody needs to know.
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._note_end, code if code >= 0 else SIGNALLED - code, cpu_s)

    def _note_end(self, status: int, cpu_s: float) -> None:
        self.status, self.cpu_s, self.state = status, cpu_s, State.GONE
        if self._popen is not None:
            self._popen.returncode = status
        self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        if self._listening is not None:
            # Its last words.
            await asyncio.wait((self._listening,), timeout=LAST_WORDS_S)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(State.GONE.value)
        self.gone.set()
        self.changed.set()
        self.drained.set()
