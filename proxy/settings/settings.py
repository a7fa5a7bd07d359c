"""The configuration: TOML plus environment, checked before anything starts.

Every mistake is reported with the file, the key, what is wrong and what would be right. ``LIGHTMETER_<SECTION>_<KEY>``
overrides a key of ``[server]``, ``[admin]``, ``[store]``, ``[accounting]``, ``[logs]``, ``[metrics]`` or ``[traces]``.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import Field, ValidationError

from proxy.domain.catalog import Catalog
from proxy.settings.alerts import AlertSettings, check_alerts
from proxy.settings.checking.folders import unwritable
from proxy.settings.checking.stand_ins import Repair
from proxy.settings.checking.variables import override, unknown_variables
from proxy.settings.checking.warnings import warn_of_polling, warn_of_prices, warn_of_settling
from proxy.settings.mistakes import ENVIRONMENT, ConfigurationError, describe, place_of, with_name
from proxy.settings.models import ModelSettings, check_models
from proxy.settings.names import (
    AliasSettings,
    AnyModel,
    check_aliases,
    check_fallbacks,
    check_retirements,
    retirements,
    with_breakers,
)
from proxy.settings.people.oidc import check_oidc
from proxy.settings.providers import ProviderSettings, check_providers
from proxy.settings.sections import (
    AccountingSettings,
    AdminSettings,
    LogSettings,
    MetricsSettings,
    Section,
    ServerSettings,
    StoreSettings,
    check_admin_tokens,
    check_listeners,
)
from proxy.settings.traces import TracesSettings, check_traces
from proxy.settings.values import EMBEDDED
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.provider import Provider
from proxy.web.admin.roles import AdminToken, Role
from proxy.web.server.certificate import read_certificate

UPLOAD_FOLDER = "uploads"
JOURNAL_FOLDER = "journal"
OVERRIDABLE = ("server", "admin", "store", "accounting", "logs", "metrics", "traces")


class Settings(Section):
    """The whole configuration."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = StoreSettings()
    accounting: AccountingSettings = AccountingSettings()
    logs: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
    alerts: tuple[AlertSettings, ...] = ()
    providers: tuple[ProviderSettings, ...] = ()
    all_models: Annotated[tuple[AnyModel, ...], Field(alias="models")] = ()
    """Aliases among them, in the order of the file."""

    @property
    def models(self) -> list[ModelSettings]:
        """Those that are made somewhere."""
        return [model for model in self.all_models if isinstance(model, ModelSettings)]

    @property
    def aliases(self) -> list[AliasSettings]:
        """Other names of them."""
        return [model for model in self.all_models if isinstance(model, AliasSettings)]

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
        return [name for name in (*OVERRIDABLE, "alerts") if getattr(self, name) != getattr(adapted, name)]

    def catalog(self) -> Catalog:
        """The models on offer."""
        units_per_usd = self.accounting.units_per_usd
        dialects = {provider.name: DIALECTS[provider.dialect] for provider in self.providers}
        not_named_at = frozenset(provider.name for provider in self.providers if not provider.send_model)
        edits_at = {provider.name: provider.edits for provider in self.providers}
        return Catalog(
            (
                model.to_model([dialects[name] for name in model.providers], units_per_usd, not_named_at, edits_at)
                for model in with_breakers(self.all_models)
            ),
            self.server.default_model,
            [alias.to_alias() for alias in self.aliases],
            retirements(self.all_models),
        )

    def warnings(self, now_s: float) -> list[str]:
        """What is good as it is, and should be looked after; ``now_s`` is in seconds since the epoch."""
        retiring = [end.tell(name, now_s) for name, end in retirements(self.all_models).items()]
        unheeded = (*warn_of_polling(self.providers, self.models), *warn_of_settling(self.models))
        return [*retiring, *warn_of_prices(list(self.catalog().all())), *unheeded]

    def unknown_variables(self, environment: Mapping[str, str]) -> list[str]:
        """A line for each variable of the environment that looks like a setting's, and is none's."""
        named = {
            *(token.token_env for token in self.admin.tokens),
            *(name for name in (self.admin.oidc.client_secret_env if self.admin.oidc else None,) if name),
            *(name for each in self.alerts for name in (each.secret_env, each.smtp_password_env) if name),
            *re.findall(r"LIGHTMETER_\w+", self.model_dump_json(include={"providers"})),
        }
        return [*unknown_variables(environment, OVERRIDABLE_SECTIONS, named)]

    def unwritable_folders(self) -> list[str]:
        """A line for each folder of this gateway's own that cannot be written to. Nothing is made."""
        setting = "server.data_folder" if self.embedded_folder is None else "store.url"
        folders = {setting: self.data_folder, f"{setting} (journal)": self.data_folder / JOURNAL_FOLDER}
        return [*unwritable(folders | {"server.upload_folder": self.upload_folder})]

    def admin_tokens(self, environment: Mapping[str, str]) -> list[AdminToken]:
        """The tokens of ``[[admin.tokens]]``, whose texts come from the environment only."""
        return [
            AdminToken.of(given.name, Role(given.role), environment.get(given.token_env, "").strip(), given.teams)
            for given in self.admin.tokens
        ]

    def secret_texts(self, environment: Mapping[str, str]) -> Iterator[str]:
        """What nobody may read in a log or an error: keys and tokens of the environment, passwords in ``store.url``."""
        for given in self.providers:
            yield from given.secret_texts(environment)
        yield from (environment.get(given.token_env, "").strip() for given in self.admin.tokens)
        yield from (alert.secret(environment) for alert in self.alerts)
        if self.admin.oidc is not None:
            yield self.admin.oidc.secret(environment)
        userinfo = self.store.url.partition("://")[2].rpartition("@")[0]
        query = self.store.url.partition("?")[2]
        for password in (
            userinfo.partition(":")[2],
            *(value for name, _, value in (each.partition("=") for each in query.split("&")) if "password" in name),
        ):
            yield from {password, unquote(password)}

    def provider_list(self, environment: Mapping[str, str]) -> list[Provider]:
        """The providers with their keys."""
        return [given.to_provider(environment) for given in self.providers]


OVERRIDABLE_SECTIONS: Mapping[str, Section] = {name: Settings.model_fields[name].default for name in OVERRIDABLE}


# --- Reading it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examined:
    """A configuration, and every mistake in it. ``settings`` are the rest of it, None where there is no rest."""

    settings: Settings | None
    mistakes: list[str]

    def unless_wrong(self) -> Settings:
        """The settings. Raises ConfigurationError with every mistake."""
        if self.mistakes or self.settings is None:
            raise ConfigurationError("\n".join(self.mistakes))
        return self.settings


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in the file, as the environment overrides them. Raises ConfigurationError with every mistake."""
    return examine_file(path, environment).unless_wrong()


def read_settings(content: dict[str, Any], source: str, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in ``content``. Raises ConfigurationError with every mistake, each led by ``source``."""
    return examine(content, source, environment).unless_wrong()


def parse_settings(text: str, source: str, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in the ``text`` of ``source``. Raises ConfigurationError with every mistake."""
    return _examine_text(text, source, environment).unless_wrong()


def examine_file(path: Path, environment: Mapping[str, str] = os.environ) -> Examined:
    """What is in the file, as the environment overrides it. Raises ConfigurationError where it cannot be read."""
    return _examine_text(read_text(path), str(path), environment)


def read_text(path: Path) -> str:
    """What the file holds. Raises ConfigurationError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from None


def _examine_text(text: str, source: str, environment: Mapping[str, str]) -> Examined:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: is not valid TOML: {error}") from None
    return examine(content, source, environment)


def examine(content: dict[str, Any], source: str, environment: Mapping[str, str] = os.environ) -> Examined:
    """What is in ``content``; each mistake is led by ``source``, or by the environment that it comes from."""
    overridden = override(content, environment, OVERRIDABLE_SECTIONS)
    mistakes: list[str] = []
    repair = None
    try:
        settings = Settings.model_validate(content)
    except ValidationError as invalid:
        errors = invalid.errors()
        mistakes = [describe(error, source, overridden, known_names()) for error in errors]
        repair = Repair(content, [place_of(error) for error in errors], known_names())
        try:
            settings = Settings.model_validate(repair.content)
        except ValidationError:
            return Examined(None, [with_name(mistake, content) for mistake in mistakes])
    for mistake in _check(settings, environment):
        if repair is None or not repair.concerns(mistake):
            mistakes.append(mistake if mistake.startswith(ENVIRONMENT) else f"{source}: {mistake}")
    return Examined(settings, [with_name(mistake, content) for mistake in mistakes])


def _check(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with values that are good by themselves."""
    yield from check_providers(settings.providers, environment)
    yield from check_models(
        settings.all_models,
        {provider.name: provider.dialect for provider in settings.providers},
        settings.server.default_model,
        settings.accounting.units_per_usd,
    )
    yield from check_aliases(settings.all_models)
    yield from check_retirements(settings.all_models)
    yield from check_fallbacks(settings.all_models)
    yield from check_listeners(settings.server, settings.admin)
    yield from _check_certificate("server", settings.server)
    yield from _check_certificate("admin", settings.admin)
    yield from _check_store(settings)
    yield from check_traces(settings.traces)
    yield from check_admin_tokens(settings.admin.tokens, environment)
    yield from check_alerts(settings.alerts, environment)
    admin = settings.admin
    yield from check_oidc(admin.oidc, admin.public_url, environment, with_console=admin.console)


@cache
def known_names() -> frozenset[str]:
    """The names of all settings."""
    schema = Settings.model_json_schema()
    return frozenset(name for section in (schema, *schema["$defs"].values()) for name in section.get("properties", ()))


def _check_certificate(section: str, listener: ServerSettings | AdminSettings) -> Iterator[str]:
    """What is wrong with the files for TLS, which are looked at."""
    if listener.tls_cert_file is None:
        if listener.tls_key_file is not None:
            yield f"{section}.tls_key_file: is given without tls_cert_file, the certificate that it belongs to"
        return
    unreadable = [*_unreadable(f"{section}.tls_cert_file", listener.tls_cert_file)]
    if listener.tls_key_file is not None:
        unreadable += _unreadable(f"{section}.tls_key_file", listener.tls_key_file)
    if unreadable:
        yield from unreadable
        return
    try:
        read_certificate(listener.tls_cert_file, listener.tls_key_file)
    except ssl.SSLError as error:
        why = error.reason or error
        yield f"{section}.tls_cert_file: cannot be used ({why}): PEM is needed, and its own key without a password"
    except OSError as error:
        yield f"{section}.tls_cert_file: cannot be read: {error.strerror}"


def _unreadable(key: str, file: str) -> Iterator[str]:
    try:
        Path(file).read_bytes()
    except OSError as error:
        yield f"{key}: {file} cannot be read: {error.strerror}"


def _check_store(settings: Settings) -> Iterator[str]:
    if settings.server.max_body_memory < settings.server.max_body:
        yield "server.max_body_memory: is less than server.max_body, so that a body of that size could never be read"
    if settings.server.reuse_port and settings.embedded_folder is not None:
        yield "server.reuse_port: processes cannot share an embedded store; set store.url to one that they can"
    if settings.store.min_replicas and settings.embedded_folder is not None:
        yield "store.min_replicas: an embedded store has no replicas; set store.url to one that has"
