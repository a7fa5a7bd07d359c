"""A listening port: how it is opened, and how it is given up so that a process that shares it loses no connection."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

BACKLOG = 4_096
READ_BUFFER_BYTES = 65_536
LINGERING_S = 1.0
"""How long a refused upload may go on before its connection is closed: time enough to read the refusal."""

ACCEPT_LIMIT = 100_000


class Listener:
    """One aiohttp application on one address."""

    def __init__(self, app: web.Application, *, keepalive_s: float) -> None:
        """Serve ``app``, and close a connection that is silent for ``keepalive_s`` seconds."""
        self._keepalive_s = keepalive_s
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=keepalive_s,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            shutdown_timeout=1.0,
            lingering_time=LINGERING_S,
        )
        self._sites: list[web.SockSite] = []
        self._doors: list[socket.socket] = []

    async def open(self, host: str, port: int, *, reuse_port: bool) -> str:
        """Listen; the URL. With ``reuse_port`` other processes may listen there as well. Raises OSError."""
        await self._runner.setup()
        server = self._runner.server
        # aiohttp drops all of its keywords, with a mere warning, where one of them is mistyped. A client that leaves
        # must not cancel its request: the task is the application's own, and settles.
        if server is None or server().keepalive_timeout != self._keepalive_s or server.handler_cancellation:
            raise RuntimeError("aiohttp did not take the listener's settings")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _kind, _protocol, _name, address in dict.fromkeys(found):
            site = web.SockSite(self._runner, self._bind(family, address, reuse_port=reuse_port), backlog=BACKLOG)
            await site.start()
            self._sites.append(site)
        bound_host, bound_port = self._runner.addresses[0][:2]
        return f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

    async def close_door(self) -> None:
        """Listen no more, and serve every connection that has come until now.

        The kernel hands out new connections among all that listen, and drops those that a closed socket has not taken
        yet. So the last of them are taken here, and the socket is closed in the same breath.
        """
        loop, server = asyncio.get_running_loop(), self._runner.server
        for site in self._sites:
            await site.stop()
        doors, self._doors = self._doors, []
        for door in doors:
            taken = _take_all(door)
            door.close()
            for connection in taken:
                await loop.connect_accepted_socket(server, connection)  # type: ignore[arg-type]

    async def close(self) -> None:
        """Close every connection."""
        for door in self._doors:
            door.close()
        await self._runner.cleanup()

    def _bind(self, family: int, address: tuple[object, ...], *, reuse_port: bool) -> socket.socket:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
        if reuse_port:
            # The event loop closes what it is given before the last connections could be taken.
            self._doors.append(listening.dup())
        return listening


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
