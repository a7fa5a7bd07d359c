"""OpenAI's image streams, over a socket."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

import openai
import orjson
import pytest
from PIL import Image

from tests.sample_provider.conftest import Client, Start

GENERATIONS = "/v1/images/generations"


async def stream(client: Client, prompt: str = "x", path: str = GENERATIONS, **fields: Any) -> bytes:
    body = {"prompt": prompt, "stream": True, "size": "64x32", **fields}
    response = await client.post(path, json=body)
    assert response.status == 200, await response.text()
    assert response.content_type == "text/event-stream"
    return await response.read()


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The JSON of every event; each is whole."""
    *events, rest = body.split(b"\n\n")
    assert rest == b""
    lines = [line for event in events for line in event.split(b"\n") if line.startswith(b"data: {")]
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines]


def types_of(body: bytes) -> list[str]:
    return [event["type"].rpartition(".")[2] for event in events_of(body)]


def opened(text: str) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
        picture.load()
        return picture.format, picture.size


async def test_events_have_openais_members(start: Start) -> None:
    partial, completed = events_of(await stream(await start(), partial_images=1))
    facts = {"type", "b64_json", "created_at", "size", "quality", "background", "output_format"}
    assert (partial["type"], completed["type"]) == ("image_generation.partial_image", "image_generation.completed")
    assert set(partial) == facts | {"partial_image_index"}
    assert set(completed) == facts | {"usage"}
    assert set(completed["usage"]) == {"total_tokens", "input_tokens", "output_tokens", "input_tokens_details"}
    assert opened(completed["b64_json"]) == ("PNG", (64, 32))


async def test_each_image_has_its_partial_ones_and_one_completed(start: Start) -> None:
    client = await start()
    assert types_of(await stream(client, n=2, partial_images=2)) == [*["partial_image"] * 2, "completed"] * 2
    assert types_of(await stream(client, "[sample images=0] x")) == []
    assert await (await client.get("/stats")).json() == {"requests": 2, "images": 2}


async def test_edits_stream_events_of_their_own(start: Start) -> None:
    images = [{"image_url": "data:image/png;base64,AAAA"}]
    body = await stream(await start(), path="/v1/images/edits", images=images, partial_images=1)
    assert [event["type"] for event in events_of(body)] == ["image_edit.partial_image", "image_edit.completed"]
    assert body.startswith(b"event: image_edit.partial_image\ndata: {")


async def test_openais_own_client_reads_a_stream(start: Start) -> None:
    server = (await start()).server
    async with openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="sk-anything") as client:
        events = await client.images.generate(
            model="sample-image-1", prompt="x", size="1024x1024", stream=True, partial_images=1
        )
        kinds = [event.type async for event in events]
        assert kinds == ["image_generation.partial_image", "image_generation.completed"]
        with pytest.raises(openai.APIError, match="told to fail"):
            async for _ in await client.images.generate(prompt="[sample error_after_events=0] x", stream=True):
                pass


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("end_after_events=1", ["partial_image"]),
        ("end_after_events=0", []),
        ("error_after_events=1", ["partial_image", "error"]),
        ("error_after_events=2", ["partial_image", "completed", "error"]),
    ],
)
async def test_a_stream_ends_as_it_is_told_to(start: Start, behaviour: str, expected: list[str]) -> None:
    assert types_of(await stream(await start(), f"[sample {behaviour}] x", partial_images=1)) == expected


async def test_comments_done_and_malformed_events(start: Start) -> None:
    client = await start()
    body = await stream(client, "[sample comments done] x", partial_images=1)
    assert body.count(b": SAMPLE PROCESSING\n\n") == 2
    assert body.endswith(b"data: [DONE]\n\n")
    with pytest.raises(orjson.JSONDecodeError):
        events_of((await stream(client, "[sample malformed] x")).replace(b'{"type"', b'{ "type"'))


async def test_events_come_one_by_one_with_silence_between_them(start: Start) -> None:
    client, loop = await start(event_delay_ms=60), asyncio.get_running_loop()
    begun_s = loop.time()
    await stream(client, partial_images=2)
    assert loop.time() - begun_s > 0.119


async def test_a_stream_may_fall_silent_for_good(start: Start) -> None:
    client = await start(stall_after_events=1)
    response = await client.post(
        GENERATIONS, json={"prompt": "x", "size": "64x64", "stream": True, "partial_images": 1}
    )
    event = await response.content.readuntil(b"\n\n")
    assert b"partial_image" in event
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(response.content.read(1), 0.1)
    response.close()


async def test_the_bytes_of_a_stream_misbehave_as_others_do(start: Start) -> None:
    client = await start()
    with pytest.raises(Exception, match="ayload"):
        await stream(client, "[sample truncate_after=100 image_bytes=1000000] x")
    response = await client.post(GENERATIONS, json={"prompt": "[sample endless] x", "stream": True})
    assert len(await response.content.readexactly(1_000_000)) == 1_000_000
    response.close()
    response = await client.post(GENERATIONS, json={"prompt": "[sample status=429] x", "stream": True})
    assert response.status == 429
    big = events_of(await stream(client, "[sample image_bytes=4000000 chunk_bytes=1000] x"))
    assert len(big[0]["b64_json"]) == 4_000_000


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
async def test_pictures_have_the_format_and_the_pixels_asked_for(start: Start, picture_format: str) -> None:
    client = await start()
    body = {"prompt": "x", "size": "90x60", "output_format": picture_format}
    for prompt, size in (("x", (90, 60)), ("[sample longest_edge_px=30] x", (30, 20))):
        answer = await (
            await client.post(GENERATIONS, json={**body, "prompt": prompt, "response_format": "b64_json"})
        ).json()
        assert answer["output_format"] == picture_format
        assert opened(answer["data"][0]["b64_json"]) == (picture_format.upper(), size)
    url = (await (await client.post(GENERATIONS, json=body)).json())["data"][0]["url"]
    response = await client.get(url[url.index("/pictures") :])
    assert response.content_type == f"image/{picture_format}"
    assert opened(base64.b64encode(await response.read()).decode()) == (picture_format.upper(), (90, 60))


@pytest.mark.parametrize(
    "fields", [{"stream": "yes"}, {"partial_images": 4}, {"partial_images": True}, {"output_format": "gif"}]
)
async def test_bad_fields_of_streams_are_named(start: Start, fields: dict[str, Any]) -> None:
    response = await (await start()).post(GENERATIONS, json={"prompt": "x", **fields})
    assert response.status == 400
    assert (await response.json())["error"]["param"] == next(iter(fields))
