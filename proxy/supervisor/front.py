"""What a supervisor has itself: the store, the admin listener, and the sockets that its workers accept clients from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack

from prometheus_client import PLATFORM_COLLECTOR, CollectorRegistry, generate_latest

from proxy.admin_side import AdminSide
from proxy.app import public_routes
from proxy.domain.money import Money
from proxy.listeners import Listeners, bind_section, clients_of
from proxy.machine.limits import Board
from proxy.machine.segment import Segment
from proxy.metering.redis.runner import ScriptRunner
from proxy.settings.settings import Settings
from proxy.store_side import open_store, start_embedded_store
from proxy.telemetry.logs import RequestLog, standard_error
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.telemetry.shared.processes import ProcessesCollector
from proxy.telemetry.shared.totals import Gone, TotalsCollector
from proxy.telemetry.shared.values import SharedNumbers
from proxy.upstream.pool import Pool
from proxy.web.server.descriptors import connection_caps, raise_descriptor_limit
from proxy.web.server.routes import Route
from proxy.web.server.sockets.address import ListenAddress
from proxy.web.server.sockets.opening import Bound, url_of

logger = logging.getLogger(__name__)


class Figures:
    """The metrics of all processes as one."""

    def __init__(self, gone: Gone, own: Segment) -> None:
        """Those of this process are in ``own``."""
        self.gone = gone
        self.own = own
        self.processes = ProcessesCollector()
        self._totals = TotalsCollector()
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in (self.processes, PLATFORM_COLLECTOR, self._totals):
            self._registry.register(collector)

    def render(self, workers: Iterable[Segment], process_ids: Iterable[int]) -> bytes:
        """Prometheus's text format, with what ``workers`` have in their memory."""
        self.processes.process_ids = [*process_ids]
        self._totals.segments = [*workers, self.own, self.gone.segment]
        return generate_latest(self._registry)


class Front:
    """The supervisor's own side of the gateway."""

    runner: ScriptRunner
    metrics: Metrics

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        """Nothing runs yet."""
        self._settings = settings
        self._environment = environment
        self._parts = AsyncExitStack()
        self._money = Money(settings.accounting.units_per_usd)
        self.board = Board(Segment.create())
        self.figures = Figures(Gone(Segment.create()), Segment.create())
        self.doors = Bound(())
        self.store_url = ""
        self.public_address = ""
        self.admin_address = ""

    async def start(self, operations: Iterable[Route]) -> None:
        """Start all of it. Raises ConfigurationError or EmbeddedStoreError, and leaves nothing running then."""
        try:
            await self._start(operations)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop all of it; what waits at the doors is lost."""
        self.close_doors()
        await self._parts.aclose()

    def close_doors(self) -> None:
        """Listen no more, for its own part."""
        self.doors.close()

    async def _start(self, operations: Iterable[Route]) -> None:
        settings, parts = self._settings, self._parts
        KNOWN_SECRETS.add(settings.secret_texts(self._environment))
        admin = AdminSide(settings, self._environment, self._money, clients_of(settings, "admin"))
        self.store_url = await start_embedded_store(settings, parts)
        metrics = self.metrics = Metrics(money=self._money, keeper=SharedNumbers(self.figures.own))
        side = open_store(settings, self.store_url, metrics, parts)
        self.runner = side.runner
        self.doors = await bind_section(settings, "server")
        server = settings.server
        self.public_address = url_of(ListenAddress.of(server.listen), self.doors, tls=server.tls_cert_file is not None)
        log = RequestLog(standard_error() if settings.logs.requests else None)
        parts.callback(log.flush)
        caps = connection_caps(raise_descriptor_limit(), settings.server.max_connections)
        listeners = Listeners(settings, metrics, log, parts)
        self.admin_address = await admin.open(side, operations, listeners, caps.admin, parts)
        # It asks nobody: the routes are only described here.
        described = Pool((), (), metrics)
        parts.push_async_callback(described.close)
        admin.describe(public_routes(settings, described, settings.catalog(), side.store), self.public_address)
