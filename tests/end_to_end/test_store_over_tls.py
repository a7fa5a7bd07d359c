"""A store that is reached over TLS, with a certificate that has to be right."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import certify
from tests.support.gateways import SampleProvider, configuration, running_gateway
from tests.support.processes import free_port, running, wait_for
from tests.support.requirements import program

PRICE = 5_000


@dataclass(frozen=True)
class SecureStore:
    """A store's TLS port, and the files that a client needs."""

    port: int
    folder: Path

    def url(self, *, host: str = "localhost", **options: str) -> str:
        """Its address; it asks for a client's certificate."""
        options = {"ssl_certfile": f"{self.folder}/store.crt", "ssl_keyfile": f"{self.folder}/store.key"} | options
        return f"rediss://{host}:{self.port}/0?" + "&".join(f"{name}={value}" for name, value in options.items())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureStore]:
    """A store for one name, with the certificate of an authority that nobody else knows."""
    folder = tmp_path_factory.mktemp("tls")
    certify(folder, "authority", "/CN=The authority of the tests")
    signed_by = ("-CA", f"{folder}/authority.crt", "-CAkey", f"{folder}/authority.key")
    certify(folder, "store", "/CN=localhost", *signed_by, "-addext", "subjectAltName=DNS:localhost")
    port = free_port()
    flags = ["--port", "0", "--tls-port", str(port), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1"]
    flags += ["--tls-cert-file", f"{folder}/store.crt", "--tls-key-file", f"{folder}/store.key"]
    flags += ["--tls-ca-cert-file", f"{folder}/authority.crt"]
    with running([program("redis-server", "redis-server"), *flags], folder / "store.log") as server:
        wait_for(lambda: "Ready to accept connections" in server.output, "the store")
        yield SecureStore(port, folder)


def test_a_certificate_of_a_known_authority_is_accepted(
    store: SecureStore, provider: SampleProvider, tmp_path: Path
) -> None:
    (tmp_path / "authorities").mkdir()
    certificate = (store.folder / "authority.crt").read_text()
    hashed = [program("openssl", "openssl"), "x509", "-hash", "-noout", "-in", f"{store.folder}/authority.crt"]
    name = subprocess.run(hashed, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "authorities" / f"{name}.0").write_text(certificate)
    for number, options in enumerate(
        (
            {"ssl_ca_certs": f"{store.folder}/authority.crt"},
            {"ssl_ca_path": f"{tmp_path}/authorities"},
            {"ssl_cert_reqs": "none"},
        )
    ):
        with running_gateway(tmp_path / str(number), configuration(store.url(**options), provider.url)) as gateway:
            key = gateway.make_key(PRICE)
            assert gateway.generate(key).status == 200
            gateway.check_books(key)


@pytest.mark.parametrize(
    ("host", "options", "accepted"),
    [
        ("localhost", {}, False),
        ("127.0.0.1", {"ssl_ca_certs": "authority.crt"}, False),
        ("127.0.0.1", {"ssl_ca_certs": "authority.crt", "ssl_check_hostname": "false"}, True),
    ],
    ids=["of an unknown authority", "for another name", "for another name, which is not looked at"],
)
def test_a_certificate_that_is_not_for_this_store(
    store: SecureStore, provider: SampleProvider, tmp_path: Path, host: str, options: dict[str, str], accepted: bool
) -> None:
    if "ssl_ca_certs" in options:
        options = {**options, "ssl_ca_certs": f"{store.folder}/authority.crt"}
    with running_gateway(tmp_path, configuration(store.url(host=host, **options), provider.url)) as gateway:
        answer = gateway.admin("POST", "/admin/v1/keys", body={"team": "acme"})
        assert answer.status == (201 if accepted else 503)
        if not accepted:
            gateway.server.wait_to_say("certificate verify failed")


def test_a_certificate_file_that_is_not_there_is_told(
    store: SecureStore, provider: SampleProvider, tmp_path: Path
) -> None:
    address = store.url(ssl_ca_certs=f"{tmp_path}/none.crt")
    with running_gateway(tmp_path, configuration(address, provider.url)) as gateway:
        assert gateway.admin("POST", "/admin/v1/keys", body={"team": "acme"}).status == 503
        gateway.server.wait_to_say("the TLS settings of the address cannot be used")
