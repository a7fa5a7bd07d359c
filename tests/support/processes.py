"""Processes under test: started, waited for, and stopped by their own process object."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

from tests.support.template import Forked, can_fork, fork

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.02
FIRST_PORT = 11_000

Process = subprocess.Popen[bytes] | Forked


def free_port() -> int:
    """A port that nothing listens on just now.

    It is none of those that the kernel gives away by itself: until a server has taken it, a connection of another test
    could have.
    """
    own = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(own.read_text().split()[0]) if own.exists() else 0
    while True:
        port = SystemRandom().randrange(FIRST_PORT, first) if first > 2 * FIRST_PORT else 0
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return as soon as ``condition`` holds; fail where it does not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {timeout_s} seconds")
        time.sleep(POLL_S)


class Server:
    """A process in a session of its own, so that Ctrl-C at a terminal does not reach it, and the file it writes to."""

    def __init__(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None, *, fresh: bool = False
    ) -> None:
        """``fresh`` runs it in an interpreter that has imported nothing yet, where a test is about that."""
        self.log = log
        # What the shell has set for another Lightmeter is not for this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTMETER_")}
        self.process = self._start(
            command, {**inherited, **(environment or {})}, fresh=fresh or not can_fork(command, environment or {})
        )

    def _start(self, command: list[str], environment: dict[str, str], *, fresh: bool) -> Process:
        if not fresh:
            return fork(command, self.log, environment)
        with self.log.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_to_say(self, text: str) -> None:
        """Its log is written beside its answers: what it says of one may come after it."""
        self.wait_for_output(re.escape(text))

    def wait_for_output(self, pattern: str, timeout_s: float = START_TIMEOUT_S) -> re.Match[str]:
        """The first match of ``pattern`` in what it writes."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.output)
            if match:
                found.append(match)
            elif self.process.poll() is not None:
                raise RuntimeError(f"ended with status {self.process.returncode}:\n{self.output}")
            return bool(found)

        wait_for(look, f"{pattern!r} in {self.log}", timeout_s)
        return found[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None, *, fresh: bool = False
) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server(command, log, environment, fresh=fresh)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop()


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]
