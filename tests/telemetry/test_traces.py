from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Delivery, Reservation, Settlement
from proxy.domain.billing.settlement import settle as settle_by_rule
from proxy.domain.errors import StoreUnavailable
from proxy.telemetry.traces import Traces
from tests.support.collector import Collector, collector
from tests.support.gateways import (
    ALL_PARAMETERS,
    PROVIDER_KEY,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    key_id,
    running_gateway,
    sample_provider,
)
from tests.support.processes import free_port
from tests.support.recording_provider import recording_provider

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def receiver() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    provider: SampleProvider, receiver: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    traces = {"enabled": True, "endpoint": receiver.url, "service_name": "images"}
    model = image_model(parameters=[*ALL_PARAMETERS, "stream"])
    toml = configuration(f"embedded:{folder}/data", provider.url, models=[model], traces=traces)
    with running_gateway(folder, toml, {"OTEL_BSP_SCHEDULE_DELAY": "50"}) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    return gateway.make_key()


class Trace:
    """A trace that a client has begun."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.id, self.parent_id = secrets.token_hex(16), secrets.token_hex(8)
        self.traceparent = f"00-{self.id}-{self.parent_id}-{'01' if sampled else '00'}"

    def generate(self, gateway: RunningGateway, key: str, prompt: str = "a cube", **headers: str) -> Answer:
        return generate(gateway, key, prompt, traceparent=self.traceparent, **headers)


def generate(gateway: RunningGateway, key: str, prompt: str = "a cube", **headers: str) -> Answer:
    body = {"model": "acme/image-1", "prompt": prompt, "n": 2}
    return ask("POST", f"{gateway.url}/v1/images/generations", key=key, body=body, headers=headers)


def trace_headers(request: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in request["headers"] if name in ("traceparent", "tracestate", "baggage")}


# --- A request --------------------------------------------------------------------------------------------------------


def test_a_request_is_one_trace_with_spans_for_admit_the_provider_and_settle(
    gateway: RunningGateway, provider: SampleProvider, receiver: Collector, key: str
) -> None:
    provider.clear()
    trace = Trace()
    answer = trace.generate(gateway, key, tracestate="vendor=1")
    assert answer.status == 200
    spans = receiver.trace(trace.id, 4)
    server, admit, upstream, settle = (spans[kind] for kind in ("server", "admit", "client", "settle"))

    assert (server.name, server.kind, server.parent_id) == ("POST /v1/images/generations", "server", trace.parent_id)
    assert {span.parent_id for span in (admit, upstream, settle)} == {server.span_id}
    assert upstream.kind == "client"
    assert {admit.kind, settle.kind} == {"internal"}
    assert server.began_ns <= admit.began_ns <= admit.ended_ns <= upstream.began_ns
    assert upstream.ended_ns <= settle.began_ns <= settle.ended_ns <= server.ended_ns
    assert not any(span.is_error for span in spans.values())
    assert server.resource["service.name"] == "images"
    assert server.resource["service.version"]

    assert server.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/images/generations",
        "network.protocol.version": "1.1",
        "url.path": "/v1/images/generations",
        "url.scheme": "http",
        "lightmeter.request_id": answer.headers["x-request-id"],
        "lightmeter.key_id": key_id(key),
        "lightmeter.model": "acme/image-1",
        "lightmeter.provider": "sample",
        "lightmeter.outcome": "delivered",
        "lightmeter.images": 2,
        "lightmeter.charged_units": 10_000,
    }
    assert admit.attributes == {"lightmeter.model": "acme/image-1", "lightmeter.reserved_units": 10_000}
    assert settle.attributes == {
        "lightmeter.outcome": "delivered",
        "lightmeter.images": 2,
        "lightmeter.charged_units": 10_000,
    }
    port = int(provider.url.rpartition(":")[2])
    assert upstream.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"{provider.url}/v1/images/generations",
    }

    (asked,) = provider.requests()
    assert trace_headers(asked) == {
        "traceparent": f"00-{trace.id}-{upstream.span_id}-01",
        "tracestate": "vendor=1",
    }


def test_the_providers_span_lasts_until_its_answer_has_been_read(
    gateway: RunningGateway, receiver: Collector, key: str
) -> None:
    trace = Trace()
    assert trace.generate(gateway, key, "[sample first_byte_delay_ms=200] a cube").status == 200
    upstream = receiver.trace(trace.id, 4)["client"]
    assert upstream.ended_ns - upstream.began_ns >= 200_000_000


def test_a_request_without_a_context_begins_a_trace_that_the_provider_sees(
    gateway: RunningGateway, provider: SampleProvider, receiver: Collector, key: str
) -> None:
    provider.clear()
    assert generate(gateway, key).status == 200
    (asked,) = provider.requests()
    _version, trace_id, span_id, flags = trace_headers(asked)["traceparent"].split("-")
    spans = receiver.trace(trace_id, 4)
    assert spans["server"].parent_id == ""
    assert spans["client"].span_id == span_id
    assert int(flags, 16) & 1


@pytest.mark.parametrize(
    "traceparent",
    [
        *("", "nonsense", "00-abc-def-01", f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01"),
        *(f"00-{'1' * 32}-{'0' * 16}-01", f"00-{'1' * 32}-{'1' * 16}-01-more", "0" * 4_000),
    ],
)
def test_a_context_that_is_none_is_passed_over(
    gateway: RunningGateway, provider: SampleProvider, key: str, traceparent: str
) -> None:
    provider.clear()
    assert generate(gateway, key, traceparent=traceparent, tracestate="vendor=1").status == 200
    (asked,) = provider.requests()
    sent = trace_headers(asked)
    assert sent.keys() == {"traceparent"}
    assert sent["traceparent"].split("-")[1] not in ("0" * 32, "1" * 32)


def test_a_trace_that_its_client_does_not_sample_is_passed_on_and_not_sent(
    gateway: RunningGateway, provider: SampleProvider, receiver: Collector, key: str
) -> None:
    provider.clear()
    silent, heard = Trace(sampled=False), Trace()
    assert silent.generate(gateway, key).status == 200
    assert heard.generate(gateway, key).status == 200
    first, _second = map(trace_headers, provider.requests())
    assert first["traceparent"].startswith(f"00-{silent.id}-")
    assert first["traceparent"].endswith("-00")
    # Spans are sent in the order in which they end.
    receiver.trace(heard.id, 4)
    assert silent.id not in {span.trace_id for span in receiver.spans()}


def test_requests_one_after_the_other_on_one_connection_are_traces_of_their_own(
    gateway: RunningGateway, receiver: Collector, key: str
) -> None:
    traces = [Trace() for _ in range(5)]
    for trace in traces:
        assert trace.generate(gateway, key).status == 200
    for trace in traces:
        assert receiver.trace(trace.id, 4)["server"].parent_id == trace.parent_id


def test_no_secret_no_prompt_and_no_query_is_in_what_is_sent(
    gateway: RunningGateway, receiver: Collector, key: str
) -> None:
    prompt = f"a secret {secrets.token_hex(8)}"
    trace = Trace()
    url = f"{gateway.url}/v1/images/generations?token=in-the-query"
    headers = {"traceparent": trace.traceparent, "Cookie": "in=the-cookie"}
    assert ask("POST", url, key=key, body={"model": "acme/image-1", "prompt": prompt}, headers=headers).status == 200
    receiver.trace(trace.id, 4)
    sent = b"".join(receiver.bodies)
    secret = key.rpartition("_")[2]
    for hidden in (secret, PROVIDER_KEY, prompt, "in-the-query", "the-cookie"):
        assert hidden.encode() not in sent


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_request_that_a_limit_refuses_is_no_error_of_the_gateways(
    gateway: RunningGateway, receiver: Collector
) -> None:
    trace = Trace()
    assert trace.generate(gateway, gateway.make_key(5_000)).status == 429
    spans = receiver.trace(trace.id, 2)
    assert spans["admit"].attributes["lightmeter.error"] == "insufficient_quota"
    assert spans["server"].attributes["lightmeter.error"] == "insufficient_quota"
    assert spans["server"].attributes["lightmeter.outcome"] == "rejected"
    assert spans["server"].attributes["http.response.status_code"] == 429
    assert not any(span.is_error or "error.type" in span.attributes for span in spans.values())


def test_a_request_without_a_key_has_its_own_span_only(gateway: RunningGateway, receiver: Collector) -> None:
    trace = Trace()
    assert trace.generate(gateway, "not-a-key").status == 401
    (server,) = receiver.trace(trace.id, 1).values()
    assert server.attributes["http.response.status_code"] == 401
    assert "lightmeter.key_id" not in server.attributes


def test_a_route_that_there_is_not_has_a_name_of_few_values(gateway: RunningGateway, receiver: Collector) -> None:
    trace = Trace()
    url = f"{gateway.url}/no/such/route"
    assert ask("PROPFIND", url, headers={"traceparent": trace.traceparent}).status == 404
    (server,) = receiver.trace(trace.id, 1).values()
    assert server.name == "HTTP"
    assert server.attributes["http.request.method"] == "_OTHER"
    assert server.attributes["http.request.method_original"] == "PROPFIND"
    assert "http.route" not in server.attributes


def test_an_error_of_the_provider_is_told_by_its_status_and_ours_by_its_code(
    gateway: RunningGateway, receiver: Collector, key: str
) -> None:
    trace = Trace()
    answer = trace.generate(gateway, key, "[sample status=500] a cube")
    spans = receiver.trace(trace.id, 4)
    assert spans["client"].is_error
    assert spans["client"].attributes["http.response.status_code"] == 500
    assert spans["client"].attributes["error.type"] == "500"
    assert spans["server"].is_error
    assert spans["server"].attributes["http.response.status_code"] == answer.status
    assert spans["server"].attributes["error.type"] == answer.json["error"]["code"]
    assert not spans["settle"].is_error
    assert spans["settle"].attributes["lightmeter.outcome"] == "failed"


def test_an_answer_that_breaks_off_is_an_error_of_the_provider_and_of_the_request(
    gateway: RunningGateway, receiver: Collector, key: str
) -> None:
    trace = Trace()
    trace.generate(gateway, key, "[sample malformed] a cube")
    spans = receiver.trace(trace.id, 4)
    assert spans["client"].attributes["http.response.status_code"] == 200
    assert spans["client"].is_error
    assert spans["client"].attributes["error.type"] == spans["settle"].attributes["lightmeter.outcome"]
    assert spans["server"].is_error
    assert spans["server"].attributes["error.type"]


def test_a_provider_that_cannot_be_reached_is_told_by_the_kind_of_error(receiver: Collector, tmp_path: Path) -> None:
    traces = {"enabled": True, "endpoint": receiver.url}
    toml = configuration(f"embedded:{tmp_path}/data", f"http://127.0.0.1:{free_port()}", traces=traces)
    trace = Trace()
    with running_gateway(tmp_path, toml) as gateway:
        assert trace.generate(gateway, gateway.make_key()).status == 502
        # What has not been sent yet is sent when the gateway stops.
        assert gateway.server.stop() == 0
    client = receiver.trace(trace.id, 4)["client"]
    assert client.is_error
    assert client.attributes["error.type"] == "ConnectFailed"
    assert "http.response.status_code" not in client.attributes


async def test_what_is_settled_later_for_another_request_is_no_part_of_this_one(receiver: Collector) -> None:
    traces = Traces(endpoint=receiver.url, sample_ratio=1.0, service_name="lightmeter")
    trace, replays = Trace(), list[asyncio.Task[None]]()

    async def settle() -> None:
        with traces.settling(settlement_of_nobody()):
            await asyncio.sleep(0)

    async def handler(_request: web.Request) -> web.Response:
        replays.append(asyncio.create_task(settle()))
        await asyncio.wait(replays)
        replays.append(asyncio.create_task(settle()))
        return web.Response()

    app = web.Application(middlewares=[traces.middleware()])
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client, client.get("/", headers={"traceparent": trace.traceparent}):
        await asyncio.wait(replays)
    await traces.close(5.0)
    assert {span.name for span in receiver.spans() if span.trace_id == trace.id} == {"GET /"}
    await settle()


@pytest.mark.parametrize("asks_for_it", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_share_of_all_traces_is_sent_whatever_a_client_asks_for(
    receiver: Collector, ratio: float, *, asks_for_it: bool
) -> None:
    name = f"at-{ratio}-{asks_for_it}"
    traces = Traces(endpoint=receiver.url, sample_ratio=ratio, service_name=name)

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=[traces.middleware()])
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client:
        for _ in range(3):
            headers = {"traceparent": Trace().traceparent} if asks_for_it else {}
            async with client.get("/", headers=headers):
                pass
    await traces.close(5.0)
    assert len([span for span in receiver.spans() if span.resource["service.name"] == name]) == 3 * ratio


async def test_a_request_of_a_store_that_is_away_has_an_error_in_its_own_span_and_in_admits(
    receiver: Collector,
) -> None:
    traces = Traces(endpoint=receiver.url, sample_ratio=1.0, service_name="lightmeter")
    trace = Trace()

    async def handler(_request: web.Request) -> web.Response:
        with traces.admitting("acme/image-1", settlement_of_nobody().reservation.quote):
            raise StoreUnavailable

    app = web.Application(middlewares=[traces.middleware()])
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client, client.get("/", headers={"traceparent": trace.traceparent}):
        pass
    await traces.close(5.0)
    spans = receiver.trace(trace.id, 2)
    assert spans["admit"].attributes["error.type"] == StoreUnavailable.code
    assert spans["server"].attributes["error.type"] == "StoreUnavailable"
    assert all(span.is_error for span in spans.values())


def settlement_of_nobody() -> Settlement:
    quote = Quote(images=1, unit_price=5_000, units=5_000, tier=Tier.STANDARD)
    return settle_by_rule(Reservation("req_1", "acme", "acme_1", "/", "acme/image-1", quote, 0, None), Delivery())


def test_each_deployment_that_is_asked_has_a_span_and_is_told_its_own(
    provider: SampleProvider, receiver: Collector, tmp_path: Path
) -> None:
    model = {name: value for name, value in image_model().items() if name not in ("provider", "upstream_model")}
    toml = configuration(f"embedded:{tmp_path}/data", f"http://127.0.0.1:{free_port()}", models=[model])
    toml += f"""
[[models.deployments]]
provider = "sample"
upstream_model = "image-1"
[[models.deployments]]
provider = "spare"
upstream_model = "image-1"
priority = 1
[[providers]]
name = "spare"
base_url = "{provider.url}/v1"
api_key_env = "SAMPLE_PROVIDER_KEY"
"""
    environment = {"LIGHTMETER_TRACES_ENABLED": "true", "LIGHTMETER_TRACES_ENDPOINT": receiver.url}
    provider.clear()
    trace = Trace()
    with running_gateway(tmp_path, toml, environment) as gateway:
        assert trace.generate(gateway, gateway.make_key()).status == 200
        assert gateway.server.stop() == 0
    spans = [span for span in receiver.spans() if span.trace_id == trace.id]
    (server,) = (span for span in spans if span.kind == "server")
    first, second = sorted((span for span in spans if span.kind == "client"), key=lambda span: span.began_ns)
    assert {first.parent_id, second.parent_id} == {server.span_id}
    assert (first.attributes["error.type"], first.is_error) == ("ConnectFailed", True)
    assert (second.attributes["http.response.status_code"], second.is_error) == (200, False)
    assert first.ended_ns <= second.began_ns
    (asked,) = provider.requests()
    assert trace_headers(asked)["traceparent"] == f"00-{trace.id}-{second.span_id}-01"
    assert not server.is_error


def test_a_stream_is_one_trace_as_well(gateway: RunningGateway, receiver: Collector, key: str) -> None:
    trace = Trace()
    body = {"model": "acme/image-1", "prompt": "a cube", "stream": True}
    headers = {"traceparent": trace.traceparent}
    answer = ask("POST", f"{gateway.url}/v1/images/generations", key=key, body=body, headers=headers)
    assert answer.status == 200
    spans = receiver.trace(trace.id, 4)
    assert spans["settle"].attributes["lightmeter.outcome"] == "delivered"
    assert not any(span.is_error for span in spans.values())


def test_a_key_in_the_query_is_in_no_span(receiver: Collector, tmp_path: Path) -> None:
    secret = "secret/of+the=query"
    with recording_provider() as asked:
        toml = configuration(f"embedded:{tmp_path}/data", asked.url)
        auth = 'auth = { type = "query", name = "key", key_env = "SAMPLE_PROVIDER_KEY" }'
        toml = toml.replace('api_key_env = "SAMPLE_PROVIDER_KEY"', auth)
        environment = {
            "LIGHTMETER_TRACES_ENABLED": "true",
            "LIGHTMETER_TRACES_ENDPOINT": receiver.url,
            "SAMPLE_PROVIDER_KEY": secret,
        }
        trace = Trace()
        with running_gateway(tmp_path, toml, environment) as gateway:
            assert trace.generate(gateway, gateway.make_key()).status == 200
            assert gateway.server.stop() == 0
        assert asked.last.query == [("key", secret)]
    spans = [span for span in receiver.spans() if span.trace_id == trace.id]
    assert "client" in {span.kind for span in spans}
    told = repr(spans)
    assert not any(
        spelled in told for spelled in (secret, quote(secret, safe=""), quote(secret), "the=query", "the%3D")
    )


# --- No collector, no traces, no library ------------------------------------------------------------------------------


def test_a_collector_that_is_away_changes_nothing_for_requests_and_little_for_the_end(
    provider: SampleProvider, tmp_path: Path
) -> None:
    traces = {"enabled": True, "endpoint": f"http://127.0.0.1:{free_port()}/v1/traces"}
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, traces=traces)
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key()
        assert [generate(gateway, key).status for _ in range(5)] == [200] * 5
        assert gateway.quota(key)["posted"] == 50_000
        assert gateway.server.stop() == 0


def test_without_traces_nothing_is_passed_on(provider: SampleProvider, tmp_path: Path) -> None:
    provider.clear()
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway:
        assert Trace().generate(gateway, gateway.make_key(), tracestate="vendor=1").status == 200
    (asked,) = provider.requests()
    assert trace_headers(asked) == {}


STARTED = """
import asyncio, sys
if sys.argv[2] == "missing":
    sys.modules["opentelemetry"] = None
from pathlib import Path
from proxy.app import Gateway
from proxy.settings.settings import load_settings

async def start_and_stop():
    gateway = Gateway(load_settings(Path(sys.argv[1])))
    await gateway.start()
    await gateway.stop()

asyncio.run(start_and_stop())
print(*sorted(sys.modules), sep="\\n")
"""


def modules_of_a_gateway(folder: Path, *, enabled: bool, library: str) -> set[str]:
    """What is imported by a process in which a gateway has started and stopped."""
    path = folder / "lightmeter.toml"
    traces = {"enabled": enabled, "endpoint": f"http://127.0.0.1:{free_port()}/v1/traces"}
    path.write_text(configuration(f"embedded:{folder}/data", "http://127.0.0.1:9", traces=traces))
    environment = {"SAMPLE_PROVIDER_KEY": PROVIDER_KEY, "LIGHTMETER_ADMIN_TOKEN": "x" * 16}
    command = [sys.executable, "-c", STARTED, str(path), library]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("enabled", [False, True])
def test_the_library_is_imported_only_where_traces_are_on(tmp_path: Path, *, enabled: bool) -> None:
    # redis-py imports the part of it about metrics wherever that is installed.
    imported = modules_of_a_gateway(tmp_path, enabled=enabled, library="installed")
    ours = {"proxy.telemetry.traces", "opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"}
    assert imported & ours == (ours if enabled else set())


def test_a_gateway_without_traces_needs_no_library(tmp_path: Path) -> None:
    imported = modules_of_a_gateway(tmp_path, enabled=False, library="missing")
    assert not {name for name in imported if name.startswith("opentelemetry.")}


WITHOUT_THE_LIBRARY = """
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http"] = None
from proxy.cli import main

main()
"""


@pytest.mark.parametrize("command", [["config", "check"], ["serve"]])
def test_traces_without_the_library_say_what_to_install(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{tmp_path}/data", "http://127.0.0.1:9", traces={"enabled": True}))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_LIBRARY, *command, "--config", str(path)],
        env={"SAMPLE_PROVIDER_KEY": PROVIDER_KEY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{path}: traces.enabled: " in done.stderr
    assert "pip install 'lightmeter[traces]'" in done.stderr
