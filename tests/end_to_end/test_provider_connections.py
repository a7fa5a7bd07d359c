"""Providers behind a company's own authority, behind a certificate that they ask for, and behind a proxy."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.certificates import certify
from tests.support.gateways import RunningGateway, SampleProvider, configuration, running_gateway
from tests.support.middlemen import HttpProxy, TlsFront, http_proxy, tls_front
from tests.support.polled_provider import polled_provider
from tests.support.processes import wait_for

PASSWORD = "the-password-of-the-proxy"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of one authority: of the provider, and of two gateways."""
    folder = tmp_path_factory.mktemp("tls")
    certify(folder, "authority", "/CN=The authority of the tests")
    signed_by = ("-CA", f"{folder}/authority.crt", "-CAkey", f"{folder}/authority.key")
    certify(folder, "provider", "/CN=localhost", *signed_by, "-addext", "subjectAltName=DNS:localhost")
    for name in ("first", "second"):
        certify(folder, name, f"/CN=the {name} gateway", *signed_by, "-addext", "extendedKeyUsage=clientAuth")
    return folder


@pytest.fixture
def front(provider: SampleProvider, authority: Path) -> Iterator[TlsFront]:
    """The provider, by TLS with the certificate of an authority that nobody else knows; it asks for one as well."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority / "authority.crt"))
    context.load_cert_chain(authority / "provider.crt", authority / "provider.key")
    context.verify_mode = ssl.CERT_REQUIRED
    with tls_front(urlsplit(provider.url).port or 0, context) as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    with http_proxy("me", PASSWORD) as running:
        yield running


def tls(folder: Path, name: str | None = "first") -> dict[str, str]:
    own = {} if name is None else {"cert_file": f"{folder}/{name}.crt", "key_file": f"{folder}/{name}.key"}
    return {"ca_file": f"{folder}/authority.crt", **own}


def configured(folder: Path, url: str, files: dict[str, str] | None = None, **provider: Any) -> str:
    toml = configuration(f"embedded:{folder}/data", url, provider=provider)
    if files is None:
        return toml
    table = ", ".join(f"{name} = {json.dumps(path)}" for name, path in files.items())
    return toml.replace("[[providers]]\n", f"[[providers]]\ntls = {{ {table} }}\n")


def test_it_believes_the_authority_that_is_named_and_shows_its_certificate(
    front: TlsFront, authority: Path, tmp_path: Path
) -> None:
    with running_gateway(tmp_path, configured(tmp_path, front.url, tls(authority))) as gateway:
        key = gateway.make_key()
        for _ in range(3):
            assert gateway.generate(key).status == 200
        assert set(front.clients) == {"the first gateway"}
        gateway.check_books(key)


def unreachable(gateway: RunningGateway, saying: str) -> None:
    key = gateway.make_key()
    answer = gateway.generate(key)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
    gateway.server.wait_for_output(saying)
    (entry,) = gateway.ledger(key)
    assert (entry["charged"], entry["images"]) == (0, 0)


def test_nobody_else_is_believed(front: TlsFront, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configured(tmp_path, front.url)) as gateway:
        unreachable(gateway, "certificate verify failed")
    assert front.clients == []


def test_another_content_of_its_files_counts_from_the_next_reload_on(
    front: TlsFront, authority: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()

    def take(name: str) -> None:
        for kind in ("crt", "key"):
            (own / f"gateway.{kind}").write_bytes((authority / f"{name}.{kind}").read_bytes())

    take("first")
    files = tls(authority) | {"cert_file": f"{own}/gateway.crt", "key_file": f"{own}/gateway.key"}
    with running_gateway(tmp_path, configured(tmp_path, front.url, files)) as gateway:
        key = gateway.make_key()
        assert gateway.generate(key).status == 200
        take("second")
        gateway.server.process.send_signal(signal.SIGHUP)
        gateway.server.wait_for_output("the configuration was read again")
        assert gateway.generate(key).status == 200
        assert front.clients == ["the first gateway", "the second gateway"]


def test_a_provider_is_reached_by_its_proxy_in_a_tunnel(
    front: TlsFront, authority: Path, proxy: HttpProxy, tmp_path: Path
) -> None:
    toml = configured(tmp_path, front.url, tls(authority), proxy_env="COMPANY_PROXY")
    address = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
    with running_gateway(tmp_path, toml, {"COMPANY_PROXY": address}) as gateway:
        key = gateway.make_key()
        for _ in range(3):
            assert gateway.generate(key).status == 200
        assert set(proxy.asked) == {f"CONNECT {front.url.removeprefix('https://')} HTTP/1.1"}
        assert set(front.clients) == {"the first gateway"}
        gateway.check_books(key)


def test_without_tls_the_proxy_is_asked_for_whole_addresses(
    provider: SampleProvider, proxy: HttpProxy, tmp_path: Path
) -> None:
    address = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
    toml = configured(tmp_path, provider.url, proxy_env="COMPANY_PROXY")
    with running_gateway(tmp_path, toml, {"COMPANY_PROXY": address}) as gateway:
        assert gateway.generate(gateway.make_key()).status == 200
    assert proxy.asked == [f"POST {provider.url}/v1/images/generations HTTP/1.1"]


def test_a_proxy_that_refuses_has_sent_nothing_and_its_password_is_in_no_log(
    front: TlsFront, authority: Path, proxy: HttpProxy, tmp_path: Path
) -> None:
    toml = configured(tmp_path, front.url, tls(authority), proxy_env="COMPANY_PROXY")
    with running_gateway(
        tmp_path, toml, {"COMPANY_PROXY": f"http://me:not-{PASSWORD}@127.0.0.1:{proxy.port}"}
    ) as gateway:
        unreachable(gateway, "provider sample cannot be reached: .*407")
        wait_for(lambda: '"message":"request"' in gateway.server.output, "the line of the request")
        assert PASSWORD not in gateway.server.output
    assert front.clients == []


def test_images_of_a_polled_provider_come_by_way_of_its_proxy(proxy: HttpProxy, tmp_path: Path) -> None:
    environment = {"PROXY": f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"}
    with polled_provider() as polled:
        hosts = [polled.url]
        settings: dict[str, Any] = {
            "dialect": "bfl",
            "poll_interval": 0.05,
            "result_hosts": hosts,
            "proxy_env": "PROXY",
        }
        toml = configured(tmp_path, polled.url, **settings)
        with running_gateway(tmp_path, toml, environment) as gateway:
            assert gateway.generate(gateway.make_key(), response_format="b64_json").status == 200
    ways = [line.partition(polled.url)[2].partition("?")[0] for line in proxy.asked]
    assert "/v1/image-1 HTTP/1.1" in ways
    assert "/files/task-1-0.png" in ways


def test_images_of_a_polled_provider_are_fetched_without_its_certificate(authority: Path, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority / "authority.crt"))
    context.load_cert_chain(authority / "provider.crt", authority / "provider.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    with polled_provider() as polled:
        port = urlsplit(polled.url).port or 0
        with tls_front(port, context) as asked, tls_front(port, context) as fetched_from:
            polled.poll_host, polled.result_host = asked.url, fetched_from.url
            hosts = [fetched_from.url.removeprefix("https://")]
            settings: dict[str, Any] = {"dialect": "bfl", "poll_interval": 0.05, "result_hosts": hosts}
            toml = configured(tmp_path, asked.url, tls(authority), **settings)
            with running_gateway(tmp_path, toml) as gateway:
                assert gateway.generate(gateway.make_key(), response_format="b64_json").status == 200
            assert set(asked.clients) == {"the first gateway"}
            assert fetched_from.clients == []
    assert len(polled.fetches) == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_the_environment_alone_brings_no_proxy(
    provider: SampleProvider, proxy: HttpProxy, tmp_path: Path, name: str
) -> None:
    address = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
    with running_gateway(tmp_path, configured(tmp_path, provider.url), {name: address, "no_proxy": ""}) as gateway:
        assert gateway.generate(gateway.make_key()).status == 200
    assert proxy.asked == []
