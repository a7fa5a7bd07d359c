"""Where clients may come from: a Unix socket as well, and load balancers that ask nothing but whether to come."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import ADMIN_TOKEN, SampleProvider, ask, configuration, running_gateway
from tests.support.processes import wait_for
from tests.support.stores import store_server


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="lm-") as name:
        yield Path(name)


class UnixConnection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@pytest.mark.parametrize("workers", [1, 2])
def test_both_listeners_on_unix_sockets(provider: SampleProvider, folder: Path, workers: int) -> None:
    public, admin = folder / "public.sock", folder / "admin.sock"
    # A gateway that was killed has left it.
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(public))
    toml = configuration(
        f"embedded:{folder}/data",
        provider.url,
        server={
            "listen": f"unix:{public}",
            "socket_mode": "0666",
            "workers": workers,
            "trusted_proxies": ["unix"],
            "health_path": "/up",
        },
        admin={"listen": f"unix:{admin}"},
    )
    with running_gateway(folder, toml) as gateway:
        assert (gateway.url, gateway.admin_url) == (f"unix:{public}", f"unix:{admin}")
        assert [stat.S_IMODE(each.stat().st_mode) for each in (public, admin)] == [0o666, 0o660]
        environment = {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
        key = json.loads(
            lightmeter("keys", "create", "--team", "acme", "--new-team", "--json", environment=environment)
        )["key"]
        body = json.dumps({"model": "acme/image-1", "prompt": "a cube"})
        headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "X-Forwarded-For": "198.51.100.7",
        }
        connection = UnixConnection(public)
        connection.request("POST", "/v1/images/generations", body, headers)
        answer = connection.getresponse()
        assert (answer.status, len(json.loads(answer.read())["data"])) == (200, 1)
        connection.request("GET", "/up")
        assert connection.getresponse().status == 200
        connection.close()
        line = gateway.server.wait_for_output(r"\{.*\"outcome\":\"delivered\".*\}")[0]
        assert json.loads(line)["client"] == "198.51.100.7"
        described = UnixConnection(admin)
        described.request("GET", "/openapi.json")
        assert str(public) in json.loads(described.getresponse().read())["servers"][0]["description"]
        described.close()
        assert gateway.server.stop() == 0
    assert not public.exists()
    assert not admin.exists()


def health(url: str, method: str = "GET", **more: Any) -> tuple[int, bytes]:
    answer = ask(method, f"{url}/healthz", **more)
    return answer.status, answer.body


def test_load_balancers_see_on_the_public_listener_whether_to_come(provider: SampleProvider, tmp_path: Path) -> None:
    with store_server("valkey", tmp_path) as (store_url, store):
        toml = configuration(store_url, provider.url, server={"health_path": "/healthz"}, store={"timeout": 0.3})
        with running_gateway(tmp_path / "gateway", toml) as gateway, ThreadPoolExecutor(1) as threads:
            assert health(gateway.url) == health(gateway.url, "HEAD") == (200, b"")
            # All else about the path is as it was.
            assert health(gateway.url, "POST", body={})[0] == 404
            assert ask("GET", f"{gateway.url}/healthz/x").status == 404
            key = gateway.make_key()
            store.process.send_signal(signal.SIGSTOP)
            try:
                wait_for(lambda: health(gateway.url)[0] == 503, "the health to be gone")
            finally:
                store.process.send_signal(signal.SIGCONT)
            wait_for(lambda: health(gateway.url)[0] == 200, "the health to be back")
            slow = threads.submit(gateway.generate, key, prompt="[sample delay_ms=1000] x")
            wait_for(lambda: gateway.quota(key)["reserved"] == 5_000, "the request to be under way")
            gateway.server.process.send_signal(signal.SIGTERM)
            gateway.server.wait_for_output("stopping: ")
            assert health(gateway.url) == (503, b"")
            assert slow.result().status == 200
        # Probes are no requests.
        assert "/healthz" not in gateway.server.output


def test_there_is_no_health_on_the_public_listener_unless_it_is_asked_for(gateway: Any) -> None:
    assert ask("GET", f"{gateway.url}/healthz").status == 404
