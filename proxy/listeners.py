"""The listeners of a process: opened by the settings, and closed with the process's other parts."""

from __future__ import annotations

import errno
from contextlib import AsyncExitStack

from aiohttp import web

from proxy.machine.place import Place
from proxy.settings.mistakes import AddressInUseError, ConfigurationError
from proxy.settings.sections import AdminSettings, ServerSettings
from proxy.settings.settings import Settings
from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import request_ids
from proxy.web.middleware.client_address import ClientAddresses
from proxy.web.middleware.observe import OTHER, Refusals
from proxy.web.server.certificate import Certificate
from proxy.web.server.connection import ConnectionLimits
from proxy.web.server.listener import Listener, why_not
from proxy.web.server.open_connections import OpenConnections
from proxy.web.server.sockets.address import ListenAddress
from proxy.web.server.sockets.opening import Bound, SocketAccess, bind_all, url_of


class Listeners:
    """Opens the listener of each section that has one: ``server`` and ``admin``."""

    def __init__(self, settings: Settings, metrics: Metrics, log: RequestLog, parts: AsyncExitStack) -> None:
        """Nothing is open yet. ``parts`` close whatever is."""
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._parts = parts
        self.opened: list[Listener] = []

    async def open(self, app: web.Application, section: str, max_connections: int, bound: Bound | None = None) -> str:
        """Listen where ``section`` says, or on what is ``bound`` there; the URL. Raises ConfigurationError."""
        given, reuse_port = _section(self._settings, section), self._settings.server.reuse_port
        access = SocketAccess(int(given.socket_mode, 8), given.socket_user, given.socket_group)
        listener = self._make(app, section, max_connections)
        if bound is not None:
            await listener.open_on([each.dup() for each in bound.sockets])
            return url_of(ListenAddress.of(given.listen), bound, tls=given.tls_cert_file is not None)
        try:
            return await listener.listen(ListenAddress.of(given.listen), access, reuse_port=reuse_port)
        except OSError as error:
            setting = f"{section}.listen"
            message = why_not(error, given.listen, setting)
            if error.errno == errno.EADDRINUSE:
                raise AddressInUseError(message, setting, given.listen) from None
            raise ConfigurationError(message) from None

    async def share(self, app: web.Application, max_connections: int, place: Place) -> None:
        """Accept clients from the doors of ``place``, as other workers do."""
        await self._make(app, "server", max_connections).share(place.doors, place.limits)

    async def close_doors(self, *, to_workers: bool) -> None:
        """Listen no more. What waits for a connection is served here, unless it is left ``to_workers`` of this port."""
        for listener in self.opened:
            await listener.close_door(to_workers=to_workers)

    def _make(self, app: web.Application, section: str, max_connections: int) -> Listener:
        server = self._settings.server
        name = "public" if section == "server" else section
        refusals = Refusals(OTHER if section == "server" else section, self._metrics, self._log, request_ids())
        opened = OpenConnections(name, max_connections, self._metrics, refusals.next_id)
        limits = ConnectionLimits(server.keepalive_timeout, server.write_timeout, server.max_header_line)
        listener = Listener(app, opened, limits, refusals, self._certificate_of(section))
        self._parts.push_async_callback(listener.close)
        self.opened.append(listener)
        return listener

    def _certificate_of(self, section: str) -> Certificate | None:
        settings = _section(self._settings, section)
        if settings.tls_cert_file is None:
            return None
        return Certificate(settings.tls_cert_file, settings.tls_key_file)


def clients_of(settings: Settings, section: str) -> ClientAddresses:
    """Whom the listener of this section takes its clients to be."""
    through_unix = bool(ListenAddress.of(_section(settings, section).listen).path)
    return ClientAddresses(settings.server.trusted_proxies, through_unix=through_unix)


async def bind_section(settings: Settings, section: str) -> Bound:
    """Listen where ``section`` says, with nobody who accepts yet. Raises ConfigurationError."""
    given, reuse_port = _section(settings, section), settings.server.reuse_port
    access = SocketAccess(int(given.socket_mode, 8), given.socket_user, given.socket_group)
    try:
        return await bind_all(ListenAddress.of(given.listen), access, reuse_port=reuse_port)
    except OSError as error:
        raise ConfigurationError(why_not(error, given.listen, f"{section}.listen")) from None


def _section(settings: Settings, name: str) -> ServerSettings | AdminSettings:
    return settings.server if name == "server" else settings.admin
