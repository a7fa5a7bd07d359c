"""The configuration for nginx: a real one with it, before a real gateway."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.servers import find_nginx
from tests.support.certificates import certify
from tests.support.forms import PNG
from tests.support.gateways import (
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)
from tests.support.processes import ROOT, Server, free_port, running, wait_for
from tests.support.requirements import lacking, program

FILE = ROOT / "deploy" / "nginx" / "lightmeter.conf"
HOST = "images.example.com"
CLIENT = "127.0.0.2"
"""Another address of this machine than the proxy's."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    with sample_provider(tmp_path_factory.mktemp("provider")) as server:
        yield server


@pytest.fixture
def gateway(provider: SampleProvider, tmp_path: Path) -> Iterator[RunningGateway]:
    model = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    trusting = {"listen": f"127.0.0.1:{free_port()}", "trusted_proxies": ["127.0.0.1"]}
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, models=[model], server=trusting)
    with running_gateway(tmp_path / "gateway", toml) as server:
        yield server


@dataclass(frozen=True)
class Answer:
    """What curl had back: the last status line, the headers, and the body."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


@dataclass(frozen=True)
class Nginx:
    """An nginx that runs."""

    port: int
    folder: Path
    server: Server

    def command(self, path: str, key: str, *options: str) -> list[str]:
        """curl's, by HTTP/2 over TLS, from another address than this machine's first."""
        return [
            *(program("curl", "curl"), "--silent", "--show-error", "--no-buffer", "--include", "--http2"),
            *("--interface", CLIENT, "--cacert", f"{self.folder}/{HOST}.crt"),
            *("--resolve", f"{HOST}:{self.port}:127.0.0.1"),
            *("--header", f"Authorization: Bearer {key}", *options, f"https://{HOST}:{self.port}{path}"),
        ]  # fmt: skip

    def ask(self, path: str, key: str, *options: str) -> Answer:
        """One request."""
        done = subprocess.run(self.command(path, key, *options), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, status = first.split()[:2]
        return Answer(version, int(status), dict(line.lower().split(": ", 1) for line in lines), body)

    def generate(self, key: str, **fields: Any) -> Answer:
        """One request for an image."""
        return self.ask("/v1/images/generations", key, *posting(**fields))


def posting(**fields: Any) -> tuple[str, ...]:
    body = {"model": "acme/image-1", "prompt": "a translucent blue cube", **fields}
    return ("--header", "Content-Type: application/json", "--data", json.dumps(body))


def configured(folder: Path, gateway_url: str, port: int) -> str:
    """The file as it is, but for ports and places."""
    text = FILE.read_text()
    for stands, is_so, times in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl", 1),
        ("    listen [::]:443 ssl http2;\n", "", 1),
        ("127.0.0.1:8080;", f"{gateway_url.removeprefix('http://')};", 1),
        ("/etc/nginx/tls/", f"{folder}/", 2),
    ):
        assert text.count(stands) == times, stands
        text = text.replace(stands, is_so)
    return text


@pytest.fixture
def nginx(gateway: RunningGateway, tmp_path: Path) -> Iterator[Nginx]:
    binary = find_nginx() or lacking("needs nginx: apt-get install nginx-light")
    certify(tmp_path, HOST, f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}")
    port = free_port()
    (tmp_path / "site.conf").write_text(configured(tmp_path, gateway.url, port))
    (tmp_path / "nginx.conf").write_text(
        # Its workers would be nobody, who may not enter the temporary folder.
        f"{'user root;' if os.geteuid() == 0 else ''}\ndaemon off;\nworker_processes 1;\npid {tmp_path}/nginx.pid;\n"
        "events { worker_connections 64; }\n"
        f"http {{ access_log {tmp_path}/access.log; client_body_temp_path {tmp_path}/body; "
        f"proxy_temp_path {tmp_path}/proxied; include {tmp_path}/site.conf; }}\n"
    )
    command = [binary, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "nginx-error.log")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr
    with running(command, tmp_path / "nginx.log") as server:
        wait_for(lambda: listens(port), "nginx")
        yield Nginx(port, tmp_path, server)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def request_lines(gateway: RunningGateway) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in gateway.server.output.splitlines() if line.startswith("{"))
    return [line for line in lines if line["message"] == "request"]


def test_events_pass_one_by_one_over_tls_and_http_2(nginx: Nginx, gateway: RunningGateway) -> None:
    key = gateway.make_key()
    pause_s = 0.6
    fields = posting(stream=True, partial_images=2, prompt=f"[sample event_delay_ms={pause_s * 1000:.0f}] a cube")
    came: list[float] = []
    with subprocess.Popen(
        nginx.command("/v1/images/generations", key, *fields), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as curl:
        assert curl.stdout is not None
        assert curl.stdout.readline().startswith(b"HTTP/2 200")
        came.extend(time.monotonic() for line in curl.stdout if line.startswith(b"event: "))
    assert curl.returncode == 0
    assert len(came) == 3
    assert all(after - before > pause_s / 2 for before, after in pairwise(came))
    gateway.check_books(key)


def test_the_client_is_who_nginx_says_and_not_who_it_says_it_is(nginx: Nginx, gateway: RunningGateway) -> None:
    key = gateway.make_key()
    assert nginx.ask("/v1/models", key, "--header", "X-Forwarded-For: 198.51.100.1").status == 200
    wait_for(lambda: bool(request_lines(gateway)), "the line of the request")
    assert [line["client"] for line in request_lines(gateway)] == [CLIENT]


def test_wrong_admin_tokens_by_way_of_a_proxy_hold_up_their_senders_only(gateway: RunningGateway) -> None:
    """The admin listener believes the same proxies: its patience is with the clients, not with their proxy."""
    proxied = {"X-Forwarded-For": "198.51.100.9"}
    for _ in range(2):
        refused = ask("GET", f"{gateway.admin_url}/admin/v1/keys", key="a-token-that-nobody-made", headers=proxied)
        assert refused.status == 401
    gateway.server.wait_for_output(r"2 wrong admin token\(s\) or sign-in code\(s\) from 198\.51\.100\.9")


def test_an_upload_passes(nginx: Nginx, gateway: RunningGateway, tmp_path: Path) -> None:
    key = gateway.make_key()
    large = tmp_path / "large.png"
    large.write_bytes(PNG + bytes(3 * 2**20))
    form = ("--form", "model=acme/image-1", "--form", "prompt=a hat", "--form", f"image=@{large};type=image/png")
    answer = nginx.ask("/v1/images/edits", key, *form)
    assert (answer.version, answer.status) == ("HTTP/2", 200), answer.body
    assert len(json.loads(answer.body)["data"]) == 1


def test_nothing_but_the_api_is_public(nginx: Nginx, gateway: RunningGateway) -> None:
    for path in ("/metrics", "/healthz", "/admin/v1/keys", "/", "/openapi.json"):
        answer = nginx.ask(path, gateway.make_key())
        assert (answer.status, answer.error["code"]) == (404, "not_found")


def test_nginx_answers_for_a_gateway_that_is_gone_in_the_form_of_its_errors(
    nginx: Nginx, gateway: RunningGateway, provider: SampleProvider
) -> None:
    key = gateway.make_key()
    provider.clear()
    with ThreadPoolExecutor() as threads:
        # Killed while an image is made: it may have been paid for, and is not to be asked for again.
        cut_off = threads.submit(nginx.generate, key, prompt="[sample delay_ms=3000] a cube")
        wait_for(lambda: bool(provider.requests()), "the request")
        gateway.server.process.kill()
        answer = cut_off.result()
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert answer.error == {
        "message": "The gateway cannot be reached, or broke off.",
        "type": "api_error",
        "param": None,
        "code": "upstream_error",
    }
    # Not reached at all: nothing was drawn.
    gateway.server.process.wait()
    again = nginx.generate(key)
    assert (again.status, again.headers["x-should-retry"], again.error["code"]) == (502, "true", "upstream_error")
    assert re.fullmatch(r"[0-9a-f]{32}", again.headers["x-request-id"])
    assert len(provider.requests()) == 1


def test_a_body_past_the_bound_is_refused_in_the_form_of_the_gateways_errors(
    nginx: Nginx, gateway: RunningGateway
) -> None:
    declared = ("--header", "Content-Length: 2000000000", "--data", "x")
    answer = nginx.ask("/v1/images/edits", gateway.make_key(), *declared)
    assert (answer.status, answer.error["code"]) == (413, "payload_too_large")


def test_the_waits_are_longer_than_the_gateways_own() -> None:
    text, settings = FILE.read_text(), (ROOT / "config" / "lightmeter.toml").read_text()

    def seconds(name: str) -> int:
        match = re.search(rf"^\s*{name} (\d+)s;", text, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def default(name: str) -> int:
        match = re.search(rf"^# {name} = (\d+)", settings, re.MULTILINE)
        assert match is not None
        return int(match[1])

    upstream = text.partition("upstream lightmeter {")[2].partition("}")[0]
    idle = re.search(r"keepalive_timeout (\d+)s;", upstream)
    assert idle is not None
    assert int(idle[1]) < default("keepalive_timeout")
    assert seconds("proxy_read_timeout") > default("total_timeout")
    assert seconds("send_timeout") > default("write_timeout")
