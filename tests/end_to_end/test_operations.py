from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateways import (
    PROVIDER_KEY,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    key_id,
    running_gateway,
)
from tests.support.processes import ROOT, free_port, python_module, running, wait_for
from tests.support.stores import store_server

SECRETS = {"SAMPLE_PROVIDER_KEY": PROVIDER_KEY}
WANTED = {
    "lightmeter_requests",
    "lightmeter_request_duration_seconds",
    "lightmeter_overhead_seconds",
    "lightmeter_upstream_duration_seconds",
    "lightmeter_upstream_requests",
    "lightmeter_images",
    "lightmeter_quota_units",
    "lightmeter_rejections",
    "lightmeter_in_flight_requests",
    "lightmeter_store_duration_seconds",
    "lightmeter_response_bytes",
    "lightmeter_build_info",
    "process_resident_memory_bytes",
}


def samples(gateway: RunningGateway) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(gateway.metrics())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def test_metrics_count_what_happened(provider: SampleProvider, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway:
        key = gateway.make_key(40_000)
        gateway.generate(key, n=2)
        gateway.generate(key, prompt="[sample images=3] more than asked", image_config={"image_size": "4K"})
        gateway.generate(key)
        gateway.generate("lm_nonsense")
        seen = samples(gateway)
        families = {family.name for family in text_string_to_metric_families(gateway.metrics())}
    assert families >= WANTED

    def value(metric: str, **labels: str) -> float | None:
        return seen.get((f"lightmeter_{metric}", frozenset(labels.items())))

    model, endpoint = "acme/image-1", "/v1/images/generations"
    assert value("requests_total", endpoint=endpoint, model=model, outcome="delivered") == 2
    assert value("requests_total", endpoint=endpoint, model=model, outcome="rejected") == 1
    assert value("requests_total", endpoint=endpoint, model="", outcome="rejected") == 1
    assert value("images_total", model=model, tier="standard") == 2
    assert value("images_total", model=model, tier="4k") == 3
    assert value("quota_units_total", model=model, state="reserved") == 10_000 + 12_500
    assert value("quota_units_total", model=model, state="charged") == 10_000 + 37_500
    assert value("quota_units_total", model=model, state="overage") == 25_000
    assert value("quota_units_total", model=model, state="released") == 0
    assert value("quota_units_held", model=model) == 0
    assert value("in_flight_requests", model=model) == 0
    assert value("rejections_total", reason="insufficient_quota") == 1
    assert value("rejections_total", reason="invalid_api_key") == 1
    assert value("upstream_requests_total", provider="sample", model=model, status="200") == 2
    assert value("store_duration_seconds_count", operation="admit") == 3
    assert value("store_duration_seconds_count", operation="settle") == 2
    assert value("overhead_seconds_count") == 4
    assert (value("response_bytes_total", model=model) or 0) > 100


def test_each_request_is_one_line_of_json_without_secrets(provider: SampleProvider, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway:
        key = gateway.make_key(100_000)
        answer = gateway.generate(key, prompt="a secret wish", n=2, response_format="b64_json")
        gateway.generate(key, prompt="[sample status=400] a secret wish")
        gateway.server.wait_for_output(r'"outcome":"refused"')
    output = gateway.server.output
    lines = [json.loads(line) for line in output.splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["outcome"] for line in requests] == ["delivered", "refused"]
    first = requests[0]
    assert first["request_id"] == answer.headers["x-request-id"]
    assert first["key"] == key_id(key)
    assert (first["model"], first["images"], first["units"]) == ("acme/image-1", 2, 10_000)
    assert first["provider_ms"] > 0
    assert first["own_ms"] > 0
    assert first["total_ms"] >= first["provider_ms"]
    for secret in ("secret wish", key, PROVIDER_KEY, answer.json["data"][0]["b64_json"][:100]):
        assert secret not in output


def test_health_readiness_and_the_token(gateway: RunningGateway) -> None:
    assert ask("GET", f"{gateway.admin_url}/healthz").json == {"status": "ok"}
    assert ask("GET", f"{gateway.admin_url}/readyz").json == {"status": "ready"}
    for path in ("/admin/v1/keys", "/admin/v1/ledger", "/admin/v1/anything"):
        assert ask("GET", gateway.admin_url + path).status == 401
        assert ask("GET", gateway.admin_url + path, key="wrong").status == 401
    # Neither listener serves what belongs to the other.
    for path in ("/metrics", "/healthz", "/admin/v1/keys"):
        assert ask("GET", gateway.url + path).status == 404
    assert ask("GET", f"{gateway.admin_url}/v1/models").status == 404


def test_a_store_that_goes_away_and_comes_back(provider: SampleProvider, backend: str, tmp_path: Path) -> None:
    with (
        store_server(backend, tmp_path) as (url, store),
        running_gateway(tmp_path / "gateway", configuration(url, provider.url, store={"timeout": 0.3})) as gateway,
    ):
        key = gateway.make_key(100_000)
        assert gateway.generate(key).status == 200
        store.process.send_signal(signal.SIGSTOP)
        try:
            before = provider.images_made()
            answer = gateway.generate(key)
            assert (answer.status, answer.json["error"]["code"]) == (503, "store_unavailable")
            assert answer.headers["Retry-After"] == "1"
            assert samples(gateway)["lightmeter_store_errors_total", frozenset({("operation", "admit")})] == 1
            assert ask("GET", f"{gateway.admin_url}/readyz").status == 503
            assert ask("GET", f"{gateway.admin_url}/healthz").status == 200
            assert provider.images_made() == before
        finally:
            store.process.send_signal(signal.SIGCONT)
        wait_for(lambda: ask("GET", f"{gateway.admin_url}/readyz").status == 200, "readiness")
        assert gateway.generate(key).status == 200


def test_stopping_lets_requests_in_flight_finish(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url)
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key(100_000)
        statuses: list[int] = []

        def generate() -> None:
            statuses.append(gateway.generate(key, prompt="[sample delay_ms=800] a cube").status)

        threads = [threading.Thread(target=generate) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_for(lambda: gateway.quota(key)["reserved"] == 25_000, "five requests in flight")
        assert gateway.server.stop() == 0
        for thread in threads:
            thread.join()
        assert statuses == [200] * 5
    with running_gateway(tmp_path, toml) as again:
        assert again.quota(key) == {"limit": 100_000, "posted": 25_000, "reserved": 0, "remaining": 75_000}
        again.check_books(key)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_gateway_stops_at_once_and_well(
    provider: SampleProvider, tmp_path: Path, number: signal.Signals
) -> None:
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway:
        assert gateway.server.stop(number) == 0
        assert "Traceback" not in gateway.server.output


def test_a_second_signal_ends_the_process_at_once(provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, server={"drain_seconds": 60})
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key(100_000)

        def generate() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                gateway.generate(key, prompt="[sample delay_ms=30000] a cube")

        thread = threading.Thread(target=generate)
        thread.start()
        wait_for(lambda: gateway.quota(key)["reserved"] == 5_000, "a request in flight")
        gateway.server.process.send_signal(signal.SIGTERM)
        gateway.server.wait_for_output("stopping: 1 requests in flight")
        assert gateway.server.stop() == 128 + signal.SIGTERM
        thread.join()
    # The store that it left behind is taken over, with all that it knows.
    with running_gateway(tmp_path, toml) as again:
        assert again.quota(key)["limit"] == 100_000


def test_a_gateway_that_is_still_starting_stops_at_once(provider: SampleProvider, tmp_path: Path) -> None:
    # A server binary that never answers keeps the start from ending.
    silent = tmp_path / "silent-server"
    silent.write_text("#!/bin/sh\nexec sleep 300\n")
    silent.chmod(0o755)
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{tmp_path}/data", provider.url, store={"server": str(silent)}))
    command = python_module("proxy.cli", "serve", "--config", str(path))
    with running(command, tmp_path / "log", {"SAMPLE_PROVIDER_KEY": "x"}) as server:
        wait_for((tmp_path / "data" / "valkey.log").exists, "the start of the store")
        assert server.stop() == 0
        assert "Traceback" not in server.output


def test_requests_that_the_drain_breaks_off_are_settled_also_with_a_slow_store(
    provider: SampleProvider, backend: str, tmp_path: Path
) -> None:
    with store_server(backend, tmp_path) as (url, store):
        toml = configuration(url, provider.url, server={"drain_seconds": 0.3})
        with running_gateway(tmp_path / "gateway", toml) as gateway:
            key = gateway.make_key(100_000)

            def generate() -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    gateway.generate(key, prompt="[sample delay_ms=20000] a cube")

            threads = [threading.Thread(target=generate) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait_for(lambda: gateway.quota(key)["reserved"] == 15_000, "three requests in flight")
            gateway.server.process.send_signal(signal.SIGTERM)
            store.process.send_signal(signal.SIGSTOP)
            gateway.server.wait_for_output("were broken off|cannot be reached")
            store.process.send_signal(signal.SIGCONT)
            assert gateway.server.process.wait(30) == 0
            for thread in threads:
                thread.join()
        with running_gateway(tmp_path / "again", toml) as again:
            assert again.quota(key) == {"limit": 100_000, "posted": 0, "reserved": 0, "remaining": 100_000}
            assert [entry["outcome"] for entry in again.ledger(key)] == ["failed"] * 3
            again.check_books(key)


def test_a_log_that_cannot_be_written_keeps_no_answer_from_its_client(provider: SampleProvider, tmp_path: Path) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(
        configuration(f"embedded:{tmp_path}/data", provider.url, server={"listen": f"127.0.0.1:{free_port()}"})
    )
    command = python_module("proxy.cli", "serve", "--config", str(path))
    environment = {**os.environ, "SAMPLE_PROVIDER_KEY": PROVIDER_KEY, "LIGHTMETER_ADMIN_TOKEN": "t" * 20}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=ROOT)
    assert process.stderr is not None
    addresses = next(line for line in process.stderr if b"listening on" in line)
    match = re.search(rb"listening on (http://\S+), admin on (http://[^\s\"]+)", addresses)
    assert match is not None
    process.stderr.close()
    body = {"team": "acme"}
    key = ask("POST", f"{match[2].decode()}/admin/v1/keys", key="t" * 20, body=body).json["key"]
    try:
        body = {"model": "acme/image-1", "prompt": "a cube"}
        statuses = {
            ask("POST", f"{match[1].decode()}/v1/images/generations", key=key, body=body).status for _ in range(150)
        }
        assert statuses == {200}
    finally:
        process.terminate()
        process.wait(20)


def test_an_admin_token_file_with_nothing_in_it_opens_nothing(provider: SampleProvider, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").touch()
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{tmp_path}/data", provider.url))
    with running(python_module("proxy.cli", "serve", "--config", str(path)), tmp_path / "log", SECRETS) as server:
        assert server.process.wait(20) == 1
    server.wait_to_say("holds no token")


def test_an_address_that_cannot_be_is_told_in_the_log_and_not_waited_for(
    provider: SampleProvider, tmp_path: Path
) -> None:
    toml = configuration("redis://a..b:6379", provider.url, server={"data_folder": str(tmp_path / "data")})
    with running_gateway(tmp_path, toml) as gateway:
        assert ask("GET", f"{gateway.admin_url}/readyz").status == 503
        gateway.server.wait_for_output("the store at store.url does not answer")


def test_a_replica_is_not_ready(provider: SampleProvider, backend: str, tmp_path: Path) -> None:
    with (
        store_server(backend, tmp_path) as (url, _store),
        running_gateway(tmp_path / "gateway", configuration(url, provider.url)) as gateway,
        redis.Redis.from_url(url) as client,
    ):
        assert ask("GET", f"{gateway.admin_url}/readyz").status == 200
        client.replicaof("127.0.0.1", free_port())
        assert ask("GET", f"{gateway.admin_url}/readyz").status == 503
        client.replicaof("NO", "ONE")
        assert ask("GET", f"{gateway.admin_url}/readyz").status == 200


def test_moments_that_no_calendar_has_are_refused_and_old_ones_are_all_of_the_ledger(gateway: RunningGateway) -> None:
    for moment in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "1999-01-01T00:00:00Z"):
        answer = gateway.admin("POST", "/admin/v1/keys", body={"team": "poison", "expires_at": moment})
        assert (answer.status, answer.json["error"]["param"]) == (400, "expires_at")
    assert gateway.admin("GET", "/admin/v1/keys?team=poison").json["data"] == []
    assert gateway.admin("GET", "/admin/v1/ledger?since=1960-01-01T00:00:00Z").status == 200


def test_a_token_of_strange_bytes_is_refused(gateway: RunningGateway) -> None:
    answer = ask("GET", f"{gateway.admin_url}/admin/v1/keys", headers={"Authorization": "Bearer \xff\xfe"})
    assert answer.status == 401
