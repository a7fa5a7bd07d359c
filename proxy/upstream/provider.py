"""What is configured of a provider."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from yarl import URL

from proxy.upstream.auth.auth import BY_NOTHING, Auth

MODEL_PLACE = "{upstream_model}"
"""In a ``base_url`` or a path: what the provider calls the model."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Whom a provider's certificate is believed from, and the certificate that is shown to it; each the path of a file.

    ``content_sha256`` tells files with the same names and another content apart.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    content_sha256: bytes = b""

    def context(self) -> ssl.SSLContext:
        """For connections to the provider. Raises OSError, of which ``ssl.SSLError`` is one."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            # Asked for, a password would be asked for at a terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        return context


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. ``query`` is added to every address, and ``paths`` are where its endpoints are, by their names
    (``generations``, ``edits``, ``variations``, ``chat``), where that is not the dialect's own place.

    ``pool_timeout_s`` is how long a request waits for one of ``max_connections``.

    ``first_byte_timeout_s`` runs from the request to the answer's headers, ``idle_timeout_s`` between two pieces of its
    body, ``total_timeout_s`` over all of it.

    ``retry_bad_gateway`` and ``retry_late_first_byte`` say that a request which ended so was not worked on, and may go
    to another deployment; only the provider's contract can promise it.

    A provider that accepts tasks is asked about one after ``poll_interval_s``, then ever more seldom, up to
    ``max_poll_interval_s``: at its ``base_url``'s host or one of ``poll_hosts``. Images are fetched from
    ``result_hosts``. None stands for those of its dialect.

    With ``proxy_url`` its connections go by way of that HTTP proxy; what the environment says of proxies is not heard.
    """

    name: str
    dialect: str
    base_url: str
    auth: Auth = BY_NOTHING
    query: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 300.0
    idle_timeout_s: float = 300.0
    total_timeout_s: float = 900.0
    max_connections: int = 1_000
    pool_timeout_s: float = 5.0
    max_response_bytes: int = 64 * 2**20
    retry_bad_gateway: bool = False
    retry_late_first_byte: bool = False
    poll_interval_s: float = 1.0
    max_poll_interval_s: float = 5.0
    poll_hosts: tuple[str, ...] | None = None
    result_hosts: tuple[str, ...] | None = None
    tls: TlsFiles | None = None
    proxy_url: str = field(repr=False, default="")


class Addresses:
    """Where a provider is asked, each address made once."""

    def __init__(self, provider: Provider, own_paths: Mapping[str, str], query: Mapping[str, str]) -> None:
        """``own_paths`` are the dialect's, by the names of the endpoints; ``query`` is that of every request."""
        self._base_url = provider.base_url.rstrip("/")
        self._query = {**provider.query, **query}
        self._paths = {own_paths[name]: path for name, path in provider.paths.items() if name in own_paths}
        self._names_model = any(MODEL_PLACE in each for each in (self._base_url, *self._paths.values()))
        self._urls: dict[str | tuple[str, str], URL] = {}

    def of(self, path: str, upstream_model: str) -> URL:
        """Where the dialect's ``path`` is."""
        key = (path, upstream_model) if self._names_model else path
        url = self._urls.get(key)
        if url is None:
            base, own = self._base_url, self._paths.get(path, path)
            if "%" in path and own == path:
                # What a dialect has escaped stays so: the library would write %3A as ":".
                url = URL(str(URL(base.replace(MODEL_PLACE, quote(upstream_model, safe="/")))) + path, encoded=True)
            else:
                url = URL((base + own).replace(MODEL_PLACE, quote(upstream_model, safe="/")))
            url = self._urls[key] = url.extend_query(self._query)
        return url
