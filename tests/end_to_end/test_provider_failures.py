from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.gateways import (
    PROVIDER_KEY,
    Answer,
    RunningGateway,
    SampleProvider,
    configuration,
    running_gateway,
)
from tests.support.processes import free_port


@pytest.fixture(scope="module")
def impatient(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that waits for little and reads little."""
    folder = tmp_path_factory.mktemp("impatient")
    limits = {"first_byte_timeout": 0.5, "idle_timeout": 0.5, "total_timeout": 2, "max_response": 2_000_000}
    toml = configuration(f"embedded:{folder}/data", provider.url, provider=limits)
    with running_gateway(folder, toml) as running:
        yield running


def generate(gateway: RunningGateway, behaviour: str, **fields: object) -> tuple[str, Answer]:
    key = gateway.make_key(100_000)
    answer = gateway.generate(key, prompt=f"[sample {behaviour}] a translucent blue cube", **fields)
    return key, answer


def check(gateway: RunningGateway, key: str, outcome: str, images: int = 0) -> None:
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == (outcome, images, images * 5_000)
    gateway.check_books(key)


@pytest.mark.parametrize(
    ("provider_status", "status", "code", "outcome"),
    [
        (400, 400, None, "refused"),
        (422, 422, None, "refused"),
        (401, 502, "upstream_error", "failed"),
        (403, 502, "upstream_error", "failed"),
        (404, 502, "upstream_error", "failed"),
        (429, 429, "upstream_rate_limit", "refused"),
        (500, 502, "upstream_error", "failed"),
        (503, 502, "upstream_error", "failed"),
        (504, 504, "upstream_timeout", "failed"),
        (302, 502, "upstream_error", "failed"),
    ],
)
def test_a_provider_that_says_no(
    impatient: RunningGateway, provider_status: int, status: int, code: str | None, outcome: str
) -> None:
    key, answer = generate(impatient, f"status={provider_status}")
    assert answer.status == status
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    if code:
        assert error["code"] == code
    if provider_status == 429:
        assert answer.headers["Retry-After"] == "7"
    assert PROVIDER_KEY not in answer.body.decode()
    check(impatient, key, outcome)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        ("malformed", 502, "upstream_error"),
        ("drop_connection", 502, "upstream_error"),
        ("delay_ms=3000", 504, "upstream_timeout"),
        ("truncate_after=40", 502, "upstream_error"),
        ("stall_after=40", 504, "upstream_timeout"),
    ],
)
def test_a_provider_that_breaks_before_an_image_is_complete(
    impatient: RunningGateway, behaviour: str, status: int, code: str
) -> None:
    key, answer = generate(impatient, behaviour)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    check(impatient, key, "failed")


def test_images_that_were_complete_when_it_broke_are_delivered_and_charged(impatient: RunningGateway) -> None:
    key, answer = generate(impatient, "images=4 truncate_after=520", n=4)
    assert answer.status == 200
    (entry,) = impatient.ledger(key)
    assert 1 <= entry["images"] == len(answer.json["data"]) < 4
    check(impatient, key, "truncated", entry["images"])


@pytest.mark.parametrize(
    "behaviour",
    ["stall_after=520", "stall_after=100160 image_bytes=100000", "truncate_after=100160 image_bytes=100000"],
)
def test_a_provider_that_says_no_more_between_two_images_has_delivered_the_ones_before(
    impatient: RunningGateway, behaviour: str
) -> None:
    more = {"response_format": "b64_json"} if "image_bytes" in behaviour else {}
    key, answer = generate(impatient, f"images=4 {behaviour}", n=4, **more)
    assert answer.status == 200
    (entry,) = impatient.ledger(key)
    assert 1 <= entry["images"] == len(answer.json["data"]) < 4
    check(impatient, key, "truncated", entry["images"])


@pytest.mark.parametrize("behaviour", ["endless", "image_bytes=8000000"])
def test_an_answer_past_the_limit_is_cut_and_never_ended(impatient: RunningGateway, behaviour: str) -> None:
    key = impatient.make_key(100_000)
    address = urlsplit(impatient.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = json.dumps({"model": "acme/image-1", "prompt": f"[sample {behaviour}] x", "response_format": "b64_json"})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/images/generations", body, headers)
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
    check(impatient, key, "failed")


def test_a_provider_that_nobody_can_reach(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unreachable")
    toml = configuration(f"embedded:{folder}/data", f"http://127.0.0.1:{free_port()}")
    with running_gateway(folder, toml) as gateway:
        key, answer = generate(gateway, "images=1")
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
        check(gateway, key, "unreachable")
        assert 'lightmeter_upstream_requests_total{model="acme/image-1",provider="sample",status="none"} 1.0' in (
            gateway.metrics()
        )


def test_a_wrong_provider_key_tells_the_operator_and_not_the_client(
    provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("wrong-key")
    secret = "sk-this-is-the-wrong-one"
    toml = configuration(f"embedded:{folder}/data", provider.url)
    with running_gateway(folder, toml, {"SAMPLE_PROVIDER_KEY": secret}) as gateway:
        key, answer = generate(gateway, "images=1")
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
        check(gateway, key, "failed")
        gateway.server.wait_for_output("answers 401: check its base_url, its upstream_model and its key")
        assert secret not in gateway.server.output
        assert secret not in answer.body.decode()
