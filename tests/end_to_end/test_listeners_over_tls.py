"""Listeners that speak TLS themselves, with a certificate that changes while they run."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import DefaultHttpxClient, OpenAI

from proxy.web.server.certificate import LOOK_EVERY_S
from tests.support.certificates import certify
from tests.support.gateways import (
    ADMIN_TOKEN,
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    configuration,
    image_model,
    running_gateway,
)
from tests.support.processes import ROOT, wait_for

NAME = "subjectAltName=IP:127.0.0.1"


@dataclass(frozen=True)
class Secure:
    """A gateway both of whose listeners speak TLS, and a context that believes it."""

    gateway: RunningGateway
    folder: Path
    context: ssl.SSLContext

    @property
    def port(self) -> int:
        """Of the public listener."""
        return urlsplit(self.gateway.url).port or 0

    def take(self, name: str) -> None:
        """Put another certificate in the place of the one that is there, the key first, as renewals do."""
        for kind in ("key", "crt"):
            new = self.folder / f"new.{kind}"
            new.write_bytes((self.folder / f"{name}.{kind}").read_bytes())
            new.rename(self.folder / f"shown.{kind}")

    def shown(self) -> str:
        """The name on the certificate of the public listener."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            self.context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            subject: Any = (secure.getpeercert() or {}).get("subject", ())
            return str(dict(part[0] for part in subject)["commonName"])

    def lightmeter(self, *arguments: str) -> Any:
        """What the command line answers."""
        variables = {
            "LIGHTMETER_ADMIN_URL": self.gateway.admin_url,
            "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN,
            "SSL_CERT_FILE": f"{self.folder}/authority.crt",
        }
        command = [sys.executable, "-m", "proxy.cli", *arguments, "--json"]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)


@pytest.fixture
def secure(provider: SampleProvider, tmp_path: Path) -> Iterator[Secure]:
    certify(tmp_path, "authority", "/CN=The authority of the tests")
    signed_by = ("-CA", f"{tmp_path}/authority.crt", "-CAkey", f"{tmp_path}/authority.key", "-addext", NAME)
    for name in ("shown", "next"):
        certify(tmp_path, name, f"/CN={name}", *signed_by)
    files = {"tls_cert_file": f"{tmp_path}/shown.crt", "tls_key_file": f"{tmp_path}/shown.key"}
    model = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, models=[model], server=files, admin=files)
    with running_gateway(tmp_path, toml) as gateway:
        yield Secure(gateway, tmp_path, ssl.create_default_context(cafile=f"{tmp_path}/authority.crt"))


def test_the_sdk_and_the_command_line_speak_tls_to_it(secure: Secure) -> None:
    assert secure.gateway.url.startswith("https://")
    assert secure.gateway.admin_url.startswith("https://")
    key = secure.lightmeter("keys", "create", "--team", "research", "--new-team", "--name", "first")["key"]
    client = OpenAI(
        api_key=key,
        base_url=f"{secure.gateway.url}/v1",
        http_client=DefaultHttpxClient(verify=secure.context),
        max_retries=0,
    )
    with client:
        images = client.images.generate(model="acme/image-1", prompt="a cube", size="1024x1024")
        assert len(images.data or ()) == 1
        prompt = "[sample event_delay_ms=300] a cube"
        events = client.images.generate(model="acme/image-1", prompt=prompt, stream=True, partial_images=2)
        came = [(event.type, time.monotonic()) for event in events]
        assert [kind for kind, _at in came] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
        assert came[-1][1] - came[0][1] > 0.3
    entries = secure.lightmeter("ledger", "list", "--team", "research")
    assert [entry["outcome"] for entry in entries["data"] if entry["kind"] == "request"] == ["delivered"] * 2


def test_the_health_check_of_the_image_asks_over_tls_where_it_has_to(secure: Secure) -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "deploy" / "docker" / "healthcheck.py")]
    listen = f"0.0.0.0:{urlsplit(secure.gateway.admin_url).port}"
    for certificate, status in (("shown.crt", 0), ("", 1)):
        variables = {"LIGHTMETER_ADMIN_LISTEN": listen, "LIGHTMETER_ADMIN_TLS_CERT_FILE": certificate}
        assert subprocess.run(command, env=variables, capture_output=True, check=False).returncode == status


def test_another_certificate_is_shown_from_when_it_is_there(secure: Secure) -> None:
    assert secure.shown() == "shown"
    # One that does not belong to its key changes nothing.
    broken = secure.folder / "shown.crt"
    whole = broken.read_bytes()
    broken.write_bytes((secure.folder / "next.crt").read_bytes())
    secure.gateway.server.wait_for_output("was not taken, and the one before stays")
    assert secure.shown() == "shown"
    broken.write_bytes(whole)
    secure.take("next")
    wait_for(lambda: secure.shown() == "next", "the next certificate", timeout_s=4 * LOOK_EVERY_S)


def test_what_is_no_tls_gets_no_answer_and_leaves_the_listener_alone(secure: Secure) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain:
        plain.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    assert secure.shown() == "shown"
    assert "Traceback" not in secure.gateway.server.output


def test_a_client_that_closes_has_left_and_its_image_is_charged(secure: Secure) -> None:
    key = secure.lightmeter("keys", "create", "--team", "research", "--new-team", "--name", "first")["key"]
    body = json.dumps({"model": "acme/image-1", "prompt": "[sample delay_ms=700] a cube"})
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain,
        secure.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall((head + body).encode())
        time.sleep(0.3)

    def outcomes() -> list[str]:
        entries = secure.lightmeter("ledger", "list", "--team", "research")["data"]
        return [entry["outcome"] for entry in entries if entry["kind"] == "request"]

    wait_for(lambda: outcomes() == ["abandoned"], "the settlement")
    assert secure.gateway.server.stop() == 0
