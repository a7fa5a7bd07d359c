"""A real PostgreSQL for the tests: Debian's, as another user, for it refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import psycopg

from tests.support.processes import Server, free_port, wait_for
from tests.support.requirements import lacking

USER = "lightmeter"


def _programs() -> Path:
    """The folder of the newest version's programs; skips the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    path = shutil.which("initdb")
    if found:
        return found[-1]
    if path:
        return Path(path).parent
    return lacking("needs PostgreSQL: apt-get install postgresql")


def _as_another_user() -> list[str]:
    """Before a command of PostgreSQL's server."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]


@dataclass
class Postgres:
    """A server that runs, and can be killed and started again."""

    folder: Path
    port: int
    programs: Path
    _server: Server | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        flags = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", "", "-c", "listen_addresses=127.0.0.1"]
        self._server = Server(
            [*_as_another_user(), str(self.programs / "postgres"), *flags], self.folder / "server.log"
        )
        wait_for(self._answers, "an answer of PostgreSQL")

    def kill(self) -> None:
        """kill -9 of all of its processes."""
        assert self._server is not None
        # Each leads a session of its own.
        server = psutil.Process(self._server.process.pid)
        for process in (server, *server.children()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._server.process.wait()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """All of its processes stop while the block lasts."""
        assert self._server is not None
        server = psutil.Process(self._server.process.pid)
        with ExitStack() as afterwards:
            afterwards.callback(server.resume)
            # It first: then it starts no others, and none of those that end is gone before it has waited for it.
            server.suspend()
            for process in server.children():
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
                    afterwards.callback(process.resume)
            yield

    def stop(self) -> None:
        """End it."""
        if self._server is not None and self._server.process.poll() is None:
            self._server.stop(signal.SIGINT)

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with psycopg.connect(self.url, autocommit=True, options="-c search_path=lightmeter") as connection:
            found = connection.execute(query, given)
            return found.fetchall() if found.description else []

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server with a new database."""
    programs = _programs()
    # Not below the folders of the tests, which their owner alone may enter.
    with TemporaryDirectory(prefix="lightmeter-postgres-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        flags = ["-D", str(folder / "data"), "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(
            [*_as_another_user(), str(programs / "initdb"), *flags], check=True, capture_output=True, cwd="/"
        )
        server = Postgres(folder, free_port(), programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()
