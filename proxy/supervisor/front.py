"""What a supervisor has itself: the store, the admin listener, and the sockets that its workers accept clients from."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from prometheus_client import PLATFORM_COLLECTOR, CollectorRegistry, generate_latest

from proxy.admin_side import AdminSide
from proxy.app import public_routes
from proxy.domain.money import Money
from proxy.listeners import Listeners, bind_section, clients_of
from proxy.machine.limits import Board
from proxy.machine.segment import Segment
from proxy.metering.accounts.registry import KeyRegistry
from proxy.metering.redis.runner import ScriptRunner
from proxy.settings.settings import Settings
from proxy.store_side import embedded_store, open_store
from proxy.supervisor.operations import WorkersRoutes
from proxy.telemetry.logs import RequestLog, standard_error
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.telemetry.shared.processes import ProcessesCollector
from proxy.telemetry.shared.totals import Gone, TotalsCollector
from proxy.telemetry.shared.values import SharedNumbers
from proxy.telemetry.tallies import Families
from proxy.upstream.pool import Pool
from proxy.web.server.descriptors import connection_caps, raise_descriptor_limit
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


class WorkerFigures:
    """How the workers themselves do."""

    def __init__(self, own: Segment) -> None:
        """Keep it in ``own``."""
        make = Families("lightmeter_", SharedNumbers(own))
        self._ready = make.gauge("workers_ready", "Workers that serve, and go on to")
        self._wanted = make.gauge("workers_wanted", "How many there should be")
        self._deaths = make.counter("worker_deaths", "Workers that ended although they should not")

    def died(self) -> None:
        """One has."""
        self._deaths.values[()] += 1

    def show(self, *, ready: int, wanted: int) -> None:
        """What there is at this scrape."""
        self._ready.values[()], self._wanted.values[()] = ready, wanted


class Front:
    """The supervisor's own side of the gateway."""

    runner: ScriptRunner
    metrics: Metrics
    workers: WorkerFigures
    _admin: AdminSide

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        """Nothing runs yet."""
        self._settings = settings
        self._environment = environment
        self._parts = AsyncExitStack()
        self._store = embedded_store(settings)
        self._money = Money(settings.accounting.units_per_usd)
        self.board = Board(Segment.create())
        self.figures = Figures(Gone(Segment.create()), Segment.create())
        self.doors = self._admin_doors = Bound(())
        self.store_url = ""
        self.public_address = ""
        self.admin_address = ""

    @staticmethod
    def rehearse(settings: Settings, environment: Mapping[str, str]) -> None:
        """Try what ``start`` could fail with where all places are handed over; it blocks.

        Raises ConfigurationError or EmbeddedStoreError.
        """
        store = embedded_store(settings)
        if store is not None:
            store.find_binary()
        AdminSide(settings, environment, Money(settings.accounting.units_per_usd), clients_of(settings, "admin"))

    async def start(self, operations: WorkersRoutes, handed: Mapping[str, Any] | None = None) -> None:
        """Start all of it, or go on with what another program has ``handed`` over to this process.

        Raises ConfigurationError or EmbeddedStoreError, and leaves nothing running then.
        """
        try:
            await self._start(operations, handed)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop all of it; what waits at the doors is lost."""
        self.close_doors()
        self._admin_doors.close()
        await self._parts.aclose()
        if self._store is not None:
            await self._store.stop()

    async def hand_over(self) -> dict[str, Any]:
        """End what cannot outlive this program; what the next one in this process has to know of the rest."""
        await self._parts.aclose()
        self.figures.gone.add(self.figures.own)
        for segment in (self.figures.gone.segment, self.board.segment):
            os.set_inheritable(segment.descriptor, True)
        return {
            "store": None if self._store is None else await self._store.hand_over(),
            "doors": self.doors.hand_over(),
            "admin_doors": self._admin_doors.hand_over(),
            "gone": self.figures.gone.segment.descriptor,
            "gone_cpu_s": self.figures.processes.gone_cpu_s,
            "board": self.board.segment.descriptor,
        }

    def reload(self, settings: Settings) -> None:
        """Tell of the models of ``settings`` from now on."""
        accounting = {"accounting": self._settings.accounting}
        self._admin.catalog.replace(settings.model_copy(update=accounting).catalog())

    def close_doors(self) -> None:
        """Listen no more, for its own part."""
        self.doors.close()

    async def _start(self, operations: WorkersRoutes, handed: Mapping[str, Any] | None) -> None:
        settings, parts = self._settings, self._parts
        KNOWN_SECRETS.add(settings.secret_texts(self._environment))
        admin = self._admin = AdminSide(settings, self._environment, self._money, clients_of(settings, "admin"))
        await self._take_places(handed)
        metrics = self.metrics = Metrics(money=self._money, keeper=SharedNumbers(self.figures.own))
        self.workers = WorkerFigures(self.figures.own)
        side = open_store(settings, self.store_url, metrics, parts)
        self.runner = side.runner
        server = settings.server
        self.public_address = url_of(ListenAddress.of(server.listen), self.doors, tls=server.tls_cert_file is not None)
        log = RequestLog(standard_error() if settings.logs.requests else None)
        parts.callback(log.flush)
        caps = connection_caps(raise_descriptor_limit(), settings.server.max_connections)
        listeners = Listeners(settings, metrics, log, parts)
        self.admin_address = await admin.open(side, operations, listeners, caps.admin, parts, self._admin_doors)
        # It asks nobody: the routes are only described here.
        described = Pool((), (), metrics)
        parts.push_async_callback(described.close)
        admin.describe(
            public_routes(
                settings,
                described,
                settings.catalog(),
                side.store,
                KeyRegistry(side.runner, side.redis_pool, side.store),
            ),
            self.public_address,
        )

    async def _take_places(self, handed: Mapping[str, Any] | None) -> None:
        """The store and the sockets, of which there is one each, whichever program this process runs."""
        settings, store = self._settings, self._store
        if handed is None:
            if store is not None:
                await store.start()
            self.doors = await bind_section(settings, "server")
            self._admin_doors = await bind_section(settings, "admin")
        else:
            self.doors, self._admin_doors = Bound.again(handed["doors"]), Bound.again(handed["admin_doors"])
            self.board = Board(_not_inherited(handed["board"]))
            self.figures = Figures(Gone(_not_inherited(handed["gone"])), Segment.create())
            self.figures.processes.gone_cpu_s = handed["gone_cpu_s"]
            if store is not None:
                await store.take_over(handed["store"])
        self.store_url = settings.store.url if store is None else store.url


def _not_inherited(descriptor: int) -> Segment:
    os.set_inheritable(descriptor, False)
    return Segment(descriptor)
