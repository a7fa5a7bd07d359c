from __future__ import annotations

import asyncio
import base64
import io
import sys
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from aiohttp.test_utils import TestServer
from PIL import Image

from proxy.sample_provider.app import build_app
from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.dialects.wire import MALFORMED_BODY, difference, filler
from tests.sample_provider.conftest import Client, Start

PATH = "/v1/images/generations"


async def generate(client: Client, prompt: str = "a blue cube", **fields: Any) -> dict[str, Any]:
    response = await client.post(PATH, json={"model": "sample-image-1", "prompt": prompt, **fields})
    assert response.status == 200, await response.text()
    assert response.content_type == "application/json"
    answer: dict[str, Any] = await response.json()
    return answer


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


# --- Answers --------------------------------------------------------------------------------------------------------


async def test_an_answer_is_openais_with_the_bill_beside_it(start: Start) -> None:
    answer = await generate(await start(), n=2)
    assert list(answer) == [
        "created",
        "background",
        "output_format",
        "quality",
        "size",
        "data",
        "usage",
        "cost",
    ]
    assert len(answer["data"]) == 2
    assert answer["usage"]["output_tokens"] == 2112
    assert answer["cost"] == 0.08


async def test_a_url_leads_to_the_picture_through_the_host_that_was_asked(start: Start) -> None:
    client = await start()
    image = (await generate(client, size="300x200"))["data"][0]
    assert image["revised_prompt"] == "a blue cube"
    assert image["url"].startswith(f"http://{client.host}:{client.port}/pictures/")
    async with aiohttp.ClientSession() as stranger, stranger.get(image["url"]) as response:
        assert response.content_type == "image/png"
        assert size_of(await response.read()) == (300, 200)

    response = await client.post(PATH, json={"prompt": "x"}, headers={"Host": "pictures.example:81"})
    assert (await response.json())["data"][0]["url"].startswith("http://pictures.example:81/pictures/")


async def test_the_same_prompt_and_size_are_the_same_picture_in_both_forms(start: Start) -> None:
    client = await start()
    by_url = [(await generate(client, size="64x64"))["data"][0]["url"] for _ in range(2)]
    assert by_url[0] == by_url[1]
    assert by_url[0] != (await generate(client, size="64x32"))["data"][0]["url"]
    assert by_url[0] != (await generate(client, "a red cube", size="64x64"))["data"][0]["url"]
    picture = await (await client.get(by_url[0][by_url[0].index("/pictures") :])).read()
    for image in (await generate(client, size="64x64", n=2, response_format="b64_json"))["data"]:
        assert base64.b64decode(image["b64_json"], validate=True)[: len(picture)] == picture


async def test_an_unknown_picture_is_a_404(start: Start) -> None:
    response = await (await start()).get("/pictures/00.png")
    assert response.status == 404
    assert (await response.json())["error"]["code"] == "not_found"


async def test_the_prompts_prefix_is_not_drawn(start: Start) -> None:
    client = await start()
    plain, prefixed = await generate(client), await generate(client, "[sample images=1] a blue cube")
    assert prefixed["data"] == plain["data"]


async def test_without_pillow_urls_work_and_pictures_say_what_to_install(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await start()
    monkeypatch.setitem(sys.modules, "PIL", None)
    url = (await generate(client))["data"][0]["url"]
    for response in (
        await client.get(url[url.index("/pictures") :]),
        await client.post(PATH, json={"prompt": "x", "response_format": "b64_json"}),
    ):
        assert response.status == 500
        assert "pip install 'lightmeter[demo]'" in (await response.json())["error"]["message"]


async def test_openais_own_client_understands_it(start: Start) -> None:
    server = (await start()).server
    async with openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="sk-anything") as client:
        answer = await client.images.generate(model="sample-image-1", prompt="a blue cube", n=2, size="1024x1024")
        models = await client.models.list()
        with pytest.raises(openai.BadRequestError, match="n must be"):
            await client.images.generate(model="sample-image-1", prompt="x", n=101)
    assert answer.data is not None
    assert len(answer.data) == 2
    assert answer.usage is not None
    assert answer.usage.input_tokens == 3
    assert [model.id for model in models.data] == ["sample-image-1", "sample-image-1-mini"]


# --- Keys and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "sk-anything"])
@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("GET", "/v1/models")])
async def test_a_bearer_token_is_needed(start: Start, header: str | None, method: str, path: str) -> None:
    server = (await start()).server
    headers = {} if header is None else {"Authorization": header}
    async with aiohttp.ClientSession() as session:
        response = await session.request(method, server.make_url(path), data=b"{}", headers=headers)
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "invalid_api_key"


async def test_a_key_that_is_set_is_the_only_one(start: Start) -> None:
    client = await start(api_key="sk-right")
    for key, status in (("sk-right", 200), ("sk-righ", 401), ("sk-right2", 401)):
        headers = {"Authorization": f"bearer {key}"}
        assert (await client.post(PATH, json={"prompt": "x"}, headers=headers)).status == status
        assert (await client.get("/v1/models", headers=headers)).status == status


async def test_bad_requests_are_400s_in_openais_form(start: Start) -> None:
    client = await start()
    for body in (b"{", b"{}", b'{"prompt":"[sample colour=red] x"}'):
        response = await client.post(PATH, data=body)
        assert response.status == 400
        assert set((await response.json())["error"]) == {"message", "type", "param", "code"}
    response = await client.post(PATH, json={"prompt": "x"}, headers={"x-sample-behaviour": "colour=red"})
    assert response.status == 400
    assert "'colour'" in (await response.json())["error"]["message"]


async def test_a_path_that_is_not_there_is_a_404_in_openais_form(start: Start) -> None:
    response = await (await start()).get(PATH)
    assert response.status == 404
    assert (await response.json())["error"]["message"] == f"The sample provider has no GET {PATH}."


async def test_a_body_past_the_limit_is_a_413(start: Start) -> None:
    response = await (await start()).post(PATH, data=io.BytesIO(b" " * (64 * 1024 * 1024 + 1)))
    assert response.status == 413
    assert (await response.json())["error"]["code"] == "payload_too_large"


async def test_a_forced_status_answers_everything(start: Start) -> None:
    client = await start(status=503)
    for _ in range(2):
        response = await client.post(PATH, json={"prompt": "x"})
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "overloaded"
        assert "Retry-After" not in response.headers


async def test_a_429_says_when_to_come_back(start: Start) -> None:
    response = await (await start()).post(PATH, json={"prompt": "[sample status=429] x"})
    assert response.status == 429
    assert response.headers["Retry-After"] == "7"


async def statuses(client: Client, count: int) -> list[int]:
    return [(await client.post(PATH, json={"prompt": "x"})).status for _ in range(count)]


async def test_failures_are_as_many_as_asked_and_the_same_for_the_same_seed(start: Start) -> None:
    first, same, other = [
        await statuses(await start(failure_rate=0.5, failure_status=502, seed=seed), 60) for seed in (7, 7, 8)
    ]
    assert first == same
    assert first != other
    assert set(first) == {200, 502}
    assert 15 < first.count(502) < 45
    assert set(await statuses(await start(failure_rate=1.0), 5)) == {500}


# --- Other ways to behave ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [0, 1, 5])
async def test_it_returns_fewer_or_more_images_when_told_to(start: Start, images: int) -> None:
    client = await start()
    for form in ("url", "b64_json"):
        prompt = f"[sample images={images}] a blue cube"
        answer = await generate(client, prompt, n=2, response_format=form, size="32x32")
        assert len(answer["data"]) == images
        assert answer["usage"]["output_tokens"] == 1056 * images


async def test_a_header_overrides_as_a_prompt_does(start: Start) -> None:
    client = await start(images=3)
    response = await client.post(PATH, json={"prompt": "x"}, headers={"X-Sample-Behaviour": "images=2, delay_ms=1"})
    assert len((await response.json())["data"]) == 2
    assert len((await generate(client))["data"]) == 3


async def test_malformed_json_comes_with_a_200(start: Start) -> None:
    response = await (await start()).post(PATH, json={"prompt": "[sample malformed] x"})
    assert response.status == 200
    assert await response.read() == MALFORMED_BODY
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(MALFORMED_BODY)


@pytest.mark.parametrize("image_bytes", [4000, 4_000_000])
async def test_filler_of_any_size_stands_in_for_pictures(start: Start, image_bytes: int) -> None:
    client = await start(image_bytes=image_bytes)
    response = await client.post(PATH, json={"prompt": "x", "n": 2})
    body = await response.read()
    assert response.headers["Content-Length"] == str(len(body))
    assert [image["b64_json"] for image in orjson.loads(body)["data"]] == [
        filler(image_bytes).decode() + difference(index) for index in range(2)
    ]


async def test_a_dropped_connection_brings_no_answer(start: Start) -> None:
    client = await start(drop_connection=True)
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.post(PATH, json={"prompt": "x"})
    assert len(await (await client.get("/requests")).json()) == 1


async def test_the_answer_waits_as_long_as_it_is_told_to(start: Start) -> None:
    client, loop = await start(delay_ms=80), asyncio.get_running_loop()
    begun_s = loop.time()
    await generate(client)
    assert loop.time() - begun_s > 0.079


# --- Looking inside -------------------------------------------------------------------------------------------------


async def test_requests_are_shown_as_they_came(start: Start) -> None:
    client = await start()
    raw = '{ "prompt": "[sample images=2] x", "n": 1 }'
    await client.post(PATH, data=raw.encode(), headers={"X-Trace": "abc"})
    await client.post(PATH, data=b"{", headers={"Authorization": "Basic x"})
    first, second = await (await client.get("/requests")).json()
    assert (first["method"], first["path"], first["raw_body"]) == ("POST", PATH, raw)
    assert first["body"] == {"prompt": "[sample images=2] x", "n": 1}
    assert ["x-trace", "abc"] in first["headers"]
    assert ["authorization", "Bearer sk-anything"] in first["headers"]
    assert (second["body"], second["raw_body"]) == (None, "{")

    assert (await client.delete("/requests")).status == 204
    assert await (await client.get("/requests")).json() == []


async def test_totals_count_requests_received_and_images_made(start: Start) -> None:
    client = await start()
    await generate(client, n=3)
    await generate(client, "[sample images=2] x", n=3)
    for prompt in ("[sample status=500] x", "[sample malformed] x", ""):
        await client.post(PATH, json={"prompt": prompt})
    await client.delete("/requests")
    assert await (await client.get("/stats")).json() == {"requests": 5, "images": 5}


async def test_images_count_even_if_their_client_has_left(start: Start) -> None:
    client = await start()
    leaver = asyncio.create_task(generate(client, "[sample delay_ms=60000] x"))
    while not await (await client.get("/requests")).json():
        pass
    leaver.cancel()
    assert await (await client.get("/stats")).json() == {"requests": 1, "images": 1}


async def test_it_is_healthy() -> None:
    async with TestServer(build_app(Behaviour())) as server, aiohttp.ClientSession() as session:
        assert (await session.get(server.make_url("/healthz"))).status == 200
