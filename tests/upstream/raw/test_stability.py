"""What Stability is sent, and what its heads and errors say."""

from __future__ import annotations

import base64
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import orjson
import pytest

from proxy.domain.errors import InvalidRequest, NothingGenerated, ProviderOutOfCredit, ProviderRefusal, UpstreamError
from proxy.domain.requests.edit import parse_edit_request, request_of_form
from proxy.domain.requests.image import ImageRequest, Task, parse_image_request
from proxy.domain.requests.inputs import Upload
from proxy.domain.requests.unknown import accept_unknown
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.stability import STRENGTH, StabilityDialect
from tests.domain.samples import make_model
from tests.support.sources import upload
from tests.upstream.test_edits import BOUNDARY, sent

DIALECT = StabilityDialect()
LISTED = {"size", "image_config", "output_format"}


async def form_of(body: OutgoingBody) -> dict[str, bytes]:
    head = f"Content-Type: {body.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + await sent(body))
    fields = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        fields[str(part.get_param("name", header="content-disposition"))] = content
    return fields


async def generation(name: str = "core", more: dict[str, Any] | None = None, **fields: Any) -> dict[str, bytes]:
    model = make_model(upstream_model=name, **{"parameters": LISTED, **(more or {})})
    request = parse_image_request(orjson.dumps({"model": "m", "prompt": "a cube", **fields}))
    accepted = accept_unknown(request, model)
    assert isinstance(accepted, ImageRequest)
    return await form_of(DIALECT.write_generation(accepted, model))


@pytest.mark.parametrize(
    ("name", "path", "model"),
    [
        ("core", "/generate/core", None),
        ("stable-image-ultra", "/generate/ultra", None),
        ("sd3", "/generate/sd3", None),
        ("sd3.5-large-turbo", "/generate/sd3", b"sd3.5-large-turbo"),
    ],
)
async def test_a_model_is_a_path_or_one_of_a_family(name: str, path: str, model: bytes | None) -> None:
    assert DIALECT.images_path(ImageRequest("m", "x"), make_model(upstream_model=name)) == path
    assert (await generation(name)).get("model") == model


@pytest.mark.parametrize(
    ("fields", "ratio"),
    [
        ({}, None),
        ({"size": "auto"}, None),
        ({"size": "1024x1024"}, b"1:1"),
        ({"size": "1536x1024"}, b"3:2"),
        ({"size": "1024x1536"}, b"2:3"),
        ({"size": "1792x1024"}, b"16:9"),
        ({"size": "800x600"}, b"5:4"),
        ({"size": "4000x1000"}, b"21:9"),
        ({"image_config": {"aspect_ratio": "9:21"}}, b"9:21"),
        ({"size": "1024x1024", "image_config": {"aspect_ratio": "4:5"}}, b"4:5"),
    ],
)
async def test_a_size_is_an_aspect_ratio(fields: dict[str, Any], ratio: bytes | None) -> None:
    assert (await generation(**fields)).get("aspect_ratio") == ratio


async def test_what_is_not_listed_is_left_out() -> None:
    assert await generation(more={"parameters": set()}, size="1536x1024", output_format="webp") == {"prompt": b"a cube"}


async def test_a_prompt_cannot_end_its_field() -> None:
    prompt = '"\r\n--boundary--\r\nContent-Disposition: form-data; name="model"\r\n\r\nultra'
    assert await generation(prompt=prompt, output_format="webp") == {
        "prompt": prompt.encode(),
        "output_format": b"webp",
    }


async def test_unknown_fields_are_texts_and_take_no_place() -> None:
    more = {"unknown_parameters": "forward"}
    form = await generation(more=more, seed=7, negative_prompt="fog", aspect_ratio="1:1", mode="x")
    assert form == {"prompt": b"a cube", "seed": b"7", "negative_prompt": b"fog"}


def edit(*files: Upload) -> ImageRequest:
    return request_of_form([("prompt", "greener")], files, Task.EDIT)


async def test_an_edit_starts_from_an_image() -> None:
    request, model = edit(upload(data=b"image")), make_model(upstream_model="sd3.5-large")
    assert DIALECT.images_path(request, model) == "/generate/sd3"
    assert await form_of(DIALECT.write_edit(request, model, BOUNDARY)) == {
        "prompt": b"greener", "model": b"sd3.5-large", "mode": b"image-to-image", "strength": str(STRENGTH).encode(),
        "image": b"image",
    }  # fmt: skip


async def test_an_edit_with_a_mask_paints_in_it() -> None:
    request = edit(upload(data=b"image"), upload("mask", data=b"mask"))
    model = make_model(upstream_model="ultra")
    assert DIALECT.images_path(request, model) == "/edit/inpaint"
    form = await form_of(DIALECT.write_edit(request, model, BOUNDARY))
    assert form == {"prompt": b"greener", "image": b"image", "mask": b"mask"}


async def test_an_image_in_base64_is_a_file() -> None:
    address = f"data:image/png;base64,{base64.b64encode(b'image').decode()}"
    body = {"model": "m", "prompt": "greener", "images": [{"image_url": address}]}
    request = parse_edit_request(orjson.dumps(body))
    form = await form_of(DIALECT.write_edit(request, make_model(upstream_model="core"), BOUNDARY))
    assert form["image"] == b"image"


def test_several_images_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.write_edit(edit(upload(data=b"1"), upload(data=b"2")), make_model(), BOUNDARY)


def test_what_a_head_says() -> None:
    assert DIALECT.read_head({"finish-reason": "SUCCESS"}) is DIALECT.read_head({}) is None
    error = DIALECT.read_head({"finish-reason": "CONTENT_FILTERED"})
    assert isinstance(error, NothingGenerated)
    assert error.wire_code == "content_filtered"


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "bad_request", ProviderRefusal),
        (403, "content_moderation", ProviderRefusal),
        (402, "payment_required", ProviderOutOfCredit),
        (413, "payload_too_large", ProviderRefusal),
        (500, "internal_error", UpstreamError),
    ],
)
def test_errors(status: int, name: str, kind: type[Exception]) -> None:
    body = orjson.dumps({"id": "4212a4b66fbe1cedca4bf2133d35dca5", "name": name, "errors": ["some-field: is required"]})
    error = DIALECT.read_refusal(status, {}, body)
    assert type(error) is kind
    if kind is ProviderRefusal:
        assert error.message == "some-field: is required"
