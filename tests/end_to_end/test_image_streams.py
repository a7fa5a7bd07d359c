"""``stream: true``, over sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import openai
import pytest

from tests.domain.answer_samples import events_of
from tests.support.gateways import (
    ALL_PARAMETERS,
    Answer,
    RunningGateway,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose model streams; a comment is due after a fifth of a second."""
    folder = tmp_path_factory.mktemp("streaming")
    model = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    other = image_model("acme/other")
    with (
        sample_provider(folder, "--answer", "b64_json") as provider,
        running_gateway(
            folder,
            configuration(
                f"embedded:{folder}/data",
                provider.url,
                models=[model, other],
                server={"stream_keepalive_seconds": 0.2},
                provider={"idle_timeout": 2},
            ),
        ) as gateway,
    ):
        yield gateway


def types_of(answer: Answer) -> list[str]:
    return [event["type"].rpartition(".")[2] for event in events_of(without_comments(answer.body))]


def without_comments(body: bytes) -> bytes:
    return b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(b":"))


def last_entry(gateway: RunningGateway, key: str) -> dict[str, Any]:
    gateway.check_books(key)
    return gateway.ledger(key)[-1]


def test_events_are_passed_on_scrubbed_and_charged_by_what_was_completed(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    answer = streaming.generate(key, stream=True, n=2, partial_images=1)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert types_of(answer) == ["partial_image", "completed"] * 2
    usages = [event["usage"] for event in events_of(answer.body) if event["type"].endswith("completed")]
    assert [usage["total_tokens"] for usage in usages] == [0, 0]
    entry = last_entry(streaming, key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 2, 10_000)
    assert entry["provider_usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("behaviour", "types", "outcome", "images"),
    [
        ("done comments", ["partial_image", "completed"] * 2, "delivered", 2),
        ("error_after_events=3", ["partial_image", "completed", "partial_image", "error"], "truncated", 1),
        ("end_after_events=1", ["partial_image", "error"], "failed", 0),
        ("end_after_events=3", ["partial_image", "completed", "partial_image", "error"], "truncated", 1),
        ("stall_after_events=2", ["partial_image", "completed", "error"], "truncated", 1),
        ("images=3", ["partial_image", "completed"] * 3, "delivered", 3),
    ],
)
def test_each_way_in_which_a_stream_ends(
    streaming: RunningGateway, behaviour: str, types: list[str], outcome: str, images: int
) -> None:
    key = streaming.make_key()
    answer = streaming.generate(key, prompt=f"[sample {behaviour}] x", stream=True, n=2, partial_images=1)
    assert (answer.status, types_of(answer)) == (200, types)
    entry = last_entry(streaming, key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == (outcome, images, images * 5_000)


def test_errors_before_the_first_event_are_no_stream(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    answer = streaming.generate(key, prompt="[sample error_after_events=0] x", stream=True)
    assert (answer.status, answer.headers["Content-Type"]) == (502, "application/json")
    assert "told to fail" in answer.json["error"]["message"]
    entry = last_entry(streaming, key)
    assert (entry["outcome"], entry["charged"]) == ("failed", 0)
    answer = streaming.generate(key, prompt="[sample status=400] x", stream=True)
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
    assert streaming.generate(key, prompt="[sample malformed] x", stream=True).status == 502
    nothing = streaming.generate(key, prompt="[sample end_after_events=0] x", stream=True)
    assert (nothing.status, nothing.json["error"]["code"]) == (400, "no_image")
    assert last_entry(streaming, key)["outcome"] == "empty"


def test_a_silent_provider_is_covered_by_comments_also_before_it_has_begun(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    answer = streaming.generate(key, prompt="[sample delay_ms=900] x", stream=True)
    assert answer.body.count(b": keep-alive\n") >= 3
    assert types_of(answer) == ["completed"]
    late = streaming.generate(key, prompt="[sample delay_ms=500 status=400] x", stream=True)
    assert (late.status, types_of(late)) == (200, ["error"])
    assert last_entry(streaming, key)["outcome"] == "refused"


def test_where_a_model_does_not_stream_it_is_a_400(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    answer = streaming.generate(key, model="acme/other", stream=True)
    assert (answer.status, answer.json["error"]["param"]) == (400, "stream")
    assert streaming.generate(key, model="acme/other", stream=False).status == 200
    assert streaming.generate(key, stream="yes").json["error"]["param"] == "stream"


def test_the_end_comes_after_the_charge(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    client = openai.OpenAI(base_url=f"{streaming.url}/v1", api_key=key)
    with client:
        for event in client.images.generate(model="acme/image-1", prompt="x", stream=True, partial_images=2):
            if event.type == "image_generation.completed":
                assert streaming.quota(key)["posted"] == 5_000


def test_the_sdk_raises_what_a_stream_says_of_an_error(streaming: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{streaming.url}/v1", api_key=streaming.make_key()) as client:
        stream = client.images.generate(
            model="acme/image-1",
            prompt="[sample error_after_events=1] x",
            stream=True,
            extra_body={"partial_images": 1},
        )
        with pytest.raises(openai.APIError, match="told to fail"):
            list(stream)


def test_a_client_that_leaves_in_the_middle_is_charged_for_what_was_made(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    host, _, port = streaming.url.removeprefix("http://").partition(":")
    body = b'{"model":"acme/image-1","prompt":"[sample event_delay_ms=300] x","stream":true,"n":2}'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
        )
        connection.recv(65_536)
    deadline = monotonic() + 10
    while not streaming.ledger(key) and monotonic() < deadline:
        asyncio.run(asyncio.sleep(0.05))
    entry = last_entry(streaming, key)
    assert (entry["outcome"], entry["images"]) == ("abandoned", 2)


def test_a_replay_is_refused_for_streams(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    body = {"model": "acme/image-1", "prompt": "x", "stream": True}
    with openai.OpenAI(base_url=f"{streaming.url}/v1", api_key=key, max_retries=0) as client:
        list(client.images.generate(**body, extra_headers={"Idempotency-Key": "one"}))  # type: ignore[call-overload]
        with pytest.raises(openai.ConflictError, match="not kept"):
            client.images.generate(**body, extra_headers={"Idempotency-Key": "one"})  # type: ignore[call-overload]
    assert streaming.quota(key)["posted"] == 5_000


def test_ten_megabytes_an_event_are_not_held(streaming: RunningGateway) -> None:
    key = streaming.make_key()
    streaming.generate(key, prompt="[sample image_bytes=10000000] x", stream=True)
    before = streaming.memory_bytes()
    answer = streaming.generate(key, prompt="[sample image_bytes=10000000] x", stream=True, n=3)
    assert len(answer.body) > 30_000_000
    assert streaming.memory_bytes() - before < 4_000_000
    assert last_entry(streaming, key)["images"] == 3
