"""``/openapi.json`` against a gateway that runs: what it says is so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.app import Gateway
from proxy.settings.settings import load_settings
from proxy.web.server.openapi import plain_path
from tests.support.gateways import (
    ADMIN_TOKEN,
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
)
from tests.support.processes import ROOT

EXAMPLES = 15
STREAM = "/admin/v1/overview/events"
"""It has no end, and is no answer to wait for."""

SEED = os.environ.get("LIGHTMETER_TEST_SEED", "1")


@pytest.fixture(scope="module")
def described(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that may be filled with nonsense."""
    folder = tmp_path_factory.mktemp("described")
    streaming = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    toml = configuration(
        f"embedded:{folder}/data",
        provider.url,
        models=[streaming],
        logs={"requests": False},
        accounting={"units_per_usd": 100_000},
    )
    with running_gateway(folder, toml) as gateway:
        yield gateway


def document(gateway: RunningGateway) -> dict[str, Any]:
    answer = ask("GET", f"{gateway.admin_url}/openapi.json")
    assert answer.status == 200
    told: dict[str, Any] = answer.json
    return told


def test_it_needs_no_token_and_tells_where_each_listener_is(described: RunningGateway) -> None:
    told = document(described)
    assert told["openapi"].startswith("3.1")
    assert told["paths"]["/v1/key"]["servers"][0]["url"] == described.url
    assert told["paths"]["/admin/v1/keys"]["servers"][0]["url"] == "/"


def test_every_code_of_the_public_wire_is_described(described: RunningGateway) -> None:
    responses = document(described)["paths"]["/v1/images/generations"]["post"]["responses"]
    told = {status: set(response["description"].split(", ")) for status, response in responses.items()}
    assert {status: codes for status, codes in told.items() if status not in ("200", "4XX")} == {
        "400": {"invalid_request", "unknown_parameter"},
        "401": {"invalid_api_key"},
        "403": {"model_not_allowed"},
        "404": {"model_not_found"},
        "408": {"request_timeout"},
        "409": {"idempotency_in_progress", "idempotency_response_gone"},
        "413": {"payload_too_large"},
        "415": {"unsupported_media_type"},
        "417": {"expectation_failed"},
        "422": {"idempotency_mismatch"},
        "429": {"insufficient_quota", "rate_limit_exceeded", "upstream_rate_limit"},
        "431": {"headers_too_large"},
        "500": {"internal_error"},
        "502": {"upstream_error"},
        "503": {"store_unavailable", "shutting_down"},
        "504": {"upstream_timeout"},
    }


def test_every_header_of_an_answer_is_described(described: RunningGateway) -> None:
    key = described.make_key(requests_per_minute=60, images_per_minute=60)
    body = {"model": "acme/image-1", "prompt": "a cube"}
    headers = {"Idempotency-Key": "described"}
    url = f"{described.url}/v1/images/generations"
    answers = [ask("POST", url, key=key, body=body, headers=headers) for _ in range(2)]
    responses = document(described)["paths"]["/v1/images/generations"]["post"]["responses"]
    unsaid = {"Connection", "Content-Type", "Content-Length", "Date", "Server"}
    for answer in answers:
        assert set(answer.headers) - unsaid <= set(responses["200"]["headers"])
    assert answers[1].headers["Idempotency-Replayed"] == "true"


@pytest.mark.timeout(240)
def test_schemathesis_finds_nothing(described: RunningGateway, tmp_path: Path) -> None:
    configured = tmp_path / "schemathesis.toml"
    configured.write_text(
        f"""
        [auth.openapi.apiKey]
        bearer = "{described.make_key()}"
        [auth.openapi.adminToken]
        bearer = "{ADMIN_TOKEN}"
        """
    )
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "--config-file", str(configured)),
        *("run", f"{described.admin_url}/openapi.json", "--phases", "coverage,fuzzing,stateful", "--checks", "all"),
        *("--exclude-path", STREAM, "--max-examples", str(EXAMPLES), "--seed", SEED, "--continue-on-failure"),
        # Wrong admin tokens wait: other tests send those. A revoked key is still there to be looked at.
        *("--generation-database", "none", "--warnings", "off", "--exclude-checks", "ignored_auth,use_after_free"),
    ]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=220,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "SCHEMATHESIS_HOOKS": "tests.support.openapi_hooks"},
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert "Traceback" not in described.server.output
    # The document itself is read, and not asked for once more.
    paths = {name: path for name, path in document(described)["paths"].items() if name != "/openapi.json"}
    operations = sum(len(path) - 1 for path in paths.values())
    assert f"{operations - 1} selected / {operations} total" in done.stdout


async def test_every_route_is_described_and_everything_described_is_a_route(
    provider: SampleProvider, tmp_path: Path
) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{tmp_path}/data", provider.url, logs={"requests": False}))
    secrets = {"SAMPLE_PROVIDER_KEY": "x", "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    gateway = Gateway(load_settings(path, secrets), secrets)
    await gateway.start()
    try:
        served = {
            (route.method, plain_path(route.resource.canonical))
            for listener in gateway._listeners.opened
            for route in listener._runner.app.router.routes()
            # The console's pages, files and sessions are its own, and no API.
            if route.resource is not None and route.resource.canonical.partition("console")[0] != "/"
        }
    finally:
        await gateway.stop()
    routes = [*gateway._public_routes, *gateway._admin.routes]
    # Whatever may be got may be asked for its headers alone.
    described = {(route.method, plain_path(route.path)) for route in routes}
    assert served == described | {("HEAD", path) for method, path in described if method == "GET"}
    assert len(described) == len(routes)
