"""A process that has imported the program and waits: each server of a test is a fork of it.

A fresh interpreter would import for most of a second of processor time, several hundred times in a run of the suite.
What runs in a fork is ``python -m proxy.cli`` all the same, in a process, an environment, a session and with a log of
its own. Tests of what precedes ``main`` ask for a fresh interpreter.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
IMPORTED = (
    "proxy.cli.accounts",
    "proxy.cli.demo",
    "proxy.cli.books.ledger",
    "proxy.cli.price",
    "proxy.cli.serve",
    "proxy.sample_provider.command",
)
BEFORE_PYTHON_RUNS = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "OTEL_", "SSL_", "TZ")
"""Variables that begin so are read as an interpreter, a library or a module starts: too late for a fork."""


class Forked:
    """One fork, with what tests use of ``subprocess.Popen``."""

    def __init__(self, pid: int, template: Template, command: list[str]) -> None:
        self.pid = pid
        self.args = command
        self.returncode: int | None = None
        self._template = template

    def poll(self) -> int | None:
        """Its exit status, negative for a signal's number; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended. Raises TimeoutExpired after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self._look(0.05)) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _look(self, within_s: float) -> int | None:
        if self.returncode is None:
            self.returncode = self._template.ended(self.pid, within_s)
        return self.returncode


class Template:
    """The waiting process, as its test process sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.template"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._ended: dict[int, int] = {}
        self._unread = b""
        atexit.register(self._close)

    def fork(
        self, command: list[str], output: Path, errors: Path, environment: Mapping[str, str], folder: Path
    ) -> Forked:
        """Run the arguments after ``python -m proxy.cli`` of ``command`` in a process of its own."""
        for path in {output, errors}:
            path.write_bytes(b"")
        request = {
            "arguments": command[3:],
            "output": str(output),
            "errors": str(errors),
            "environment": dict(environment),
            "folder": str(folder),
        }
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            while (pid := self._read(None)) is None:
                pass
        return Forked(pid, self, command)

    def ended(self, pid: int, within_s: float) -> int | None:
        """The exit status of a fork, where it ends within that time."""
        with self._lock:
            if pid not in self._ended:
                self._read(within_s)
            return self._ended.pop(pid, None)

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self, within_s: float | None) -> int | None:
        """Take what the process says; the pid of a fork where it says one."""
        assert self._process.stdout is not None
        forked = None
        descriptor = self._process.stdout.fileno()
        while select.select([descriptor], [], [], within_s)[0]:
            piece = os.read(descriptor, 65536)
            if not piece:
                raise RuntimeError("the process that servers are forked from has ended")
            *lines, self._unread = (self._unread + piece).split(b"\n")
            for line in lines:
                said: dict[str, int] = json.loads(line)
                if "status" in said:
                    self._ended[said["pid"]] = said["status"]
                else:
                    forked = said["pid"]
            within_s = 0.0
        return forked


_templates: list[Template] = []


def can_fork(command: list[str], environment: Mapping[str, str]) -> bool:
    """Whether a fork does what this command would do."""
    program = [sys.executable, "-m", "proxy.cli"]
    return command[:3] == program and sys.platform == "linux" and not any(map(_comes_too_late, environment))


def fork(command: list[str], log: Path, environment: Mapping[str, str]) -> Forked:
    """A server, whose errors go to its log as well: a fork of this test process's own template."""
    return _template().fork(command, log, log, environment, ROOT)


def finish(
    command: list[str], environment: Mapping[str, str], folder: Path | None, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself. Raises TimeoutExpired, and kills it, where it does not."""
    with TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        process = _template().fork(command, output, errors, environment, folder or ROOT)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(command, status, output.read_text(), errors.read_text())


def _template() -> Template:
    if not _templates:
        _templates.append(Template())
    return _templates[0]


def _comes_too_late(name: str) -> bool:
    return name.startswith(BEFORE_PYTHON_RUNS)


class _Forks:
    """The other end: forks for each request, and says which forks have ended."""

    def __init__(self) -> None:
        self._requests, self._replies = os.dup(0), os.dup(1)
        self._woken, self._wake = os.pipe()
        for descriptor in (self._woken, self._wake):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def wait(self) -> dict[str, Any]:
        """Serve until the test process goes; what returns, in a fork alone, is what that fork was asked to run."""
        unread = b""
        while True:
            ready, _, _ = select.select([self._requests, self._woken], [], [])
            if self._woken in ready:
                self._say_who_ended()
            if self._requests in ready:
                piece = os.read(self._requests, 65536)
                if not piece:
                    os._exit(0)
                *lines, unread = (unread + piece).split(b"\n")
                for line in lines:
                    pid = os.fork()
                    if pid == 0:
                        self._close()
                        return dict(json.loads(line))
                    self._say(pid=pid)

    def _say_who_ended(self) -> None:
        os.read(self._woken, 4096)
        while ended := _reap():
            self._say(pid=ended[0], status=ended[1])

    def _say(self, **facts: int) -> None:
        os.write(self._replies, json.dumps(facts).encode() + b"\n")

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._requests, self._replies, self._woken, self._wake):
            os.close(descriptor)


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    # Appended to: output and errors may be one file.
    written = os.O_WRONLY | os.O_APPEND
    paths = ((os.devnull, os.O_RDONLY), (request["output"], written), (request["errors"], written))
    for number, (path, flags) in enumerate(paths):
        descriptor = os.open(path, flags)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["lightmeter", *request["arguments"]]


if __name__ == "__main__":
    for module in IMPORTED:
        import_module(module)
    _become(_Forks().wait())
    runpy.run_module("proxy.cli", run_name="__main__", alter_sys=True)
