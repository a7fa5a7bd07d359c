"""The configuration: TOML plus environment, checked before anything starts.

Every mistake is told with the file, the key, what is wrong and what would be right. ``LIGHTMETER_<SECTION>_<KEY>``
overrides a key of ``[server]``, ``[admin]``, ``[store]``, ``[accounting]``, ``[logs]`` or ``[metrics]``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from yarl import URL

from proxy.domain.catalog import (
    BASE_UNITS,
    BASE_UNITS_4K,
    DEFAULT_FOUR_K_LONG_EDGE,
    Catalog,
    Model,
    unit_price,
)
from proxy.domain.image_request import KNOWN_PARAMETERS
from proxy.metering.redis_connection import SCHEMES
from proxy.upstream.dialects import DIALECTS, Dialect
from proxy.upstream.provider import Provider
from proxy.web.admin_access import TOKEN_LENGTH_LEAST, AdminToken, Role

EMBEDDED = "embedded:"
ENVIRONMENT = "the environment"
SECTION_LISTS = ("providers", "models", "admin.tokens")
OVERRIDABLE = ("server", "admin", "store", "accounting", "logs", "metrics")
ADMIN_TOKEN_VARIABLE = "LIGHTMETER_ADMIN_TOKEN"  # noqa: S105 - the variable's name, not the token
ADMIN_TOKEN_NAME = "admin"  # noqa: S105 - what that token is called
LAST_PORT = 65_535
DAY_S = 86_400
_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MULTIPLIER_LIMIT = Decimal(1_000_000)


class ConfigurationError(Exception):
    """The configuration cannot be used; the message tells every mistake, one a line."""


# --- What a value has to be ------------------------------------------------------------------------------------------


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    good_port = port.isascii() and port.isdigit() and int(port) <= LAST_PORT
    if not colon or not host or bare_ipv6 or not good_port:
        raise ValueError("should be HOST:PORT, like 127.0.0.1:8080 or [::1]:8080")
    return text


def _store_url(text: str) -> str:
    if text.startswith(EMBEDDED) and text != EMBEDDED:
        return text
    if text.startswith(SCHEMES):
        return text
    raise ValueError(f"should be embedded:PATH, or begin with {', '.join(SCHEMES)}")


def _base_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or "?" in text or "#" in text:
        raise ValueError("should be an address like https://api.openai.com/v1")
    if url.user or url.password:
        raise ValueError("should hold no password: name the variable with the provider's key in api_key_env")
    return text


def _exact_decimal(value: object) -> object:
    # 0.3333 in TOML is a binary float already; its shortest form is what the operator wrote.
    return repr(value) if isinstance(value, float) else value


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be an integer or a number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _seconds(value: float) -> float:
    if not 0 < value <= DAY_S:
        raise ValueError(f"should be greater than 0 and at most {DAY_S} seconds")
    return value


def _variable_name(text: str) -> str:
    if not _variable.fullmatch(text):
        raise ValueError("should be the name of an environment variable, not the secret itself")
    return text


def _one_of(*allowed: str) -> AfterValidator:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"should be one of {', '.join(allowed)}")
        return text

    return AfterValidator(check)


def _known_parameter(name: str) -> str:
    if name not in KNOWN_PARAMETERS:
        raise ValueError(f"is not a request field; there are {', '.join(sorted(KNOWN_PARAMETERS))}")
    return name


Address = Annotated[str, AfterValidator(_address)]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
Seconds = Annotated[float, BeforeValidator(_no_boolean), AfterValidator(_seconds)]
Bytes = Annotated[Whole, Field(ge=1_024, le=2**40)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Multiplier = Annotated[Decimal, BeforeValidator(_exact_decimal), Field(ge=0, le=MULTIPLIER_LIMIT, decimal_places=18)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """The public listener."""

    listen: Address = "0.0.0.0:8080"
    reuse_port: bool = False
    default_model: str | None = None
    data_folder: str = "./data"
    max_body: Bytes = 2**20
    body_timeout: Seconds = 30
    write_timeout: Seconds = 60
    stream_keepalive_seconds: Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, le=86_400)] = 15
    keepalive_timeout: Seconds = 75
    drain_seconds: Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, le=86_400)] = 300


class AdminTokenSettings(_Section):
    """One ``[[admin.tokens]]``: whoever has the text that stands in the variable ``token_env``."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._@-]+$")]
    role: Annotated[str, _one_of(*Role)]
    token_env: Annotated[str, AfterValidator(_variable_name)]


class AdminSettings(_Section):
    """The admin listener."""

    listen: Address = "127.0.0.1:8081"
    tokens: tuple[AdminTokenSettings, ...] = ()


class StoreSettings(_Section):
    """Where quota and ledger are kept."""

    url: Annotated[str, AfterValidator(_store_url)] = "embedded:./data"
    server: str | None = None
    appendfsync: Annotated[str, _one_of("always", "everysec")] = "everysec"
    timeout: Seconds = 2
    min_replicas: Annotated[Whole, Field(ge=0, le=10)] = 0


class AccountingSettings(_Section):
    """How long reservations are held and their ids remembered, and what becomes of those that nobody settles."""

    lease_seconds: Annotated[Whole, Field(ge=1, le=86_400)] = 60
    expired: Annotated[str, _one_of("void", "charge")] = "void"
    tier: Annotated[str, _one_of("requested", "delivered")] = "requested"
    ledger_days: Annotated[Whole, Field(ge=0, le=36_500)] = 0
    client_gone: Annotated[str, _one_of("finish", "cancel")] = "finish"
    idempotency_answer_bytes: Annotated[Whole, Field(ge=0, le=2**20)] = 65_536
    settled_ids_seconds: Annotated[Whole, Field(ge=60, le=30 * 86_400)] = 86_400
    burst_seconds: Annotated[Whole, Field(ge=1, le=3_600)] = 60


class LogSettings(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = True


class MetricsSettings(_Section):
    """What Prometheus sees of teams: how many of them by name, and how often their quota is read from the store."""

    label_teams: Annotated[Whole, Field(ge=0, le=1_000)] = 0
    team_refresh_seconds: Seconds = 15


class ProviderSettings(_Section):
    """One ``[[providers]]``."""

    name: Name
    dialect: Annotated[str, _one_of(*DIALECTS)] = "openai"
    base_url: Annotated[str, AfterValidator(_base_url)]
    api_key_env: Annotated[str, AfterValidator(_variable_name)] | None = None
    connect_timeout: Seconds = 5
    first_byte_timeout: Seconds = 300
    idle_timeout: Seconds = 60
    total_timeout: Seconds = 900
    max_connections: Annotated[Whole, Field(ge=1, le=100_000)] = 1_000
    max_response: Bytes = 64 * 2**20


class ModelSettings(_Section):
    """One ``[[models]]``."""

    id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")]
    provider: Name
    upstream_model: Name
    token_multiplier: Multiplier
    default_n: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    max_n: Annotated[Whole, Field(ge=1, le=1_000)] = 10
    four_k_long_edge: Annotated[Whole, Field(ge=0, le=1_000_000)] = DEFAULT_FOUR_K_LONG_EDGE
    parameters: tuple[Annotated[str, AfterValidator(_known_parameter)], ...] = ("n", "size")
    created: Annotated[Whole, Field(ge=0)] = 0
    text: Annotated[str, _one_of("tokens", "free", "refuse")] = "tokens"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.default_n > self.max_n:
            raise ValueError(f"default_n is {self.default_n}, which is more than max_n, {self.max_n}")
        return self

    def to_model(self, dialect: Dialect) -> Model:
        """The model with its prices worked out, at a provider that speaks ``dialect``."""
        return Model(
            id=self.id,
            provider=self.provider,
            upstream_model=self.upstream_model,
            token_multiplier=self.token_multiplier,
            parameters=frozenset(self.parameters),
            default_n=self.default_n,
            max_n=min(self.max_n, dialect.max_n or self.max_n),
            four_k_long_edge=self.four_k_long_edge,
            created=self.created,
            text=self.text,
            chats=dialect.chats,
            unit_price=unit_price(BASE_UNITS, self.token_multiplier),
            unit_price_4k=unit_price(BASE_UNITS_4K, self.token_multiplier),
        )


class Settings(_Section):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = StoreSettings()
    accounting: AccountingSettings = AccountingSettings()
    logs: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    providers: tuple[ProviderSettings, ...] = ()
    models: tuple[ModelSettings, ...] = ()

    @property
    def embedded_folder(self) -> Path | None:
        """The folder of the embedded store, None where the store is elsewhere."""
        return Path(self.store.url.removeprefix(EMBEDDED)) if self.store.url.startswith(EMBEDDED) else None

    @property
    def data_folder(self) -> Path:
        """Where this gateway keeps what is its own: with the embedded store, or in ``server.data_folder``."""
        return self.embedded_folder or Path(self.server.data_folder)

    @property
    def journal_store(self) -> str:
        """What the journal knows the store by. An embedded store lies in the same folder, wherever that is moved."""
        return EMBEDDED if self.embedded_folder else self.store.url

    def catalog(self) -> Catalog:
        """The models on offer."""
        dialects = {provider.name: DIALECTS[provider.dialect] for provider in self.providers}
        return Catalog((model.to_model(dialects[model.provider]) for model in self.models), self.server.default_model)

    def admin_tokens(self, environment: Mapping[str, str]) -> list[AdminToken]:
        """The tokens of ``[[admin.tokens]]``, whose texts come from the environment only."""
        return [
            AdminToken.of(given.name, Role(given.role), environment.get(given.token_env, "").strip())
            for given in self.admin.tokens
        ]

    def provider_list(self, environment: Mapping[str, str]) -> list[Provider]:
        """The providers with their keys, which come from the environment only."""
        return [
            Provider(
                name=given.name,
                dialect=given.dialect,
                base_url=given.base_url,
                api_key=environment.get(given.api_key_env, "").strip() if given.api_key_env else "",
                connect_timeout_s=given.connect_timeout,
                first_byte_timeout_s=given.first_byte_timeout,
                idle_timeout_s=given.idle_timeout,
                total_timeout_s=given.total_timeout,
                max_connections=given.max_connections,
                max_response_bytes=given.max_response,
            )
            for given in self.providers
        ]


# --- Reading it -----------------------------------------------------------------------------------------------------


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in the file, as the environment overrides them. Raises ConfigurationError with every mistake."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}") from None
    return read_settings(content, str(path), environment)


def read_settings(content: dict[str, Any], source: str, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in ``content``. Raises ConfigurationError with every mistake, each led by ``source``."""
    overridden = _override(content, environment)
    try:
        settings = Settings.model_validate(content)
    except ValidationError as invalid:
        mistakes = [_tell(error, source, overridden) for error in invalid.errors()]
    else:
        told = (
            *_check_references(settings, environment),
            *_check_store(settings),
            *_check_admin_tokens(settings, environment),
        )
        mistakes = [mistake if mistake.startswith(ENVIRONMENT) else f"{source}: {mistake}" for mistake in told]
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return settings


def _override(content: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    overridden: dict[str, str] = {}
    for section in OVERRIDABLE:
        for key, field in Settings.model_fields[section].default.__class__.model_fields.items():
            if field.default == ():
                # Sections of their own are not written in one variable.
                continue
            variable = f"LIGHTMETER_{section}_{key}".upper()
            if variable in environment and isinstance(content.setdefault(section, {}), dict):
                content[section][key] = environment[variable]
                overridden[f"{section}.{key}"] = variable
    return overridden


def _tell(error: ErrorDetails, source: str, overridden: Mapping[str, str]) -> str:
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if key in overridden:
        source, key = ENVIRONMENT, overridden[key]
    wrong = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        wrong = "is not a setting; see config/lightmeter.toml for all that there are"
    elif error["type"] == "missing":
        wrong = "is missing"
    elif error["type"] in ("model_type", "model_attributes_type"):
        wrong = (
            f"should be a section with settings of its own, [[{_list_name(error['loc'])}]]"
            if isinstance(error["loc"][-1], int)
            else (f"should be a section, [{key}], with settings below it")
        )
    elif error["type"] == "tuple_type" and key in SECTION_LISTS:
        wrong = f"should be sections, each begun by [[{key}]]"
    elif isinstance(error["input"], str | int | float) and not _may_hold_a_secret(key, str(error["input"])):
        wrong = f"is {error['input']!r}: {wrong[0].lower()}{wrong[1:]}"
    return f"{source}: {key}: {wrong}"


def _list_name(place: tuple[int | str, ...]) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _may_hold_a_secret(key: str, value: str) -> bool:
    return "@" in value or key.endswith(("api_key_env", "token_env"))


def _check_store(settings: Settings) -> Iterator[str]:
    if settings.server.reuse_port and settings.embedded_folder is not None:
        yield "server.reuse_port: processes cannot share an embedded store; set store.url to one that they can"
    if settings.store.min_replicas and settings.embedded_folder is not None:
        yield "store.min_replicas: an embedded store has no replicas; set store.url to one that has"


def _check_admin_tokens(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    texts = {ADMIN_TOKEN_NAME: environment.get(ADMIN_TOKEN_VARIABLE, "").strip()}
    if 0 < len(texts[ADMIN_TOKEN_NAME]) < TOKEN_LENGTH_LEAST:
        yield (
            f"{ENVIRONMENT}: {ADMIN_TOKEN_VARIABLE}: should hold at least {TOKEN_LENGTH_LEAST} characters; "
            "'openssl rand -hex 32' makes such a token, and where it is unset one is made"
        )
    for index, token in enumerate(settings.admin.tokens):
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


def _check_images(settings: Settings, index: int) -> Iterator[str]:
    model = settings.models[index]
    dialect = next((one.dialect for one in settings.providers if one.name == model.provider), None)
    most = None if dialect is None else DIALECTS[dialect].max_n
    for name in ("default_n", "max_n"):
        if most is not None and name in model.model_fields_set and getattr(model, name) > most:
            yield (
                f"models[{index}].{name}: is {getattr(model, name)}, but a provider that speaks {dialect} makes "
                f"at most {most} image a request: set it to {most}, or leave it out"
            )


def _check_references(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    names = [provider.name for provider in settings.providers]
    ids = [model.id for model in settings.models]
    for index, provider in enumerate(settings.providers):
        if names.index(provider.name) != index:
            yield f"providers[{index}].name: there is another provider {provider.name!r}"
        key = environment.get(provider.api_key_env or "", "").strip()
        if not (key.isascii() and key.isprintable()):
            yield f"providers[{index}].api_key_env: {provider.api_key_env} holds what cannot be in a header"
        elif provider.api_key_env is not None and not key:
            yield (
                f"providers[{index}].api_key_env: the environment has no {provider.api_key_env}: "
                f"export it with the key of provider {provider.name!r}"
            )
    for index, model in enumerate(settings.models):
        if ids.index(model.id) != index:
            yield f"models[{index}].id: there is another model {model.id!r}"
        if model.provider not in names:
            yield f"models[{index}].provider: no provider is named {model.provider!r}; there are {names}"
        yield from _check_images(settings, index)
    default = settings.server.default_model
    if default is not None and default not in ids:
        yield f"server.default_model: no model has the id {default!r}; there are {ids}"
    if not ids:
        yield "models: there is none; add a [[models]] with id, provider, upstream_model and token_multiplier"
