"""The embedded store: a real Valkey server of our own, on a Unix socket, its append-only file in the data folder.

The server runs in a session of its own, so that Ctrl-C at a terminal reaches Lightmeter first. Where Lightmeter is
killed, the kernel signals its server to shut down, which writes all it has to disk; where no kernel does so, the next
start does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import IO, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from proxy.metering.embedded import bound_child
from proxy.metering.embedded.adopted_child import AdoptedChild
from proxy.metering.embedded.binary import ServerBinaryError, find_server_binary
from proxy.metering.private_folder import make_private_folder, take_back_from_others
from proxy.metering.tasks import end_task

logger = logging.getLogger(__name__)

SOCKET_NAME = "valkey.sock"
APPENDED = "appendonlydir"
"""Where the server keeps its append-only file."""

SOCKET_PATH_LIMIT = 100
"""Bytes: the kernel takes 108 on Linux and 104 on macOS."""

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.02
RESTART_PAUSE_S = 0.5


class EmbeddedStoreError(Exception):
    """The embedded store cannot be had; the message says why and what to do."""


class _State(Enum):
    """What answers at the socket."""

    ABSENT = 0
    LOADING = 1
    READY = 2


class EmbeddedStore:
    """A Valkey server of this process, for as long as the process holds the data folder."""

    def __init__(self, folder: Path, *, server: str | None = None, appendfsync: str = "everysec") -> None:
        """Keep data in ``folder``; ``server`` names the server's binary, see ``server_binary``."""
        self._folder = folder.expanduser().absolute()
        self._server = server
        self._appendfsync = appendfsync
        self._lock: IO[str] | None = None
        self._shortcut: Path | None = None
        self._process: asyncio.subprocess.Process | AdoptedChild | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the server is reached."""
        return f"unix://{self._socket}"

    @property
    def process_id(self) -> int:
        """The server's own, 0 where it does not run."""
        return self._process.pid if self._process else 0

    def find_binary(self) -> str:
        """The path of the program that it would run. It blocks. Raises EmbeddedStoreError."""
        try:
            return find_server_binary(self._server)
        except ServerBinaryError as error:
            raise EmbeddedStoreError(str(error)) from None

    async def start(self) -> None:
        """Take the folder and start the server. Raises EmbeddedStoreError."""
        binary = await asyncio.to_thread(self.find_binary)
        try:
            self._take_folder()
            await self._end_orphan()
            await self._launch(binary)
        except OSError as error:
            await self.stop()
            raise self._unusable(error) from None
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._keep_running(binary))

    async def hand_over(self) -> dict[str, Any]:
        """Leave the server to another program that takes the place of this one in its process; what it has to know."""
        if self._watch is not None:
            await end_task(self._watch)
            self._watch = None
        if self._lock is None:
            raise EmbeddedStoreError("The embedded store does not run.")
        os.set_inheritable(self._lock.fileno(), True)
        shortcut = None if self._shortcut is None else str(self._shortcut)
        return {"process_id": self.process_id, "lock": self._lock.fileno(), "shortcut": shortcut}

    async def take_over(self, handed: Mapping[str, Any]) -> None:
        """Go on with the server that another program has left to this process. Raises EmbeddedStoreError."""
        binary = await asyncio.to_thread(self.find_binary)
        os.set_inheritable(handed["lock"], False)
        self._lock = os.fdopen(handed["lock"], "a+")
        self._shortcut = None if handed["shortcut"] is None else Path(handed["shortcut"])
        self._process = AdoptedChild(handed["process_id"])
        self._watch = asyncio.create_task(self._keep_running(binary))

    async def stop(self) -> None:
        """Stop the server, which writes all it has to disk first, and give the folder back."""
        if self._watch is not None:
            await end_task(self._watch)
            self._watch = None
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                logger.error("the embedded store did not stop within %g seconds and is killed", STOP_TIMEOUT_S)
                process.kill()
                await process.wait()
        if self._shortcut is not None:
            self._shortcut.unlink(missing_ok=True)
            self._shortcut.parent.rmdir()
            self._shortcut = None
        if self._lock is not None:
            # On a full disk, what it could not write is tried once more.
            with contextlib.suppress(OSError):
                self._lock.close()
            self._lock = None

    # --- The folder ---------------------------------------------------------------------------------------------------

    def _take_folder(self) -> None:
        try:
            make_private_folder(self._folder)
            take_back_from_others(self._folder / APPENDED)
            lock = (self._folder / "lock").open("a+")
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise EmbeddedStoreError(
                f"store.url: the data folder {self._folder} is in use by another Lightmeter (process {holder}). "
                "Stop that one, choose another folder, or let both use one Redis: store.url = 'redis://…'."
            ) from None
        self._lock = lock
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        if len(os.fsencode(self._folder / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
            # Not the folder of TMPDIR, which may be just as long.
            self._shortcut = Path(tempfile.mkdtemp(prefix="lightmeter-", dir="/tmp")) / "data"
            self._shortcut.symlink_to(self._folder)

    def _unusable(self, error: OSError) -> EmbeddedStoreError:
        return EmbeddedStoreError(
            f"store.url: the data folder {self._folder} cannot be used: {error.strerror or error}: "
            "name one in store.url that can be written and has room, as embedded:PATH"
        )

    @property
    def _socket(self) -> Path:
        return (self._shortcut or self._folder) / SOCKET_NAME

    # --- The server ---------------------------------------------------------------------------------------------------

    async def _end_orphan(self) -> None:
        if not self._socket.exists():
            return
        client = self._client()
        with contextlib.suppress(RedisError, OSError):
            # Only a server that has loaded all its data can be asked to write it.
            await self._wait_while(_State.LOADING)
            await client.ping()
            logger.warning("the store of a Lightmeter that was killed still runs in %s: stopping it", self._folder)
            await client.shutdown()
        await client.aclose()
        for _ in range(int(STOP_TIMEOUT_S / POLL_S)):
            if await self._state() is _State.ABSENT:
                break
            await asyncio.sleep(POLL_S)
        else:
            raise EmbeddedStoreError(
                f"A store that another Lightmeter left behind in {self._folder} does not stop; see valkey.log there."
            )
        self._socket.unlink(missing_ok=True)

    async def _launch(self, binary: str) -> None:
        log = (self._folder / "valkey.log").open("ab")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                # It ends with this process, also where that is killed: nothing else may hold the folder then.
                *bound_child.command_of(binary),
                *("--port", "0", "--unixsocket", SOCKET_NAME, "--unixsocketperm", "700", "--dir", "."),
                *("--appendonly", "yes", "--appendfsync", self._appendfsync, "--save", ""),
                *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        silent_s = 0.0
        while (state := await self._state()) is not _State.READY:
            if self._process.returncode is not None:
                raise EmbeddedStoreError(self._why_it_ended(self._process.returncode))
            # A large append-only file may take its time to load; a server that says nothing may not.
            silent_s = 0.0 if state is _State.LOADING else silent_s + POLL_S
            if silent_s > START_TIMEOUT_S:
                raise EmbeddedStoreError(
                    f"The embedded store did not come up within {START_TIMEOUT_S:g} seconds; see {log.name}"
                )
            await asyncio.sleep(POLL_S)

    async def _keep_running(self, binary: str) -> None:
        while self._process is not None:
            status = await self._process.wait()
            logger.error("the embedded store ended (%s); starting it again", self._why_it_ended(status))
            try:
                await self._launch(binary)
            except (EmbeddedStoreError, OSError) as error:
                logger.error("the embedded store does not start: %s", error)
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _wait_while(self, state: _State) -> None:
        while await self._state() is state:  # noqa: ASYNC110 - nobody reports a change of another process's state
            await asyncio.sleep(POLL_S)

    async def _state(self) -> _State:
        if not self._socket.exists():
            return _State.ABSENT
        client = self._client()
        try:
            await client.ping()
        except BusyLoadingError:
            return _State.LOADING
        except (RedisError, OSError):
            return _State.ABSENT
        else:
            return _State.READY
        finally:
            await client.aclose()

    def _client(self) -> Redis:
        return Redis(unix_socket_path=str(self._socket), protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=5)

    def _why_it_ended(self, status: int) -> str:
        log = self._folder / "valkey.log"
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        return f"the server of {self._folder} ended with status {status}: {' '.join(last) or 'no word in its log'}"
