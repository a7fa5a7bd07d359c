"""The composition root: what is made of what, in which order it starts, and in which it stops."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from time import time
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.admin_side import AdminSide, text_limits
from proxy.alerts.alerts import Alerts
from proxy.alerts.marks import Marks
from proxy.domain.catalog import Catalog
from proxy.domain.money import Money
from proxy.domain.people import People, Users
from proxy.domain.requests.chat import parse_chat_request
from proxy.domain.requests.edit import IMAGES_LIMIT, parse_edit_request
from proxy.domain.requests.image import Task, parse_image_request
from proxy.listeners import Listeners, clients_of
from proxy.machine.place import Place
from proxy.metering.accounts.figures import FigureWriter
from proxy.metering.accounts.registry import KeyRegistry, TeamRegistry
from proxy.metering.accounts.team_figures import TeamFigures
from proxy.metering.journal.journal import Journal, JournalError
from proxy.metering.journal.tasks import TaskJournal
from proxy.metering.meter import Meter
from proxy.metering.redis_store.store import RedisStore
from proxy.metering.store import Store
from proxy.metering.traced_store import TracedStore
from proxy.settings.checking.folders import tell_unwritable
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import JOURNAL_FOLDER, Settings
from proxy.store_side import StoreSide, open_store, start_embedded_store
from proxy.telemetry.log_writer import LogWriter
from proxy.telemetry.logs import RequestLog, standard_error
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import request_ids
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.telemetry.shared.values import SharedNumbers
from proxy.upstream.pool import Pool
from proxy.web.console.first_image import FirstImage
from proxy.web.console.key_page import add_key_page
from proxy.web.intake.body_memory import BodyMemory
from proxy.web.intake.body_pieces import Patience
from proxy.web.intake.form_reader import FormLimits
from proxy.web.intake.request_body import BodyLimits
from proxy.web.intake.spool import Spools
from proxy.web.intake.uploads import UploadLimits
from proxy.web.middleware.cors import Cors
from proxy.web.middleware.errors import errors
from proxy.web.middleware.metering import Endpoint, RequestReader, metering
from proxy.web.middleware.observe import observe
from proxy.web.pending_tasks import PendingTasks
from proxy.web.public.images import CHAT, EDITS, GENERATIONS, VARIATIONS, ImageRoutes
from proxy.web.public.key import KeyRoutes
from proxy.web.public.models import ModelRoutes
from proxy.web.relay import RelayLimits
from proxy.web.server.descriptors import connection_caps, raise_descriptor_limit
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.operations import OperationRoutes
from proxy.web.server.readiness import Readiness, health
from proxy.web.server.routes import Route, add_routes

if TYPE_CHECKING:
    from proxy.telemetry.traces import Traces

logger = logging.getLogger(__name__)

LAST_TRACES_S = 3.0
"""How long the collector may take at the end for the spans that it has not been sent; after that they are lost."""

LAST_SETTLEMENTS_S = 3.0
"""How long the store may take at the end for what it has not taken before; after that it stays in the journal."""

KEY_SHARE = 4
"""One key may have a fourth of the disk for uploads, or one upload of the largest size."""

ENDPOINTS: Mapping[str, Endpoint] = {
    GENERATIONS: Endpoint(parse_image_request),
    EDITS: Endpoint(parse_edit_request, Task.EDIT),
    VARIATIONS: Endpoint(form=Task.VARIATION),
    CHAT: Endpoint(parse_chat_request),
}


class Gateway:
    """One process that serves clients: a public listener and, where it is no worker, store and admin listener."""

    metrics: Metrics
    readiness: Readiness
    _admin: AdminSide
    _listeners: Listeners
    _catalog: Catalog
    _pool: Pool

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str] = os.environ,
        *,
        log_writer: LogWriter | None = None,
        place: Place | None = None,
    ) -> None:
        """Nothing runs yet. Requests are logged by ``log_writer``, on standard error where there is none.

        A worker has a ``place`` at its supervisor, which has the store and the admin listener.
        """
        self._settings = settings
        self._place = place
        self._money = Money(settings.accounting.units_per_usd)
        self._environment = environment
        self._log_writer = log_writer or standard_error()
        self._parts = AsyncExitStack()
        self._public_routes: list[Route] = []
        self.lifecycle = Lifecycle()
        self.public_address = ""
        self.admin_address = ""
        self.store_url = ""
        self.admin_token = ""

    async def start(self) -> None:
        """Start everything. Raises ConfigurationError or EmbeddedStoreError, and leaves nothing running then."""
        try:
            await self._start()
        except BaseException:
            await self._parts.aclose()
            raise

    async def stop(self) -> None:
        """Finish what is in flight, for as long as ``drain_seconds``, then stop everything."""
        await self.drain(leaving=self._settings.server.reuse_port)
        await self.close()

    async def drain(self, *, leaving: bool, to_workers: bool = False) -> None:
        """Finish what is in flight, for as long as ``drain_seconds``.

        Where it is ``leaving``, others take what comes: ``to_workers`` of the same port, or another gateway. Else new
        requests are refused, until ``close``.
        """
        drain_s = self._settings.server.drain_seconds
        if leaving:
            # Whoever shares the port takes what comes from now on.
            self.lifecycle.leaving = True
            await self._listeners.close_doors(to_workers=to_workers)
            drain_s -= await self.lifecycle.until_quiet(drain_s)
        broken_off = await self.lifecycle.drain(drain_s)
        if broken_off:
            logger.error("%d requests did not end within %g seconds and were broken off", broken_off, drain_s)

    async def close(self) -> None:
        """Stop everything, whatever is in flight."""
        await self._parts.aclose()

    def sign_in_link(self, *, for_s: int) -> str:
        """An address of the console that signs in as the gateway's own token, once, within ``for_s``."""
        return self.admin_address + self._admin.sign_in_path(for_s=for_s)

    def show_first_image(self, image: FirstImage) -> None:
        """Let the console's overview show it, to who looks at a gateway for the first time."""
        self._admin.show_first_image(image)

    def reload(self, settings: Settings) -> None:
        """Offer the models of ``settings``, made at its providers, from the next request on.

        What is in flight ends as it began. All other settings are those of the start; which of them differ is logged.
        """
        KNOWN_SECRETS.add(settings.secret_texts(self._environment))
        providers = settings.provider_list(self._environment)
        catalog = settings.model_copy(update={"accounting": self._settings.accounting}).catalog()
        self._pool.replace(providers, catalog.all())
        self._catalog.replace(catalog)
        if self._place is None:
            self._admin.catalog.replace(catalog)
        logger.info("the configuration was read again: %d models, %d providers", len(settings.models), len(providers))
        _warn(settings)
        for section in self._settings.changed_sections(settings):
            logger.warning("[%s] has changed, which takes a restart: what it was at the start stays in force", section)

    async def _start(self) -> None:
        settings, parts = self._settings, self._parts
        KNOWN_SECRETS.add(settings.secret_texts(self._environment))
        place = self._place
        if place is None:
            self._admin = AdminSide(settings, self._environment, self._money, clients_of(settings, "admin"))
            self.admin_token = self._admin.token
            self.store_url = await start_embedded_store(settings, parts)
        else:
            self.store_url = place.store_url
        traces = self._start_traces()
        keeper = None if place is None else SharedNumbers(place.segment)
        metrics = self.metrics = Metrics(label_teams=settings.metrics.label_teams, money=self._money, keeper=keeper)
        side = open_store(settings, self.store_url, metrics, parts)
        meter = await self._start_meter(side.store, metrics, traces)
        catalog = self._catalog = settings.catalog()
        _warn(settings)
        pool = self._pool = self._make_pool(catalog, metrics, traces)
        parts.push_async_callback(pool.close)
        await self._settle_pending_tasks(meter, pool)
        log = RequestLog(self._log_writer if settings.logs.requests else None)
        metrics.before_render(lambda: metrics.log_lines_dropped(self._log_writer.dropped_lines))
        parts.callback(log.flush)

        outermost = () if traces is None else (traces.middleware(),)
        self.readiness = Readiness(self.lifecycle, meter, side.runner)
        if settings.server.health_path is not None:
            outermost = (health(settings.server.health_path, self.readiness), *outermost)
        public = self._public_app(
            meter, catalog, pool, metrics, log, outermost, KeyRegistry(side.runner, side.redis_pool, side.store)
        )
        side.store.folding.start()
        parts.push_async_callback(side.store.folding.stop)
        await self._keep_figures(side, metrics)
        self._start_alerts(side)
        operations = OperationRoutes(self.lifecycle, self.readiness, metrics)
        descriptors = raise_descriptor_limit()
        caps = connection_caps(descriptors, settings.server.max_connections)
        logger.info(
            "%d descriptors: at most %d connections of clients, and %d of the admin listener", descriptors, *caps
        )
        listeners = self._listeners = Listeners(settings, metrics, log, parts)
        if place is not None:
            most = caps.public if settings.server.max_connections is None else place.share_of(caps.public)
            await listeners.share(public, most, place)
        else:
            self.public_address = await listeners.open(public, "server", caps.public)
            self.admin_address = await self._admin.open(side, operations, listeners, caps.admin, parts)
            self._admin.describe(self._public_routes, self.public_address)
        if not await side.runner.ping():
            logger.error("the store at store.url does not answer; requests get 503 until it does")

    async def _keep_figures(self, side: StoreSide, metrics: Metrics) -> None:
        """Read teams' quotas for the metrics, and add up what people look at in the console."""
        if metrics.teams is not None:
            teams = TeamRegistry(side.runner, side.redis_pool, side.store)
            figures = TeamFigures(teams, metrics.teams, refresh_s=self._settings.metrics.team_refresh_seconds)
            self._parts.push_async_callback(figures.stop)
            await figures.start()
        writer = FigureWriter(side.redis_pool, metrics.totals)
        self._parts.push_async_callback(writer.stop)
        writer.start()

    async def _start_meter(self, store: RedisStore, metrics: Metrics, traces: Traces | None) -> Meter:
        settings, accounting = self._settings, self._settings.accounting
        journal = Journal(settings.data_folder / JOURNAL_FOLDER, metrics, store_url=settings.journal_store)
        meter = Meter(
            *(store if traces is None else TracedStore(store, traces), journal, metrics),
            lease_ms=accounting.lease_seconds * 1000,
            answer_bytes=accounting.idempotency_answer_bytes,
            tasks=TaskJournal(settings.data_folder / JOURNAL_FOLDER, store_url=settings.journal_store),
        )
        self._parts.push_async_callback(meter.close, LAST_SETTLEMENTS_S)
        try:
            await meter.start()
        except JournalError as error:
            raise ConfigurationError(str(error)) from None
        return meter

    async def _settle_pending_tasks(self, meter: Meter, pool: Pool) -> None:
        """Follow what processes that are gone have left at their providers, for as long as this one lives."""
        accounting = self._settings.accounting
        pending = PendingTasks(
            meter, pool, cancels=accounting.client_gone == "cancel", charges_lost=accounting.expired == "charge"
        )
        self._parts.push_async_callback(pending.stop)
        await pending.start()

    def _public_app(
        self,
        meter: Meter,
        catalog: Catalog,
        pool: Pool,
        metrics: Metrics,
        log: RequestLog,
        outermost: Iterable[Middleware],
        keys: KeyRegistry,
    ) -> web.Application:
        server = self._settings.server
        cors = Cors(server.cors_origins) if server.cors_origins else None
        app = web.Application(
            middlewares=[
                *outermost,
                observe(self.lifecycle, metrics, log, request_ids(), clients_of(self._settings, "server")),
                errors(self.lifecycle),
                *(() if cors is None else (cors.middleware(),)),
                metering(
                    meter,
                    catalog,
                    ENDPOINTS,
                    self._reader(),
                    by_delivered_size=self._settings.accounting.tier == "delivered",
                    people=people_of(self._settings),
                ),
            ]
        )
        if cors is not None:
            cors.add_to(app)
        if server.reuse_port or self._place is not None:
            app.on_response_prepare.append(self._close_while_leaving)
        self._public_routes = public_routes(self._settings, pool, catalog, meter.store, keys)
        add_routes(app, self._public_routes)
        if server.key_page:
            add_key_page(app)
        return app

    async def _close_while_leaving(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.lifecycle.leaving:
            # aiohttp has chosen the header by now.
            response.force_close()
            response.headers["Connection"] = "close"

    def _make_pool(self, catalog: Catalog, metrics: Metrics, traces: Traces | None) -> Pool:
        providers = self._settings.provider_list(self._environment)
        shows_tokens = self._settings.server.usage == "tokens"
        limits = None if self._place is None else self._place.limits
        return Pool(
            providers,
            catalog.all(),
            metrics,
            traces=traces,
            shows_tokens=shows_tokens,
            limits=limits,
        )

    def _reader(self) -> RequestReader:
        server, texts = self._settings.server, text_limits(self._settings)
        limits = BodyLimits(max_body_bytes=server.max_body, body_timeout_s=server.body_timeout)
        limits_of_all = None if self._place is None else self._place.limits
        memory = BodyMemory(
            server.max_body_memory,
            max_body_bytes=server.max_body,
            shared=None if limits_of_all is None else limits_of_all.count("body memory"),
        )
        spools = Spools(
            self._settings.upload_folder,
            max_disk_bytes=server.max_upload_disk,
            max_key_bytes=max(server.max_upload_disk // KEY_SHARE, server.max_upload),
            shared=None if limits_of_all is None else limits_of_all.count("upload disk"),
        )
        self._parts.callback(spools.close)
        try:
            spools.prepare()
        except OSError as error:
            raise ConfigurationError(
                tell_unwritable("server.upload_folder", spools.folder, error.strerror or str(error))
            ) from None
        self.metrics.before_render(lambda: self.metrics.uploads(spools.disk_bytes, memory.held_bytes))
        form = FormLimits(
            max_files=IMAGES_LIMIT + 2, max_file_bytes=server.max_upload_file, max_text_bytes=texts.max_body_bytes
        )
        patience = Patience(server.upload_timeout, server.body_timeout, server.min_upload_rate)
        return RequestReader(limits, UploadLimits(form, server.max_upload, patience), spools, memory, self._catalog)

    def _start_alerts(self, side: StoreSide) -> None:
        given = self._settings.alerts
        if not given:
            return
        rules = [each.rule(self._environment) for each in given]
        marks = side.metrics.marks = Marks()
        registries = (
            KeyRegistry(side.runner, side.redis_pool, side.store),
            TeamRegistry(side.runner, side.redis_pool, side.store),
        )
        alerts = Alerts(rules, marks, *registries, side.redis_pool, side.metrics.refused_accounts)
        self._parts.push_async_callback(alerts.stop)
        alerts.start()

    def _start_traces(self) -> Traces | None:
        given = self._settings.traces
        if not given.enabled:
            return None
        from proxy.telemetry.traces import Traces  # noqa: PLC0415 - who does not trace need not have the library

        traces = Traces(endpoint=given.endpoint, sample_ratio=given.sample_ratio, service_name=given.service_name)
        self._parts.push_async_callback(traces.close, LAST_TRACES_S)
        return traces


def public_routes(settings: Settings, pool: Pool, catalog: Catalog, store: Store, keys: KeyRegistry) -> list[Route]:
    """Every route of the public listener."""
    server, money = settings.server, Money(settings.accounting.units_per_usd)
    images = ImageRoutes(
        pool,
        RelayLimits(
            write_timeout_s=server.write_timeout,
            keep_alive_s=server.stream_keepalive_seconds,
            json_keep_alive_s=server.json_keepalive_seconds,
            overage_images=settings.accounting.overage_images,
        ),
        finish_for_nobody=settings.accounting.client_gone == "finish",
    )
    own_key = KeyRoutes(store, keys, people_of(settings), money)
    return [*images.routes(), *ModelRoutes(store, catalog, money).routes(), *own_key.routes()]


def people_of(settings: Settings) -> People:
    """How requests say whom they are for, and how that is recorded."""
    return People(Users(settings.accounting.users), settings.server.user_header)


def _warn(settings: Settings) -> None:
    for warning in settings.warnings(time()):
        logger.warning("%s", warning)
