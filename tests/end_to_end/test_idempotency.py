"""``Idempotency-Key`` over the wire: never a second generation, never a second charge."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.support.gateways import Answer, RunningGateway, SampleProvider, ask, key_id

MODEL = "acme/image-1"


def generate(gateway: RunningGateway, key: str, name: str, prompt: str = "a cube", **fields: Any) -> Answer:
    body = {"model": MODEL, "prompt": prompt, **fields}
    return ask("POST", f"{gateway.url}/v1/images/generations", key=key, body=body, headers={"Idempotency-Key": name})


def test_the_same_answer_and_one_charge(gateway: RunningGateway, provider: SampleProvider) -> None:
    key = gateway.make_key(100_000)
    made = provider.images_made()
    first = generate(gateway, key, "name", n=2)
    again = generate(gateway, key, "name", n=2)
    assert (first.status, again.status) == (200, 200)
    assert again.json == first.json
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert provider.images_made() == made + 2
    assert gateway.quota(key)["posted"] == 10_000
    gateway.check_books(key)


def test_fifty_at_once_generate_once(gateway: RunningGateway) -> None:
    key = gateway.make_key(1_000_000)
    with ThreadPoolExecutor(50) as threads:
        answers = list(
            threads.map(lambda _: generate(gateway, key, "storm", "[sample delay_ms=300] a cube"), range(50))
        )
    running = [answer for answer in answers if answer.status == 409]
    assert all(answer.json["error"]["code"] == "idempotency_in_progress" for answer in running)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in running)
    assert running
    assert [answer.status for answer in answers if answer not in running] == [200] * (50 - len(running))
    assert len(gateway.ledger(key)) == 1
    gateway.check_books(key)


def test_another_request_is_a_mismatch_and_another_api_key_a_stranger(gateway: RunningGateway) -> None:
    key, other = gateway.make_key(100_000), gateway.make_key(100_000)
    assert generate(gateway, key, "name").status == 200
    mismatch = generate(gateway, key, "name", "another prompt")
    assert (mismatch.status, mismatch.json["error"]["code"]) == (422, "idempotency_mismatch")
    stranger = generate(gateway, other, "name", "another prompt")
    assert stranger.status == 200
    assert gateway.quota(key)["posted"] == gateway.quota(other)["posted"] == 5_000


def test_a_large_answer_is_gone(gateway: RunningGateway, provider: SampleProvider) -> None:
    key = gateway.make_key(100_000)
    prompt = "[sample image_bytes=100000] a cube"
    assert generate(gateway, key, "name", prompt, response_format="b64_json").status == 200
    made = provider.images_made()
    again = generate(gateway, key, "name", prompt, response_format="b64_json")
    assert (again.status, again.json["error"]["code"]) == (409, "idempotency_response_gone")
    assert again.headers["x-should-retry"] == "false"
    assert provider.images_made() == made
    gateway.check_books(key)


def test_after_a_refusal_it_runs_again_after_a_break_it_does_not(
    gateway: RunningGateway, provider: SampleProvider
) -> None:
    key = gateway.make_key(100_000)
    for _ in range(2):
        provider.clear()
        assert generate(gateway, key, "refused", "[sample status=500] a cube").status == 502
        assert len(provider.requests()) == 1
    first = generate(gateway, key, "broken", "[sample drop_connection] a cube")
    provider.clear()
    again = generate(gateway, key, "broken", "[sample drop_connection] a cube")
    assert (first.status, first.headers["x-should-retry"]) == (502, "false")
    assert (again.status, again.json["error"]["code"]) == (409, "idempotency_response_gone")
    assert again.headers["x-should-retry"] == "false"
    assert provider.requests() == []
    gateway.check_books(key)


def test_a_client_that_lost_its_answer_gets_it_with_the_second_try(gateway: RunningGateway) -> None:
    key = gateway.make_key(100_000)
    prompt = "[sample delay_ms=300] a cube"
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, timeout=0.1, max_retries=0)
    headers = {"Idempotency-Key": "lost"}
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(model=MODEL, prompt=prompt, extra_headers=headers)
    # The SDK waits as Retry-After says while the first one is still running.
    images = client.with_options(timeout=30, max_retries=5).images.generate(
        model=MODEL, prompt=prompt, extra_headers=headers
    )
    assert images.data is not None
    assert len(images.data) == 1
    (entry,) = gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("abandoned", 5_000)
    gateway.check_books(key)


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_bad_name_is_refused_and_costs_nothing(gateway: RunningGateway, name: str) -> None:
    key = gateway.make_key(100_000)
    answer = generate(gateway, key, name)
    assert (answer.status, answer.json["error"]["param"]) == (400, "Idempotency-Key")
    assert gateway.ledger(key) == []


def test_two_names_are_refused(gateway: RunningGateway) -> None:
    key = gateway.make_key(100_000)
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    body = json.dumps({"model": MODEL, "prompt": "a cube"}).encode()
    connection.putrequest("POST", "/v1/images/generations")
    for header, value in (
        ("Authorization", f"Bearer {key}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Idempotency-Key", "a"),
        ("Idempotency-Key", "b"),
    ):
        connection.putheader(header, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["error"]["message"].startswith("There is more than one Idempotency-Key")
    connection.close()


def test_a_key_that_was_revoked_gets_no_kept_answer(gateway: RunningGateway) -> None:
    key = gateway.make_key(100_000)
    assert generate(gateway, key, "name").status == 200
    gateway.admin("DELETE", f"/admin/v1/keys/{key_id(key)}")
    answer = generate(gateway, key, "name")
    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
