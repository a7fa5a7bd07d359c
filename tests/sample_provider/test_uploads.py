"""Edits and variations, with real uploads over a socket."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from tests.sample_provider.conftest import Client, Start

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
PNG = b"\x89PNG not really"


def form(images: tuple[str, ...] = ("image",), **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData(fields, default_to_multipart=True)
    for index, name in enumerate(images):
        data.add_field(name, PNG, filename=f"{index}.png", content_type="image/png")
    return data


async def last_request(client: Client) -> dict[str, Any]:
    request: dict[str, Any] = (await (await client.get("/requests")).json())[-1]
    return request


async def test_an_upload_is_on_record_without_its_bytes(start: Start) -> None:
    client = await start()
    data = form(("image[]", "image[]", "mask"), prompt="a blue cube", n="2", size="64x64")
    response = await client.post(EDITS, data=data)
    assert response.status == 200, await response.text()
    assert len((await response.json())["data"]) == 2
    request = await last_request(client)
    assert (request["path"], request["raw_body"]) == (EDITS, "")
    parts = {part["name"]: part for part in request["parts"]}
    assert [part["name"] for part in request["parts"]] == ["prompt", "n", "size", "image[]", "image[]", "mask"]
    assert parts["prompt"]["value"] == "a blue cube"
    assert parts["mask"] == {
        "name": "mask",
        "filename": "2.png",
        "content_type": "image/png",
        "size_bytes": len(PNG),
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "value": None,
    }


async def test_an_edit_in_a_form_streams_and_behaves(start: Start) -> None:
    client = await start()
    response = await client.post(EDITS, data=form(prompt="[sample images=3] x", stream="true", size="64x64"))
    assert (await response.read()).count(b"event: image_edit.completed\n") == 3
    assert (await client.post(EDITS, data=form(prompt="[sample status=503] x"))).status == 503


async def test_a_variation_needs_no_prompt(start: Start) -> None:
    client = await start()
    assert len((await (await client.post(VARIATIONS, data=form(n="2"))).json())["data"]) == 2
    response = await client.post(VARIATIONS, data=form(n="2", user="[sample images=0]"))
    assert (await response.json())["data"] == []


@pytest.mark.parametrize("path", [EDITS, VARIATIONS])
async def test_an_upload_without_an_image_is_refused(start: Start, path: str) -> None:
    client = await start()
    response = await client.post(path, data=form((), prompt="x"))
    assert (response.status, (await response.json())["error"]["param"]) == (400, "image")
    response = await client.post(path, data=b"--x", headers={"Content-Type": "multipart/form-data"})
    assert response.status == 400
    assert (await client.post(path, data=form(), headers={"Authorization": ""})).status == 401


async def test_an_edit_in_json_needs_images(start: Start) -> None:
    client = await start()
    response = await client.post(EDITS, json={"prompt": "x", "images": [{"file_id": "file-1"}]})
    assert len((await response.json())["data"]) == 1
    response = await client.post(EDITS, json={"prompt": "x"})
    assert (await response.json())["error"]["param"] == "images"
    assert (await client.post(VARIATIONS, json={})).status == 415


async def test_a_large_upload_needs_no_memory(start: Start) -> None:
    client = await start()

    async def large() -> AsyncIterator[bytes]:
        head = 'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        yield f"--xyz\r\n{head}".encode()
        for _ in range(800):
            yield bytes(65536)
        yield b'\r\n--xyz\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--xyz--\r\n'

    tracemalloc.start()
    try:
        headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
        response = await client.post(EDITS, data=large(), headers=headers)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert response.status == 200, await response.text()
    assert (await last_request(client))["parts"][0]["size_bytes"] == 800 * 65536
    assert peak_bytes < 8 * 1024 * 1024


async def test_openais_own_client_edits(start: Start) -> None:
    server = (await start()).server
    async with openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="sk-anything") as client:
        edited = await client.images.edit(image=[("a.png", PNG), ("b.png", PNG)], prompt="x", n=2)
        with pytest.warns(DeprecationWarning, match="deprecated"):
            varied = await client.images.create_variation(image=("a.png", PNG))
    assert edited.data is not None
    assert varied.data is not None
    assert (len(edited.data), len(varied.data)) == (2, 1)
