"""The configuration: TOML plus environment, checked before anything starts.

Every mistake is reported with the file, the key, what is wrong and what would be right. ``LIGHTMETER_<SECTION>_<KEY>``
overrides a key of ``[server]``, ``[admin]``, ``[store]``, ``[accounting]``, ``[logs]``, ``[metrics]`` or ``[traces]``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from proxy.domain.catalog import (
    BASE_UNITS,
    BASE_UNITS_4K,
    DEFAULT_FOUR_K_LONG_EDGE,
    DEFAULT_MAX_TEXT_TOKENS,
    TOKENS_LIMIT,
    Ability,
    Catalog,
    Deployment,
    Model,
    unit_price,
)
from proxy.domain.requests.kinds import Kind
from proxy.domain.requests.unknown import DROP, FORWARD, REFUSE
from proxy.settings.sections import (
    AccountingSettings,
    AdminSettings,
    LogSettings,
    MetricsSettings,
    Section,
    ServerSettings,
    StoreSettings,
)
from proxy.settings.traces import TracesSettings, check_traces
from proxy.settings.values import (
    EMBEDDED,
    BaseUrl,
    Bytes,
    Multiplier,
    Name,
    Parameter,
    Seconds,
    Size,
    VariableName,
    Whole,
    one_of,
)
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.dialects.protocol import ChatDialect, Dialect
from proxy.upstream.provider import Provider
from proxy.web.admin.access import TOKEN_LENGTH_LEAST, AdminToken, Role

ENVIRONMENT = "the environment"
UPLOAD_FOLDER = "uploads"
SECTION_LISTS = ("providers", "models", "admin.tokens")
OVERRIDABLE = ("server", "admin", "store", "accounting", "logs", "metrics", "traces")
ADMIN_TOKEN_VARIABLE = "LIGHTMETER_ADMIN_TOKEN"  # noqa: S105 - the variable's name, not the token
ADMIN_TOKEN_NAME = "admin"  # noqa: S105 - what that token is called


class ConfigurationError(Exception):
    """The configuration cannot be used; the message reports every mistake, one a line."""


class ProviderSettings(Section):
    """One ``[[providers]]``."""

    name: Name
    dialect: Annotated[str, one_of(*DIALECTS)] = "openai"
    base_url: BaseUrl
    api_key_env: VariableName | None = None
    connect_timeout: Seconds = 5
    pool_timeout: Seconds = 5
    first_byte_timeout: Seconds = 300
    idle_timeout: Seconds = 300
    total_timeout: Seconds = 900
    max_connections: Annotated[Whole, Field(ge=1, le=100_000)] = 1_000
    max_response: Bytes = 64 * 2**20
    retry_bad_gateway: bool = False
    retry_late_first_byte: bool = False


class DeploymentSettings(Section):
    """One ``[[models.deployments]]``."""

    provider: Name
    upstream_model: Name
    weight: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    priority: Annotated[Whole, Field(ge=0, le=1_000)] = 0
    max_in_flight: Annotated[Whole, Field(ge=1, le=100_000)] | None = None

    def to_deployment(self) -> Deployment:
        """The same, as the catalogue has it."""
        return Deployment(**self.model_dump())


class ModelSettings(Section):
    """One ``[[models]]``."""

    id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")]
    provider: Name | None = None
    upstream_model: Name | None = None
    deployments: Annotated[tuple[DeploymentSettings, ...], Field(max_length=100)] = ()
    token_multiplier: Multiplier
    default_n: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    max_n: Annotated[Whole, Field(ge=1, le=1_000)] = 10
    images_at_once: Annotated[Whole, Field(ge=1, le=1_000)] | None = None
    endpoint: Annotated[str, one_of("images", "chat")] = "images"
    four_k_long_edge: Annotated[Whole, Field(ge=0, le=1_000_000)] = DEFAULT_FOUR_K_LONG_EDGE
    sizes: Annotated[tuple[Size, ...], Field(max_length=100)] = ()
    linked_images: bool = True
    unknown_parameters: Annotated[str, one_of(REFUSE, DROP, FORWARD)] = REFUSE
    parameters: tuple[Parameter, ...] = ("n", "size")
    created: Annotated[Whole, Field(ge=0)] = 0
    text: Annotated[str, one_of("tokens", "free", "refuse")] = "tokens"
    max_text_tokens: Annotated[Whole, Field(ge=1, le=TOKENS_LIMIT)] = DEFAULT_MAX_TEXT_TOKENS

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.default_n > self.max_n:
            raise ValueError(f"default_n is {self.default_n}, which is more than max_n, {self.max_n}")
        return self

    @property
    def providers(self) -> list[str]:
        """The names of the providers that it is asked for at."""
        return [self.provider] if self.provider else [each.provider for each in self.deployments]

    def to_model(self, dialects: Sequence[Dialect]) -> Model:
        """The model with its prices worked out; whoever is asked speaks one of ``dialects``."""
        limits = (self.images_at_once, *(dialect.images_at_once(self.endpoint) for dialect in dialects))
        at_once = [most for most in limits if most is not None]
        chats = [dialect.chat for dialect in dialects]
        return Model(
            id=self.id,
            provider=self.provider or self.deployments[0].provider,
            upstream_model=self.upstream_model or self.deployments[0].upstream_model,
            deployments=tuple(given.to_deployment() for given in self.deployments),
            token_multiplier=self.token_multiplier,
            parameters=frozenset(self.parameters),
            default_n=self.default_n,
            max_n=self.max_n,
            images_at_once=min(at_once, default=None),
            endpoint=self.endpoint,
            four_k_long_edge=self.four_k_long_edge,
            sizes=self.sizes,
            unknown_parameters=self.unknown_parameters,
            created=self.created,
            text=self.text,
            max_text_tokens=self.max_text_tokens,
            chats=all(chat is not None for chat in chats),
            chat_checks=tuple({chat.check: None for chat in chats if chat is not None and chat.check is not None}),
            chat_fields=_own_fields(chats),
            abilities=frozenset.intersection(*(dialect.abilities for dialect in dialects))
            - ({Ability.LINKED_IMAGES} if not self.linked_images else set()),
            unit_price=unit_price(BASE_UNITS, self.token_multiplier),
            unit_price_4k=unit_price(BASE_UNITS_4K, self.token_multiplier),
        )


def _own_fields(chats: Sequence[ChatDialect | None]) -> Mapping[str, Kind]:
    """The fields beside OpenAI's that whoever is asked knows."""
    tables = [chat.own_fields if chat is not None else {} for chat in chats]
    return {name: kind for name, kind in tables[0].items() if all(name in table for table in tables)}


class Settings(Section):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = StoreSettings()
    accounting: AccountingSettings = AccountingSettings()
    logs: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
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
    def upload_folder(self) -> Path:
        """Where uploads are while their requests last, past what is held in memory."""
        return Path(self.server.upload_folder) if self.server.upload_folder else self.data_folder / UPLOAD_FOLDER

    @property
    def journal_store(self) -> str:
        """What the journal knows the store by. An embedded store lies in the same folder, wherever that is moved."""
        return EMBEDDED if self.embedded_folder else self.store.url

    def changed_sections(self, other: Settings) -> list[str]:
        """The sections that ``other`` has differently, beside what ``catalog`` and ``provider_list`` hold."""
        same_default = {"default_model": self.server.default_model}
        adapted = other.model_copy(update={"server": other.server.model_copy(update=same_default)})
        return [name for name in OVERRIDABLE if getattr(self, name) != getattr(adapted, name)]

    def catalog(self) -> Catalog:
        """The models on offer."""
        dialects = {provider.name: DIALECTS[provider.dialect] for provider in self.providers}
        return Catalog(
            (model.to_model([dialects[name] for name in model.providers]) for model in self.models),
            self.server.default_model,
        )

    def admin_tokens(self, environment: Mapping[str, str]) -> list[AdminToken]:
        """The tokens of ``[[admin.tokens]]``, whose texts come from the environment only."""
        return [
            AdminToken.of(given.name, Role(given.role), environment.get(given.token_env, "").strip())
            for given in self.admin.tokens
        ]

    def secret_texts(self, environment: Mapping[str, str]) -> Iterator[str]:
        """What nobody may read in a log or an error: keys and tokens of the environment, passwords in ``store.url``."""
        names = (*(given.api_key_env for given in self.providers), *(given.token_env for given in self.admin.tokens))
        yield from (environment.get(name, "").strip() for name in names if name)
        userinfo = self.store.url.partition("://")[2].rpartition("@")[0]
        query = self.store.url.partition("?")[2]
        for password in (
            userinfo.partition(":")[2],
            *(value for name, _, value in (each.partition("=") for each in query.split("&")) if "password" in name),
        ):
            yield from {password, unquote(password)}

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
                pool_timeout_s=given.pool_timeout,
                max_response_bytes=given.max_response,
                retry_bad_gateway=given.retry_bad_gateway,
                retry_late_first_byte=given.retry_late_first_byte,
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
        mistakes = [_describe(error, source, overridden) for error in invalid.errors()]
    else:
        described = (
            *_check_references(settings, environment),
            *_check_store(settings),
            *check_traces(settings.traces),
            *_check_admin_tokens(settings, environment),
        )
        mistakes = [mistake if mistake.startswith(ENVIRONMENT) else f"{source}: {mistake}" for mistake in described]
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return settings


def _override(content: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    overridden: dict[str, str] = {}
    for section in OVERRIDABLE:
        for key in Settings.model_fields[section].default.__class__.model_fields:
            if f"{section}.{key}" in SECTION_LISTS:
                # Sections of their own are not written in one variable.
                continue
            variable = f"LIGHTMETER_{section}_{key}".upper()
            if variable in environment and isinstance(content.setdefault(section, {}), dict):
                content[section][key] = environment[variable]
                overridden[f"{section}.{key}"] = variable
    return overridden


def _describe(error: ErrorDetails, source: str, overridden: Mapping[str, str]) -> str:
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if (name := key.partition("[")[0]) in overridden:
        source, key = ENVIRONMENT, overridden[name]
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
    """Whether a value is better not repeated; ``key`` may be a variable of the environment."""
    names = ("store.url", "store_url", "key_env", "token_env", "secret", "password")
    return any(mark in value for mark in "@?") or key.lower().endswith(names)


def _check_store(settings: Settings) -> Iterator[str]:
    if settings.server.max_body_memory < settings.server.max_body:
        yield "server.max_body_memory: is less than server.max_body, so that a body of that size could never be read"
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


def _check_deployments(model: ModelSettings, names: list[str]) -> Iterator[str]:
    simple = {"provider": model.provider, "upstream_model": model.upstream_model}
    for key, value in simple.items():
        if value is None and not model.deployments:
            yield f"{key}: is missing"
        elif value is not None and model.deployments:
            yield f"{key}: is given beside [[models.deployments]]: it belongs into one of them"
        elif key == "provider" and value not in names and not model.deployments:
            yield f"provider: no provider is named {value!r}; there are {names}"
    asked = [deployment.provider for deployment in model.deployments]
    for place, name in enumerate(asked):
        if name not in names:
            yield f"deployments[{place}].provider: no provider is named {name!r}; there are {names}"
        elif asked.index(name) != place:
            yield (
                f"deployments[{place}].provider: there is another deployment at {name!r}: metrics distinguish them by "
                "provider; for a second one, add a [[providers]] of another name"
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
        yield from (f"models[{index}].{mistake}" for mistake in _check_deployments(model, names))
    default = settings.server.default_model
    if default is not None and default not in ids:
        yield f"server.default_model: no model has the id {default!r}; there are {ids}"
    if not ids:
        yield "models: there is none; add a [[models]] with id, provider, upstream_model and token_multiplier"
