"""Programs under callgrind: how many instructions each kind of request takes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.benchmarks import servers, throughput
from tests.benchmarks.check import slowly
from tests.benchmarks.check.callgrind import functions_of, instructions_of
from tests.benchmarks.check.driving import Client, PacedConnection, Passage
from tests.benchmarks.provider import Provider
from tests.benchmarks.servers import BARE, Launch, Subject

START_TIMEOUT_S = 200.0
CONTROL_TIMEOUT_S = 60
AFTER_AN_ANSWER_S = 0.1
"""What a program does after an answer has ended is done by then, mostly: its log, its figures."""
# Hashes decide about collisions. Where copies are one instruction a byte they would be most of the count, and would not
# be most of the time; from which size on they are, the C library works out from the machine's caches.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS,-FSRM:glibc.cpu.x86_non_temporal_threshold=0x10000000",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request; those that warm up are not counted."""

    load: throughput.Load
    warm_up: int
    requests: int


CASES = {
    "small": Case(throughput.SMALL, 40, 200),
    "large": Case(throughput.LARGE, 2, 6),
    "events": Case(throughput.EVENTS, 2, 6),
}


@dataclass(slots=True)
class Counts:
    """What one program took, case by case."""

    instructions: dict[str, float] = field(default_factory=dict)
    """For each request."""
    functions: dict[str, Counter[str]] = field(default_factory=dict)
    """For all requests."""


def find_valgrind() -> str | None:
    """valgrind's path."""
    return shutil.which("valgrind")


class Counting:
    """The programs of one run, all with their files in ``folder``, and all behind one sample provider."""

    def __init__(self, valgrind: str, folder: Path, cases: Sequence[str], tell: Callable[[str], None]) -> None:
        self._valgrind = valgrind
        self._folder = folder
        self._cases = cases
        self._tell = tell
        self._subjects: list[Subject] = []

    def run(self, sources: Mapping[str, Path | None]) -> dict[str, Counts]:
        """The counts of each: the bare forwarder, and gateways, whose code may be in another tree than this one."""
        with ExitStack() as stack:
            provider = servers.start_sample_provider(stack, self._folder)
            pool = stack.enter_context(ThreadPoolExecutor(len(sources)))
            counted = {name: pool.submit(self._count, name, source, provider) for name, source in sources.items()}
            try:
                return {name: future.result() for name, future in counted.items()}
            except BaseException:
                # Who waits for them to answer hears that they will not.
                for subject in self._subjects:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        subject.process.kill()
                raise

    def _count(self, name: str, source: Path | None, provider: str) -> Counts:
        with ExitStack() as stack:
            return asyncio.run(self._count_in(stack, name, source, provider))

    async def _count_in(self, stack: ExitStack, name: str, source: Path | None, behind: str) -> Counts:
        loop, passage, provider = asyncio.get_running_loop(), Passage(), Provider(behind)
        server = await loop.create_server(lambda: PacedConnection(provider, passage), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            self._tell(f"starting {name} under callgrind")
            start = functools.partial(self._start, stack, name, source, f"http://127.0.0.1:{port}")
            subject = await asyncio.to_thread(start)
            self._subjects.append(subject)
            _, client = await loop.create_connection(lambda: Client(passage), "127.0.0.1", subject.port)
            counts = Counts()
            subject.process.send_signal(signal.SIGUSR2)
            for kind in self._cases:
                self._tell(f"{kind}: {name}")
                await self._count_case(client, subject, kind, counts)
            client.transport.close()
        return counts

    async def _count_case(self, client: Client, subject: Subject, kind: str, counts: Counts) -> None:
        case = CASES[kind]
        wire = case.load.request_to(subject).wire(subject.key)

        async def ask(requests: int) -> None:
            for _ in range(requests):
                await client.ask(wire)
            await asyncio.sleep(AFTER_AN_ANSWER_S)

        await ask(case.warm_up)
        await self._control(subject, "instrumentation", "on")
        await ask(case.requests)
        await self._control(subject, "instrumentation", "off")
        await self._control(subject, "dump", kind)
        dumps = self._folder.glob(f"{subject.name}.callgrind.*")
        text = max(dumps, key=lambda path: int(path.suffix[1:])).read_text()
        counts.instructions[kind] = instructions_of(text) / case.requests
        counts.functions[kind] = functions_of(text)

    def _start(self, stack: ExitStack, name: str, source: Path | None, provider: str) -> Subject:
        output = self._folder / f"{name}.callgrind"
        valgrind = (self._valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}")
        before = (*valgrind, sys.executable, str(Path(slowly.__file__)))
        environment = ENVIRONMENT if source is None else {**ENVIRONMENT, "PYTHONPATH": str(source)}
        launch = Launch(before, environment, START_TIMEOUT_S)
        if name == BARE:
            return servers._start_bare(stack, self._folder, provider, launch)
        programs = Path(sys.executable).parent
        return servers._start_lightmeter(stack, self._folder, provider, name, programs, launch=launch)[0]

    async def _control(self, subject: Subject, *words: str) -> None:
        # One that answers requests answers this only between them.
        vgdb = str(Path(self._valgrind).with_name("vgdb"))
        command = [vgdb, f"--pid={subject.process.pid}", f"--wait={CONTROL_TIMEOUT_S}", " ".join(words)]
        ended = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=CONTROL_TIMEOUT_S, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"valgrind does not take {words!r}: {ended.stderr.strip()}")
