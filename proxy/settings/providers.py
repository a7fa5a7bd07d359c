"""One ``[[providers]]`` of the configuration."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field

from proxy.domain.wording import EditForm
from proxy.settings.auth import AuthSettings, check_key
from proxy.settings.checking.doors import check_door
from proxy.settings.sections import Section
from proxy.settings.values import BaseUrl, Bytes, Hosts, Name, Seconds, VariableName, Whole, one_of
from proxy.upstream.auth.auth import Auth
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.dialects.polled import POLLED_DIALECTS
from proxy.upstream.provider import MODEL_PLACE, Provider, TlsFiles

ENDPOINTS = ("generations", "edits", "variations", "chat")
KEY_NAMES = frozenset(
    {"key", "apikey", "accesstoken", "authtoken", "token", "secret", "sig", "signature", "subscriptionkey", "password"}
)
"""Parameters of a query that hold a secret, without what may stand between their words."""


def _text_in_quotes(value: object) -> object:
    # TOML's dates look like the versions that such parameters hold.
    if not isinstance(value, str):
        raise ValueError('should be a text in quotes, like "2025-04-01-preview"')  # noqa: TRY004 - pydantic's
    return value


def _no_secret(query: dict[str, str]) -> dict[str, str]:
    for name in query:
        if name.lower().replace("-", "").replace("_", "") in KEY_NAMES:
            raise ValueError(
                f"{name} holds a secret, which has no place in a file that is shown around: "
                f'auth = {{ type = "query", name = "{name}", key_env = "…" }}'
            )
    return query


def _path(text: str) -> str:
    if not text.startswith("/") or any(mark in text for mark in "?# \\") or not text.isascii():
        raise ValueError("should be a path like /images/generations, below base_url; a query belongs into query")
    if "{" in text.replace(MODEL_PLACE, ""):
        raise ValueError(f"may have {MODEL_PLACE} in it, and nothing else in braces")
    return text


Query = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200)], Annotated[str, BeforeValidator(_text_in_quotes)]],
    AfterValidator(_no_secret),
]
Paths = dict[Annotated[str, one_of(*ENDPOINTS)], Annotated[str, AfterValidator(_path)]]


def _edit_form(given: object) -> EditForm:
    if given not in [*EditForm]:
        raise ValueError(f"should be one of {', '.join(EditForm)}")
    return EditForm(str(given))


_proxy = re.compile(r"http://(?:[^\s/@]+@)?(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?/?")


class TlsSettings(Section):
    """A provider's ``tls``."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def to_files(self) -> TlsFiles:
        """The same, with what is in the files now. Raises OSError."""
        names = (self.ca_file, self.cert_file, self.key_file)
        content = b"".join(sha256(Path(name).read_bytes()).digest() for name in names if name is not None)
        return TlsFiles(*names, content)


class ProviderSettings(Section):
    """One ``[[providers]]``."""

    name: Name
    dialect: Annotated[str, one_of(*DIALECTS)] = "openai"
    base_url: BaseUrl
    api_key_env: VariableName | None = None
    auth: AuthSettings | None = None
    query: Query = Field(default_factory=dict)
    paths: Paths = Field(default_factory=dict)
    send_model: bool = True
    edits: Annotated[EditForm, BeforeValidator(_edit_form)] = EditForm.FORM
    connect_timeout: Seconds = 5
    pool_timeout: Seconds = 5
    first_byte_timeout: Seconds = 300
    idle_timeout: Seconds = 300
    total_timeout: Seconds = 900
    max_connections: Annotated[Whole, Field(ge=1, le=100_000)] = 1_000
    max_response: Bytes = 64 * 2**20
    retry_bad_gateway: bool = False
    retry_late_first_byte: bool = False
    poll_interval: Seconds = 1
    max_poll_interval: Seconds = 5
    poll_hosts: Hosts | None = None
    result_hosts: Hosts | None = None
    tls: TlsSettings | None = None
    proxy_env: VariableName | None = None

    def secret_texts(self, environment: Mapping[str, str]) -> Iterator[str]:
        """What nobody may read in a log or an error."""
        if self.api_key_env:
            yield environment.get(self.api_key_env, "").strip()
        if self.auth is not None:
            yield from self.auth.secret_texts(environment)
        yield from _passwords(self.proxy_url(environment))

    def proxy_url(self, environment: Mapping[str, str]) -> str:
        """The proxy that it is reached by, empty where there is none."""
        return environment.get(self.proxy_env, "").strip() if self.proxy_env else ""

    def to_provider(self, environment: Mapping[str, str]) -> Provider:
        """The provider with its key, where that comes from the environment."""
        key = environment.get(self.api_key_env, "").strip() if self.api_key_env else ""
        return Provider(
            name=self.name,
            dialect=self.dialect,
            base_url=self.base_url,
            auth=Auth(key=key) if self.auth is None else self.auth.to_auth(environment),
            query=self.query,
            paths=self.paths,
            connect_timeout_s=self.connect_timeout,
            first_byte_timeout_s=self.first_byte_timeout,
            idle_timeout_s=self.idle_timeout,
            total_timeout_s=self.total_timeout,
            max_connections=self.max_connections,
            pool_timeout_s=self.pool_timeout,
            max_response_bytes=self.max_response,
            retry_bad_gateway=self.retry_bad_gateway,
            retry_late_first_byte=self.retry_late_first_byte,
            poll_interval_s=self.poll_interval,
            max_poll_interval_s=self.max_poll_interval,
            poll_hosts=self.poll_hosts,
            result_hosts=self.result_hosts,
            tls=None if self.tls is None else self.tls.to_files(),
            proxy_url=self.proxy_url(environment),
        )


def check_providers(providers: Sequence[ProviderSettings], environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with them together, and with what the environment has for them."""
    names = [provider.name for provider in providers]
    for index, provider in enumerate(providers):
        if names.index(provider.name) != index:
            yield f"providers[{index}].name: there is another provider {provider.name!r}"
        yield from (f"providers[{index}].{mistake}" for mistake in _check(provider, environment))


def _check(provider: ProviderSettings, environment: Mapping[str, str]) -> Iterator[str]:
    yield from check_door(provider.base_url, provider.paths)
    if provider.api_key_env is not None:
        yield from check_key(provider.api_key_env, provider.name, environment, "api_key_env")
    if provider.auth is not None:
        if provider.api_key_env is not None:
            yield "api_key_env: is given beside auth: it is short for one, so leave one of them out"
        if provider.auth.type == "query" and provider.auth.name in provider.query:
            yield f"query: has {provider.auth.name}, which auth carries the key in: leave it out"
        if provider.auth.type == "aws" and provider.dialect in POLLED_DIALECTS:
            yield f"auth.type: 'aws' signs what is sent once; the dialect {provider.dialect!r} has to be polled"
        yield from (f"auth.{mistake}" for mistake in provider.auth.mistakes(provider.name, environment))
    own_paths = DIALECTS[provider.dialect].own_paths
    for name in provider.paths:
        if name not in own_paths:
            known = (
                f"there are {', '.join(own_paths)}" if own_paths else "it makes its paths of the model and the method"
            )
            yield f"paths.{name}: the dialect {provider.dialect!r} has no such path; {known}"
    if provider.edits not in (EditForm.FORM, EditForm.NONE) and provider.dialect != "openai":
        yield f'edits: the dialect {provider.dialect!r} has its own way; leave it out, or say "none"'
    if provider.max_poll_interval < provider.poll_interval:
        yield f"max_poll_interval: is less than poll_interval, {provider.poll_interval:g}, from which the pauses grow"
    yield from _check_connection(provider, environment)


def _check_connection(provider: ProviderSettings, environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with its proxy and its files for TLS, which are looked at."""
    proxy = provider.proxy_url(environment)
    if provider.proxy_env is not None and not _proxy.fullmatch(proxy):
        there = "holds no address" if proxy else "is not in the environment: it should hold one"
        yield f"proxy_env: {provider.proxy_env} {there} like http://proxy.example:3128"
    tls = provider.tls
    if tls is None:
        return
    if not provider.base_url.startswith("https://"):
        yield "tls: base_url is no https:// address"
    if tls.key_file is not None and tls.cert_file is None:
        yield "tls.key_file: is given without cert_file, the certificate that it belongs to"
    else:
        try:
            tls.to_files().context()
        except ssl.SSLError as error:
            why = error.reason or error
            yield f"tls: the files cannot be used ({why}): PEM is needed, and a key of cert_file's without a password"
        except OSError as error:
            yield f"tls: {error.filename or 'a file'} cannot be read: {error.strerror}"


def _passwords(address: str) -> Iterator[str]:
    password = address.partition("://")[2].rpartition("@")[0].partition(":")[2]
    yield from {password, unquote(password)}
