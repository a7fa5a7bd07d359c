"""The sections of the configuration that stand alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from proxy.domain.api_key import TEAM_ID_PATTERN
from proxy.domain.people import Users
from proxy.settings.mistakes import ENVIRONMENT
from proxy.settings.people.oidc import OidcSettings
from proxy.settings.values import (
    Address,
    Bytes,
    CorsOrigins,
    HealthPath,
    Name,
    Networks,
    PageUrl,
    Seconds,
    Shippers,
    SocketMode,
    StoreUrl,
    UnitsPerUsd,
    VariableName,
    Whole,
    Workers,
    no_boolean,
    one_of,
)
from proxy.web.admin.access import TOKEN_LENGTH_LEAST
from proxy.web.admin.roles import Role
from proxy.web.server.sockets.address import ListenAddress

ADMIN_TOKEN_VARIABLE = "LIGHTMETER_ADMIN_TOKEN"  # noqa: S105 - the variable's name, not the token
ADMIN_TOKEN_NAME = "admin"  # noqa: S105 - what that token is called


TEAMS_LIMIT = 50
"""Of one administrator: their names fit into a cookie."""

HeaderName = Annotated[
    str, AfterValidator(str.lower), Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
]
TeamName = Annotated[str, Field(pattern=f"^{TEAM_ID_PATTERN}$")]


class Section(BaseModel):
    """Settings that belong together; nothing else may stand among them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """The public listener."""

    listen: Address = "0.0.0.0:8080"
    socket_mode: SocketMode = "0660"
    socket_user: Name | None = None
    socket_group: Name | None = None
    health_path: HealthPath | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    workers: Workers = 1
    reuse_port: bool = False
    default_model: str | None = None
    data_folder: str = "./data"
    max_body: Bytes = 32 * 2**20
    max_body_memory: Bytes = 256 * 2**20
    body_timeout: Seconds = 30
    max_upload: Bytes = 2**30
    max_upload_file: Bytes = 50 * 2**20
    max_upload_disk: Bytes = 8 * 2**30
    upload_timeout: Seconds = 300
    min_upload_rate: Annotated[float, BeforeValidator(no_boolean), Field(gt=0, le=2**30)] = 1_024
    upload_folder: str | None = None
    write_timeout: Seconds = 60
    stream_keepalive_seconds: Annotated[float, BeforeValidator(no_boolean), Field(ge=0, le=86_400)] = 15
    json_keepalive_seconds: Annotated[float, BeforeValidator(no_boolean), Field(ge=0, le=86_400)] = 0
    usage: Annotated[str, one_of("zeros", "tokens")] = "zeros"
    keepalive_timeout: Seconds = 75
    max_header_line: Annotated[Whole, Field(ge=8_192, le=2**20)] = 32_768
    max_connections: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    cors_origins: CorsOrigins = ()
    key_page: bool = False
    user_header: HeaderName | None = None
    trusted_proxies: Networks = ()
    drain_seconds: Annotated[float, BeforeValidator(no_boolean), Field(ge=0, le=86_400)] = 300


class AdminTokenSettings(Section):
    """One ``[[admin.tokens]]``: whoever has the text that stands in the variable ``token_env``."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._@-]+$")]
    role: Annotated[str, one_of(*Role)]
    teams: Annotated[tuple[TeamName, ...], Field(max_length=TEAMS_LIMIT)] = ()
    token_env: VariableName


class AdminSettings(Section):
    """The admin listener."""

    listen: Address = "127.0.0.1:8081"
    socket_mode: SocketMode = "0660"
    socket_user: Name | None = None
    socket_group: Name | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    public_url: PageUrl | None = None
    console: bool = True
    session_hours: Annotated[float, BeforeValidator(no_boolean), Field(gt=0, le=720)] = 12
    tokens: tuple[AdminTokenSettings, ...] = ()
    oidc: OidcSettings | None = None


class StoreSettings(Section):
    """Where quota and ledger are kept."""

    url: StoreUrl = "embedded:./data"
    server: str | None = None
    appendfsync: Annotated[str, one_of("always", "everysec")] = "everysec"
    timeout: Seconds = 2
    min_replicas: Annotated[Whole, Field(ge=0, le=10)] = 0


class AccountingSettings(Section):
    """How long reservations are held and their ids remembered, and what becomes of those that nobody settles."""

    lease_seconds: Annotated[Whole, Field(ge=1, le=86_400)] = 60
    expired: Annotated[str, one_of("void", "charge")] = "void"
    tier: Annotated[str, one_of("requested", "delivered")] = "requested"
    users: Annotated[str, one_of(*Users)] = "plain"
    units_per_usd: UnitsPerUsd | None = None
    overage_images: Annotated[Whole, Field(ge=1, le=1_000)] = 4
    ledger_days: Annotated[Whole, Field(ge=0, le=36_500)] = 0
    ledger_shippers: Shippers = ()
    client_gone: Annotated[str, one_of("finish", "cancel")] = "finish"
    idempotency_answer_bytes: Annotated[Whole, Field(ge=0, le=2**20)] = 65_536
    settled_ids_seconds: Annotated[Whole, Field(ge=60, le=30 * 86_400)] = 86_400
    burst_seconds: Annotated[Whole, Field(ge=1, le=3_600)] = 60


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = True


class MetricsSettings(Section):
    """What Prometheus sees of teams: how many of them by name, and how often their quota is read from the store."""

    label_teams: Annotated[Whole, Field(ge=0, le=1_000)] = 100
    team_refresh_seconds: Seconds = 15


def check_listeners(server: ServerSettings, admin: AdminSettings) -> Iterator[str]:
    """What is wrong with both listeners together."""
    if ListenAddress.of(server.listen).overlaps(ListenAddress.of(admin.listen)):
        yield f"admin.listen: {admin.listen} is taken by server.listen, {server.listen}: give each its own"


def check_admin_tokens(tokens: Sequence[AdminTokenSettings], environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the text of the first token, and with ``tokens``, whose texts the environment holds."""
    texts = {ADMIN_TOKEN_NAME: environment.get(ADMIN_TOKEN_VARIABLE, "").strip()}
    if 0 < len(texts[ADMIN_TOKEN_NAME]) < TOKEN_LENGTH_LEAST:
        yield (
            f"{ENVIRONMENT}: {ADMIN_TOKEN_VARIABLE}: should hold at least {TOKEN_LENGTH_LEAST} characters; "
            "'openssl rand -hex 32' makes such a token, and where it is unset one is made"
        )
    for index, token in enumerate(tokens):
        text, place = environment.get(token.token_env, "").strip(), f"admin.tokens[{index}]"
        if token.name in texts:
            yield f"{place}.name: there is another token {token.name!r}"
        elif not text:
            yield (
                f"{place}.token_env: the environment has no {token.token_env}: "
                f"export it with the text of token {token.name!r}"
            )
        elif len(text) < TOKEN_LENGTH_LEAST or not (text.isascii() and text.isprintable()) or " " in text:
            yield (
                f"{place}.token_env: {token.token_env} should hold at least {TOKEN_LENGTH_LEAST} printable ASCII "
                "characters and no blank; 'openssl rand -hex 32' makes such a token"
            )
        elif text in texts.values():
            yield f"{place}.token_env: {token.token_env} holds the text of another token: give each its own"
        texts.setdefault(token.name, text)
        yield from _check_teams(place, token)


def _check_teams(place: str, token: AdminTokenSettings) -> Iterator[str]:
    if (token.role == Role.TEAM_ADMIN) == bool(token.teams):
        return
    if token.teams:
        yield f'{place}.teams: goes with the role "team_admin" only: the role {token.role!r} sees every team'
    else:
        yield f'{place}.teams: is missing: name the teams of this "team_admin", like ["research"]'
