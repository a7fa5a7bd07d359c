"""A listening port: how it is opened, and how it is given up so that a process that shares it loses no connection."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from aiohttp import web

from proxy.web.server.certificate import HANDSHAKE_TIMEOUT_S, Certificate
from proxy.web.server.connection import Connection, ConnectionLimits, Refuse
from proxy.web.server.open_connections import OpenConnections
from proxy.web.server.request_factory import request_factory
from proxy.web.server.routes import straight
from proxy.web.server.sockets.address import UNIX, ListenAddress
from proxy.web.server.sockets.opening import BACKLOG, SocketAccess, UnixSocketFile, ip_sockets, look_up

ACCEPT_LIMIT = 100_000
DEFERENCE_S = 0.002
"""How long a connection is left to processes that have fewer."""

RETRY_ACCEPT_S = 1.0

logger = logging.getLogger(__name__)


class Share(Protocol):
    """What processes on one socket tell each other."""

    def accepts(self, *, accepting: bool) -> None:
        """Whether this process takes new connections."""

    def has_more_connections(self, own: int) -> bool:
        """Whether this process, with ``own``, has more than another that takes new ones."""


class Listener:
    """One aiohttp application on one address."""

    def __init__(
        self,
        app: web.Application,
        opened: OpenConnections,
        limits: ConnectionLimits,
        refuse: Refuse,
        certificate: Certificate | None = None,
    ) -> None:
        """Serve ``app`` on connections within ``limits``, which are counted in ``opened``.

        ``refuse`` answers what never becomes a request of ``app``. With a ``certificate``, TLS is spoken.
        """
        self._certificate = certificate
        self._tls: dict[str, Any] = {}
        if certificate is not None:
            self._tls = {"ssl": certificate.context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S}
        self._app = app
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._opened = opened
        self._limits = limits
        self._refuse = refuse
        self._servers: list[asyncio.Server] = []
        self._doors: list[socket.socket] = []
        self._file: UnixSocketFile | None = None
        self._share: Share | None = None
        self._connecting: set[asyncio.Task[Any]] = set()

    async def listen(self, address: ListenAddress, access: SocketAccess, *, reuse_port: bool) -> str:
        """Listen at ``address``; the URL. ``access`` is to a Unix socket. Raises OSError.

        With ``reuse_port`` other processes may listen there as well; a Unix socket takes the place of theirs.
        """
        if not address.path:
            return await self.open(address.host, address.port, reuse_port=reuse_port)
        await self._set_up()
        self._file = UnixSocketFile(address.path)
        await self._serve(self._file.bind(access, replace=reuse_port), keeps_door=reuse_port)
        if self._certificate is not None:
            self._certificate.start()
        return f"{UNIX}{address.path}"

    async def open(self, host: str, port: int, *, reuse_port: bool) -> str:
        """Listen; the URL. With ``reuse_port`` other processes may listen there as well. Raises OSError."""
        await self._set_up()
        for listening in ip_sockets(await look_up(host, port), reuse_port=reuse_port):
            await self._serve(listening, keeps_door=reuse_port)
        if self._certificate is not None:
            self._certificate.start()
        bound_host, bound_port = self._servers[0].sockets[0].getsockname()[:2]
        return f"http{'s' if self._tls else ''}://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

    async def open_on(self, bound: Iterable[socket.socket]) -> None:
        """Listen on sockets that are bound. Raises OSError."""
        await self._set_up()
        for listening in bound:
            await self._serve(listening, keeps_door=False)
        if self._certificate is not None:
            self._certificate.start()

    async def share(self, doors: Sequence[socket.socket], share: Share) -> None:
        """Accept from ``doors``, on which other processes listen as well, this one's part of the clients."""
        await self._set_up()
        self._share = share
        share.accepts(accepting=True)
        for door in doors:
            door.setblocking(False)
            self._doors.append(door)
            asyncio.get_running_loop().add_reader(door, self._accept, door, False)
        if self._certificate is not None:
            self._certificate.start()

    async def _set_up(self) -> None:
        await self._runner.setup()
        server = self._runner.server
        # A client that leaves must not cancel its request: the task is the application's own, and settles.
        if server is None or server.handler_cancellation:
            raise RuntimeError("aiohttp did not take the listener's settings")
        # Now, and not with the first client: aiohttp may have other settings one day.
        self._connect()
        server.request_factory = request_factory(server.request_factory)
        server.request_handler = straight(self._app, server.request_handler)

    async def _serve(self, listening: socket.socket, *, keeps_door: bool) -> None:
        """Accept connections at ``listening``, which is bound."""
        if keeps_door:
            # The event loop closes what it is given before the last connections could be taken.
            self._doors.append(listening.dup())
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        # Known before it is waited for: an opening that is cancelled leaves nothing that ``close`` does not find.
        accepting = await create(self._connect, sock=listening, backlog=BACKLOG, start_serving=False, **self._tls)
        self._servers.append(accepting)
        await accepting.start_serving()

    def _accept(self, door: socket.socket, has_waited: bool) -> None:
        """Take one connection, unless another process has fewer: that one has a moment to take it first.

        The event loop itself would take all that wait at once, and every process is woken by each.
        """
        loop = asyncio.get_running_loop()
        if self._share is None:
            return
        if not has_waited and self._share.has_more_connections(len(self._opened)):
            loop.remove_reader(door)
            loop.call_later(DEFERENCE_S, self._accept, door, True)
            return
        try:
            connection, _ = door.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another process was faster, or the client has gone.
            pass
        except OSError as error:
            logger.error("a connection cannot be accepted: %s", error.strerror or error)
            loop.remove_reader(door)
            loop.call_later(RETRY_ACCEPT_S, self._accept, door, True)
            return
        else:
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(self._connect, connection, **self._tls))
            self._connecting.add(task)
            task.add_done_callback(self._connected)
        if has_waited:
            loop.add_reader(door, self._accept, door, False)

    def _connected(self, task: asyncio.Task[Any]) -> None:
        self._connecting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # As asyncio does: a client's handshake of TLS that fails is not the gateway's.
            logger.debug("a connection could not be made", exc_info=task.exception())

    async def close_door(self, *, to_workers: bool = False) -> None:
        """Listen no more, and serve every connection that has come until now, unless they are left ``to_workers``.

        The kernel hands out new connections among all that listen, and drops those that a closed socket has not taken
        yet. So the last of them are taken here, and the socket is closed in the same breath.
        """
        loop = asyncio.get_running_loop()
        self._stop_listening()
        if self._connecting:
            await asyncio.wait(self._connecting)
        taken: deque[socket.socket] = deque()
        while self._doors:
            door = self._doors.pop()
            if not to_workers:
                taken += _take_all(door)
            door.close()
        try:
            while taken:
                await loop.connect_accepted_socket(self._connect, taken.popleft(), **self._tls)
        finally:
            # Where this is cancelled: a client that is told so asks another process.
            for connection in taken:
                connection.close()

    async def close(self) -> None:
        """Close every connection."""
        self._stop_listening()
        if self._certificate is not None:
            await self._certificate.stop()
        for door in self._doors:
            door.close()
        await self._runner.cleanup()

    def _stop_listening(self) -> None:
        if self._file is not None:
            self._file.remove()
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._share is not None:
            self._share.accepts(accepting=False)
            self._share = None
            for door in self._doors:
                asyncio.get_running_loop().remove_reader(door)

    def _connect(self) -> Connection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the listener is closed")
        return Connection(server, self._opened, self._limits, self._refuse)


def _take_all(door: socket.socket) -> list[socket.socket]:
    door.setblocking(False)
    taken: list[socket.socket] = []
    while len(taken) < ACCEPT_LIMIT:
        try:
            connection, _ = door.accept()
        except OSError:
            break
        connection.setblocking(False)
        taken.append(connection)
    return taken


def why_not(error: OSError, address: str, setting: str) -> str:
    """Why nothing can listen on ``address``, which is what ``setting`` says."""
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: {address} is in use: stop what listens there, or " + (
            "choose another path" if address.startswith(UNIX) else "choose another port (port 0 takes a free one)"
        )
    why = error.strerror or str(error)
    if error.errno == errno.ENOENT and address.startswith(UNIX):
        why += ": make its folder, which this process may write to"
    elif error.errno == errno.EADDRNOTAVAIL:
        why += ": no interface of this machine has that address; 0.0.0.0 is all of IPv4, [::] all of IPv6 and IPv4"
    return f"{setting}: cannot listen on {address}: {why}"
