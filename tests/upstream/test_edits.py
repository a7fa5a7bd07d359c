"""Edits in each provider's words, with files in them that are read only while they are sent."""

from __future__ import annotations

import base64
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.billing.settlement import Served
from proxy.domain.errors import UploadsUnavailable
from proxy.domain.requests.edit import parse_edit_request, request_of_form
from proxy.domain.requests.image import ImageRequest, Task
from proxy.domain.requests.inputs import Upload
from proxy.domain.wording import EditForm, Wording
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from proxy.upstream.bodies.outgoing import FileBytes, OutgoingBody
from proxy.upstream.bodies.payload import READ_BYTES, pieces_of
from proxy.upstream.breaker import Result
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.failover import result_of, why_again
from proxy.upstream.pool import Pool
from proxy.upstream.provider import Provider
from tests.domain.answer_samples import events_of, passed_however_cut
from tests.domain.samples import make_model
from tests.support.sources import upload

BOUNDARY = "0123456789abcdef" * 2


async def sent(body: OutgoingBody) -> bytes:
    """As a provider gets it; it is as long as was said before."""
    pieces = [piece async for piece in pieces_of(body)]
    assert all(pieces)
    assert sum(map(len, pieces)) == body.size_bytes
    return b"".join(pieces)


def edit(prompt: str, *files: Upload, **texts: str) -> ImageRequest:
    return request_of_form([("prompt", prompt), *texts.items()], files, Task.EDIT)


@given(st.text(min_size=1).filter(str.strip), st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=3))
async def test_files_stand_in_json_wherever_they_belong(prompt: str, files: list[bytes]) -> None:
    request = edit(prompt, *(upload(data=data) for data in files))
    chat = orjson.loads(await sent(DIALECTS["openrouter"].write_edit(request, make_model(endpoint="chat"), BOUNDARY)))
    text, *images = chat["messages"][0]["content"]
    assert text == {"type": "text", "text": prompt}
    encoded = [base64.b64encode(data).decode() for data in files]
    assert [image["image_url"]["url"] for image in images] == [f"data:image/png;base64,{data}" for data in encoded]
    asked = orjson.loads(await sent(DIALECTS["openrouter"].write_edit(request, make_model(), BOUNDARY)))
    assert (asked["prompt"], asked["input_references"]) == (prompt, images)
    content = orjson.loads(await sent(DIALECTS["gemini"].write_edit(request, make_model(), BOUNDARY)))
    text, *images = content["contents"][0]["parts"]
    assert text == {"text": prompt}
    assert [image["inlineData"] for image in images] == [{"mimeType": "image/png", "data": data} for data in encoded]


@pytest.mark.parametrize("size", [1, 2, 3, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES + 2])
async def test_base64_in_pieces_is_base64(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    file = upload(data=b"before" + data[:size] + b"after", start=6, size_bytes=size)
    pieces: list[bytes | FileBytes] = [b"<", FileBytes(file, in_base64=True), b"|", FileBytes(file), b">"]
    body = OutgoingBody("application/json", pieces)
    assert await sent(body) == b"<" + base64.b64encode(data[:size]) + b"|" + data[:size] + b">"


async def test_a_file_that_is_shorter_than_it_was_is_an_error() -> None:
    body = OutgoingBody("image/png", [FileBytes(upload(data=b"1234", size_bytes=9))])
    with pytest.raises(OSError, match="shorter"):
        await sent(body)


LINK = {"image_url": "https://a.example/cat.png"}


def refer(**fields: Any) -> ImageRequest:
    return parse_edit_request(orjson.dumps({"prompt": "a cube", **fields}))


DATA = {"image_url": "data:image/png;base64,AAAA"}
JSON_FORMS = (EditForm.IMAGE_OBJECTS, EditForm.IMAGE_URLS, EditForm.INPUT_IMAGES)
INPUT_IMAGES = ("input_image", "input_image_2", "input_image_3")
OBJECT, LINKED = {"type": "image_url", "url": DATA["image_url"]}, {"type": "image_url", "url": LINK["image_url"]}


@pytest.mark.parametrize(
    ("form", "images", "expected"),
    [
        (EditForm.IMAGE_OBJECTS, [DATA], {"image": OBJECT}),
        (EditForm.IMAGE_OBJECTS, [DATA, LINK], {"images": [OBJECT, LINKED]}),
        (EditForm.IMAGE_URLS, [LINK], {"image": LINK["image_url"]}),
        (EditForm.IMAGE_URLS, [DATA, LINK], {"image": [DATA["image_url"], LINK["image_url"]]}),
        (EditForm.INPUT_IMAGES, [DATA, DATA, DATA], dict.fromkeys(INPUT_IMAGES, "AAAA")),
    ],
)
async def test_a_provider_may_take_the_images_of_an_edit_in_json_of_its_own(
    form: EditForm, images: list[dict[str, str]], expected: dict[str, Any]
) -> None:
    model = make_model(wording=Wording(edits=form, constants={"image": 1, "input_image_2": 2}))
    asked = orjson.loads(await sent(DIALECTS["openai"].write_edit(refer(images=images, n=2), model, BOUNDARY)))
    rest = {"model": model.upstream_model, "prompt": "a cube", "n": 2, "image": 1, "input_image_2": 2}
    assert asked == {**rest, **expected}


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.sampled_from(JSON_FORMS))
async def test_files_become_json_in_every_form_of_it(files: list[bytes], form: EditForm) -> None:
    mask = [upload("mask", data=b"mask")] if form is EditForm.IMAGE_OBJECTS else []
    request = edit("a cube", *(upload(data=data) for data in files), *mask)
    model = make_model(wording=Wording(edits=form, constants={"input_image_2": 2}))
    written = DIALECTS["openai"].write_edit(request, model, BOUNDARY)
    asked = orjson.loads(await sent(written))
    assert written.content_type == "application/json"
    encoded = [base64.b64encode(data).decode() for data in files]
    if form is EditForm.INPUT_IMAGES:
        names = ["input_image", *(f"input_image_{number}" for number in range(2, len(files) + 1))]
        assert [asked[name] for name in names] == encoded
        return
    if form is EditForm.IMAGE_URLS:
        given = asked["image"] if len(files) > 1 else [asked["image"]]
    else:
        given = [each["url"] for each in (asked["images"] if len(files) > 1 else [asked["image"]])]
        assert asked["mask"] == {"type": "image_url", "url": "data:image/png;base64,bWFzaw=="}
    assert given == [f"data:image/png;base64,{data}" for data in encoded]


@pytest.mark.parametrize("form", [EditForm.FILES, EditForm.UNMASKED_FILES])
async def test_a_provider_that_reads_forms_alone_gets_base64_as_files(form: EditForm) -> None:
    request, model = refer(images=[DATA, DATA]), make_model(wording=Wording(edits=form))
    written = DIALECTS["openai"].write_edit(request, model, BOUNDARY)
    head = f"Content-Type: {written.content_type}\r\n\r\n".encode()
    parts = list(BytesParser(policy=HTTP).parsebytes(head + await sent(written)).iter_parts())
    files = [part for part in parts if part.get_filename()]
    assert [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True)) for part in files
    ] == [("image[]", b"\0\0\0")] * 2


async def test_references_are_passed_on_in_each_ones_words() -> None:
    data = {"image_url": "data:image/png;base64,AAAA"}
    request, model = refer(images=[data, LINK], mask={"file_id": "f"}, n=2, input_fidelity="high"), make_model()
    written = DIALECTS["openai"].write_edit(request, model, BOUNDARY)
    assert written.content_type == "application/json"
    assert orjson.loads(await sent(written)) == {
        "model": model.upstream_model, "prompt": "a cube", "n": 2, "images": [data, LINK], "mask": {"file_id": "f"},
    }  # fmt: skip
    in_chat = make_model(endpoint="chat")
    chat = orjson.loads(await sent(DIALECTS["openrouter"].write_edit(request, in_chat, BOUNDARY)))
    assert [part["image_url"]["url"] for part in chat["messages"][0]["content"][1:]] == [*data.values(), *LINK.values()]
    gemini = orjson.loads(await sent(DIALECTS["gemini"].write_edit(refer(images=[data]), model, BOUNDARY)))
    assert gemini["contents"][0]["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


def test_input_fidelity_is_forwarded_where_it_is_listed() -> None:
    model = make_model(parameters={"input_fidelity"})
    [body] = DIALECTS["openai"].write_edit(refer(images=[LINK], input_fidelity="high"), model, BOUNDARY).pieces
    assert isinstance(body, bytes)
    assert orjson.loads(body)["input_fidelity"] == "high"


PICTURE = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
ANSWERS: dict[str, dict[str, Any]] = {
    "openai": {"data": [{"b64_json": "AAAA"}]},
    "gemini": {"candidates": [{"content": {"parts": [PICTURE]}, "finishReason": "STOP"}]},
    "openrouter": {"choices": [{"message": {"images": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}}]},
}


@pytest.mark.parametrize("dialect", ANSWERS)
def test_an_edit_that_is_streamed_has_events_of_its_own_however_it_is_cut(dialect: str) -> None:
    head = ImagesHead(1, task="image_edit")
    seen = passed_however_cut(
        lambda: read_images(DIALECTS[dialect].reading, head, comes_as_events=False, stream=True),
        orjson.dumps(ANSWERS[dialect]),
    )
    [event] = events_of(seen.output)
    assert (event["type"], event["b64_json"], seen.images) == ("image_edit.completed", "AAAA", 1)
    assert seen.output.startswith(b"event: image_edit.completed\n")


class Broken:
    """A disk that cannot be read."""

    async def read(self, start: int, size: int) -> bytes:
        raise OSError(f"no {size} bytes at {start}")


async def test_a_disk_that_cannot_be_read_is_no_fault_of_the_provider(caplog: pytest.LogCaptureFixture) -> None:
    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_post("/images/edits", take)
    async with TestServer(app) as server:
        provider = Provider("acme", "openai", str(server.make_url("/")))
        model, served = make_model(), Served()
        pool = Pool([provider], [model], Metrics())
        request = edit("a cube", upload(size_bytes=1_000, source=Broken()))
        exchange = pool.ask(request, model, served, Observation("req_1", "edits"), lambda: False)
        with pytest.raises(UploadsUnavailable) as caught:
            await exchange.__aenter__()
        await pool.close()
    assert "server.upload_folder" in caplog.text
    assert result_of(caught.value, served.status) is Result.NEITHER
    assert why_again(caught.value, served.status, provider) is None


# --- Fields that OpenAI's packages send -------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [frozenset(), frozenset({"svg", "markup", "frame_count"})])
async def test_a_markup_and_an_svg_are_sent_where_the_model_lists_them(listed: frozenset[str]) -> None:
    files = [upload(name, data=name.encode()) for name in ("markup", "image", "mask")]
    texts = [("prompt", "x"), ("svg[reasoning][effort]", "low"), ("svg[model]", "m"), ("frame_count", "4")]
    asked = request_of_form(texts, files, Task.EDIT)
    body = DIALECTS["openai"].write_edit(asked, make_model(parameters=listed), BOUNDARY)
    parts = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {body.content_type}\r\n\r\n".encode() + await sent(body)
    )
    told = {part.get_param("name", header="content-disposition"): part.get_content() for part in parts.iter_parts()}
    assert (told["image"], told["mask"]) == (b"image", b"mask")
    more = {"svg[reasoning][effort]": "low", "svg[model]": "m", "frame_count": "4", "markup": b"markup"}
    assert {name: value for name, value in told.items() if name in more} == (more if listed else {})


def test_a_markup_by_its_address_is_sent_where_the_model_lists_it() -> None:
    link = {"image_url": "https://a.example/cat.png"}
    asked = parse_edit_request(orjson.dumps({"prompt": "x", "images": [link], "markup": link, "mask": link}))
    for listed, names in ((frozenset[str](), {"mask"}), (frozenset({"markup"}), {"mask", "markup"})):
        [body] = DIALECTS["openai"].write_edit(asked, make_model(parameters=listed), BOUNDARY).pieces
        assert isinstance(body, bytes)
        written = orjson.loads(body)
        assert {name for name in ("mask", "markup") if written.get(name) == link} == names
