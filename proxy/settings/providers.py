"""One ``[[providers]]`` of the configuration."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import Field

from proxy.settings.sections import Section
from proxy.settings.values import BaseUrl, Bytes, Hosts, Name, Seconds, VariableName, Whole, one_of
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.provider import Provider, TlsFiles

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
        yield from _passwords(self.proxy_url(environment))

    def proxy_url(self, environment: Mapping[str, str]) -> str:
        """The proxy that it is reached by, empty where there is none."""
        return environment.get(self.proxy_env, "").strip() if self.proxy_env else ""

    def to_provider(self, environment: Mapping[str, str]) -> Provider:
        """The provider with its key, which comes from the environment only."""
        return Provider(
            name=self.name,
            dialect=self.dialect,
            base_url=self.base_url,
            api_key=environment.get(self.api_key_env, "").strip() if self.api_key_env else "",
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
        key = environment.get(provider.api_key_env or "", "").strip()
        if not (key.isascii() and key.isprintable()):
            yield f"providers[{index}].api_key_env: {provider.api_key_env} holds what cannot be in a header"
        elif provider.api_key_env is not None and not key:
            yield (
                f"providers[{index}].api_key_env: the environment has no {provider.api_key_env}: "
                f"export it with the key of provider {provider.name!r}"
            )
        yield from (f"providers[{index}].{mistake}" for mistake in _check_connection(provider, environment))


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
