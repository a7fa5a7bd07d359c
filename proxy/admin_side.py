"""The admin listener's side of a gateway: its tokens, its application, and what describes it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from proxy.domain.money import Money
from proxy.listeners import Listeners
from proxy.metering.accounts.figures import FigureReader
from proxy.metering.accounts.once import Once
from proxy.metering.accounts.registry import KeyRegistry, TeamRegistry
from proxy.metering.ledger.audit_log import AuditLog
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerPages
from proxy.metering.ledger.people_usage import PeopleUsage
from proxy.metering.ledger.retention import LedgerRetention
from proxy.metering.ledger.ship_lag import ShipLag
from proxy.metering.ledger.shipped import ShippedLedger
from proxy.metering.ledger.statements import Statements
from proxy.metering.private_folder import make_private_folder
from proxy.metering.redis.durability import DurabilityReport
from proxy.recipes import RECIPES, read_recipe
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.sections import ADMIN_TOKEN_NAME, ADMIN_TOKEN_VARIABLE
from proxy.settings.settings import Settings
from proxy.store_side import StoreSide
from proxy.telemetry.observation import request_ids
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.telemetry.version import package_version
from proxy.web.admin.access import TOKEN_LENGTH_LEAST, WrongTokens, make_careful, require_token
from proxy.web.admin.accounts import KeyAdminRoutes, TeamAdminRoutes
from proxy.web.admin.audit import AuditRoutes
from proxy.web.admin.ledger import LedgerRoutes
from proxy.web.admin.roles import AdminToken, Role, by_place
from proxy.web.admin.shipping import ShippingRoutes
from proxy.web.admin.statements import StatementRoutes
from proxy.web.console.console import CONSOLE, Console
from proxy.web.console.first_image import FirstImage
from proxy.web.console.offers import OfferRoutes
from proxy.web.console.oidc.fetching import Fetcher
from proxy.web.console.oidc.issuer import Issuer
from proxy.web.console.overview import OverviewRoutes
from proxy.web.console.sessions import Sessions, Signer
from proxy.web.console.verify import VerifyRoutes
from proxy.web.intake.large_json import TEXT_BYTES_LIMIT
from proxy.web.intake.request_body import BodyLimits
from proxy.web.middleware.client_address import ClientAddresses
from proxy.web.middleware.errors import errors
from proxy.web.middleware.observe import number
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.openapi import describe
from proxy.web.server.operations import Description, Operations
from proxy.web.server.routes import Route, add_routes
from proxy.web.server.sockets.opening import Bound

logger = logging.getLogger(__name__)

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - the file's name


def text_limits(settings: Settings) -> BodyLimits:
    """Of the admin listener, and of whatever of a request is text."""
    server = settings.server
    return BodyLimits(max_body_bytes=min(server.max_body, TEXT_BYTES_LIMIT), body_timeout_s=server.body_timeout)


class AdminSide:
    """What answers on the admin listener."""

    _sessions: Sessions
    _own_token: AdminToken

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], money: Money, clients: ClientAddresses
    ) -> None:
        """Find the admin token, or make one. Raises ConfigurationError."""
        self._settings = settings
        self._environment = environment
        self._money = money
        self._clients = clients
        self.routes: list[Route] = []
        self._description = Description()
        self._public_url = ""
        self._console: Console | None = None
        self.catalog = settings.catalog()
        """What the console tells of; a reload replaces it."""

        self.token = self._find_token()
        KNOWN_SECRETS.add([self.token])
        self._known = self._tokens()

    async def open(
        self,
        side: StoreSide,
        operations: Operations,
        listeners: Listeners,
        max_connections: int,
        parts: AsyncExitStack,
        bound: Bound | None = None,
    ) -> str:
        """Listen, with ``operations`` among the routes, and look after the ledger; the URL. ``parts`` end all of it.

        Sockets that are ``bound`` already are taken. Raises ConfigurationError.
        """
        books = LedgerBooks(side.runner, side.redis_pool, side.store)
        shipped = ShippedLedger(side.runner, side.redis_pool, side.store, books)
        self._look_after_ledger(side, books, shipped, parts)
        app = self._app(side, books, shipped, operations)
        address = await listeners.open(app, "admin", max_connections, bound)
        report = DurabilityReport(side.redis_pool, min_replicas=self._settings.store.min_replicas)
        report.start()
        parts.push_async_callback(report.stop)
        return address

    def _look_after_ledger(
        self, side: StoreSide, books: LedgerBooks, shipped: ShippedLedger, parts: AsyncExitStack
    ) -> None:
        accounting = self._settings.accounting
        statements = Statements(side.runner, side.redis_pool, side.store, self._money)
        for chore in (
            LedgerRetention(books, statements, days=accounting.ledger_days, shippers=accounting.ledger_shippers),
            ShipLag(shipped, side.metrics, accounting.ledger_shippers),
        ):
            chore.start()
            parts.push_async_callback(chore.stop)

    def _app(
        self, side: StoreSide, books: LedgerBooks, shipped: ShippedLedger, operations: Operations
    ) -> web.Application:
        runner, redis_pool, store = side.runner, side.redis_pool, side.store
        limits, money = text_limits(self._settings), self._money
        pages, overview = LedgerPages(redis_pool, store), OverviewRoutes(FigureReader(redis_pool), operations.vitals)
        recipes = {name: read_recipe(name) for name in RECIPES}
        by_delivered = self._settings.accounting.tier == "delivered"
        keys, teams = KeyRegistry(runner, redis_pool, store), TeamRegistry(runner, redis_pool, store)
        self.routes = [
            *KeyAdminRoutes(keys, teams, limits, money).routes(),
            *TeamAdminRoutes(teams, PeopleUsage(redis_pool, store), limits, money).routes(),
            *VerifyRoutes(pages, books, teams).routes(),
            *LedgerRoutes(pages, books, limits, money).routes(),
            *ShippingRoutes(shipped, limits).routes(),
            *StatementRoutes(Statements(runner, redis_pool, store, money), teams).routes(),
            *AuditRoutes(AuditLog(redis_pool, store), money).routes(),
            *overview.routes(),
            *OfferRoutes(self.catalog, money, recipes, by_delivered=by_delivered).routes(),
            *operations.routes(),
            *self._description.routes(),
        ]
        wrong, tokens = WrongTokens(), self._known
        sessions = self._sessions = self._make_sessions(tokens, Once(redis_pool))
        with_console = self._settings.admin.console
        access = require_token(tokens, wrong, by_place(self.routes), sessions if with_console else None)
        app = web.Application(middlewares=[number(request_ids(), self._clients), errors(Lifecycle()), access])
        app.on_shutdown.extend((wrong.let_go, overview.let_go))
        app.on_response_prepare.append(make_careful)
        add_routes(app, self.routes)
        if with_console:
            oidc = self._add_oidc(app, Once(redis_pool), wrong)
            self._console = console = Console(sessions, tokens, wrong, limits, money, lambda: self._public_url, oidc)
            console.add_to(app)
        return app

    def sign_in_path(self, *, for_s: int) -> str:
        """The console's path that signs in as the gateway's own token, once, within ``for_s``."""
        return f"{CONSOLE}#code={self._sessions.make_code(self._own_token, for_s=for_s)}"

    def show_first_image(self, image: FirstImage) -> None:
        """Let the console's overview show it."""
        if self._console is not None:
            self._console.first_image.shown = image

    def _add_oidc(self, app: web.Application, once: Once, wrong: WrongTokens) -> str | None:
        """Let people sign in by the OpenID provider; its name, None where there is none."""
        admin = self._settings.admin
        if admin.oidc is None or admin.public_url is None:
            return None
        from proxy.web.console.oidc.sign_in import OidcSignIn  # noqa: PLC0415 - who has none need not have joserfc

        issuer = Issuer(admin.oidc.client(admin.public_url, self._environment), Fetcher())
        name, rules, sessions, signer = admin.oidc.shown_name, admin.oidc.rules(), self._sessions, Signer(self.token)
        OidcSignIn(name, issuer, rules, sessions, signer, once, wrong, secure=sessions.secure).add_to(app)
        return name

    def _make_sessions(self, tokens: Sequence[AdminToken], once: Once) -> Sessions:
        admin, self._own_token = self._settings.admin, tokens[0]
        secure = admin.tls_cert_file is not None or (admin.public_url or "").startswith("https:")
        return Sessions(
            Signer(self.token),
            tokens,
            once,
            max_age_s=int(admin.session_hours * 3600),
            secure=secure,
            public_url=admin.public_url,
            people=b"" if admin.oidc is None else admin.oidc.model_dump_json().encode(),
        )

    def describe(self, public_routes: Iterable[Route], public_url: str) -> None:
        """Answer ``/openapi.json`` with both listeners' routes from now on."""
        self._public_url = public_url
        self._description.tell(
            describe(list(public_routes), self.routes, version=package_version(), public_url=public_url)
        )

    def _tokens(self) -> list[AdminToken]:
        tokens = self._settings.admin_tokens(self._environment)
        own = AdminToken.of(ADMIN_TOKEN_NAME, Role.ADMIN, self.token)
        for token in tokens:
            # The one that was made at the first start is not known where the configuration is checked.
            if token.sha256 == own.sha256:
                raise ConfigurationError(
                    f"admin.tokens: {token.name!r} is the gateway's own admin token: give it one of its own"
                )
        return [own, *tokens]

    def _find_token(self) -> str:
        given = self._environment.get(ADMIN_TOKEN_VARIABLE, "").strip()
        if given:
            return given
        path = self._settings.data_folder / ADMIN_TOKEN_FILE
        try:
            return _read_or_make_token(path)
        except OSError as error:
            raise ConfigurationError(
                f"{path}: the admin token cannot be kept there ({error.strerror}): "
                f"set {ADMIN_TOKEN_VARIABLE}, or server.data_folder to a folder that can be written"
            ) from None


def _read_or_make_token(path: Path) -> str:
    make_private_folder(path.parent)
    if path.exists():
        token = path.read_text().strip()
        if len(token) < TOKEN_LENGTH_LEAST:
            raise ConfigurationError(
                f"{path}: holds no token of at least {TOKEN_LENGTH_LEAST} characters: remove it, and a new one is made"
            )
        logger.info("the admin token is in %s", path)
        return token
    token = secrets.token_urlsafe(32)
    # Under another name until it is whole: what is in place is never empty, whenever the process is killed.
    half_made = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(half_made, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(token + "\n")
    half_made.rename(path)
    logger.warning("an admin token was made, and is kept in %s", path)
    return token
