"""Every form in which OpenAI's package for Python asks: at once or in turn, raw or parsed, whole or in events."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.gateways import RunningGateway, SampleProvider

PNG_IN_BASE64 = "iVBORw0KGgo"
IMAGE: dict[str, Any] = {"model": "acme/image-1", "prompt": "a translucent blue cube"}
TALK: dict[str, Any] = {
    "model": "acme/image-1",
    "messages": [{"role": "user", "content": "a cube"}],
    "modalities": ["image", "text"],
}
TWO_STREAMED = ["image_generation.partial_image", "image_generation.completed"] * 2


def client(gateway: RunningGateway, key: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=key, **options)


def async_client(gateway: RunningGateway, key: str, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, **options)


def outcomes(gateway: RunningGateway, key: str) -> list[tuple[str, int]]:
    gateway.check_books(key)
    return [(entry["outcome"], entry["images"]) for entry in gateway.ledger(key)]


# --- Raw answers ------------------------------------------------------------------------------------------------------


def test_a_raw_answer_has_headers_and_parses(sdk_gateway: RunningGateway) -> None:
    with client(sdk_gateway, sdk_gateway.make_key()) as sdk:
        raw = sdk.images.with_raw_response.generate(**IMAGE, response_format="b64_json")
        assert (raw.status_code, raw.headers["content-type"]) == (200, "application/json")
        assert raw.request_id is not None
        assert raw.request_id.startswith("req_")
        [image] = raw.parse().data or []
        assert (image.b64_json or "").startswith(PNG_IN_BASE64)


def test_a_raw_answer_may_be_read_as_it_comes(sdk_gateway: RunningGateway) -> None:
    with (
        client(sdk_gateway, sdk_gateway.make_key()) as sdk,
        sdk.images.with_streaming_response.generate(**IMAGE, response_format="b64_json") as raw,
    ):
        assert PNG_IN_BASE64.encode() in b"".join(raw.iter_bytes())


async def test_raw_answers_come_asynchronously(sdk_gateway: RunningGateway) -> None:
    async with async_client(sdk_gateway, sdk_gateway.make_key()) as sdk:
        raw = await sdk.images.with_raw_response.generate(**IMAGE)
        [image] = raw.parse().data or []
        assert image.url is not None
        async with sdk.images.with_streaming_response.generate(**IMAGE) as streamed:
            assert len((await streamed.parse()).data or []) == 1


# --- Events -----------------------------------------------------------------------------------------------------------


def test_events_are_parsed(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()
    with client(sdk_gateway, key) as sdk:
        events = list(sdk.images.generate(**IMAGE, n=2, partial_images=1, stream=True))
    assert [event.type for event in events] == TWO_STREAMED
    assert all(event.b64_json.startswith(PNG_IN_BASE64) for event in events)
    assert [event.usage.total_tokens for event in events if event.type == "image_generation.completed"] == [0, 0]
    assert outcomes(sdk_gateway, key) == [("delivered", 2)]


async def test_events_come_asynchronously(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()

    async def types_of_one(sdk: AsyncOpenAI) -> list[str]:
        stream = await sdk.images.generate(**IMAGE, n=2, partial_images=1, stream=True)
        return [event.type async for event in stream]

    async with async_client(sdk_gateway, key) as sdk:
        assert await asyncio.gather(*(types_of_one(sdk) for _ in range(5))) == [TWO_STREAMED] * 5
    assert outcomes(sdk_gateway, key) == [("delivered", 2)] * 5


def test_a_raw_stream_is_parsed_as_well(sdk_gateway: RunningGateway) -> None:
    with client(sdk_gateway, sdk_gateway.make_key()) as sdk:
        raw = sdk.images.with_raw_response.generate(**IMAGE, stream=True)
        assert raw.headers["content-type"] == "text/event-stream"
        assert [event.type for event in raw.parse()] == ["image_generation.completed"]


@pytest.mark.parametrize("behaviour", ["error_after_events=0", "error_after_events=1", "end_after_events=1"])
async def test_a_stream_that_fails_raises(sdk_gateway: RunningGateway, behaviour: str) -> None:
    asked = {**IMAGE, "prompt": f"[sample {behaviour}] x", "partial_images": 1, "stream": True}
    key = sdk_gateway.make_key()
    with client(sdk_gateway, key) as sdk, pytest.raises(openai.APIError):
        list(sdk.images.generate(**asked))
    async with async_client(sdk_gateway, key) as sdk:
        with pytest.raises(openai.APIError):
            _ = [event async for event in await sdk.images.generate(**asked)]
    assert sdk_gateway.quota(key)["posted"] == 0


# --- Edits and variations ---------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n made up"
EDIT: dict[str, Any] = {**IMAGE, "image": ("cat.png", PNG, "image/png")}
TWO_EDITED = ["image_edit.partial_image", "image_edit.completed"] * 2


def test_edits_of_one_of_many_and_with_a_mask(sdk_gateway: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = sdk_gateway.make_key()
    many = {**EDIT, "image": [PNG, ("dog.png", PNG)], "mask": PNG}
    with client(sdk_gateway, key) as sdk:
        assert len(sdk.images.edit(**EDIT, n=2, size="1024x1024").data or []) == 2
        [image] = sdk.images.edit(**many, response_format="b64_json").data or []
        assert (image.b64_json or "").startswith(PNG_IN_BASE64)
        # Bytes without a name or a kind are known by how they begin.
        sdk.images.edit(**{**EDIT, "image": PNG}, extra_body={"image_config": {"image_size": "4K"}})
        raw = sdk.images.with_raw_response.edit(**EDIT)
        assert (raw.status_code, len(raw.parse().data or [])) == (200, 1)
    assert outcomes(sdk_gateway, key) == [("delivered", images) for images in (2, 1, 1, 1)]
    assert [entry["charged"] for entry in sdk_gateway.ledger(key)] == [10_000, 5_000, 12_500, 5_000]
    kinds = [
        [part["content_type"] for part in request["parts"] if part["filename"]] for request in quiet_provider.requests()
    ]
    assert kinds == [["image/png"], ["image/png"] * 3, ["image/png"], ["image/png"]]


def test_edits_are_streamed(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()
    with client(sdk_gateway, key) as sdk:
        events = list(sdk.images.edit(**EDIT, n=2, partial_images=1, stream=True))
    assert [event.type for event in events] == TWO_EDITED
    assert outcomes(sdk_gateway, key) == [("delivered", 2)]


async def test_edits_and_variations_come_asynchronously(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()
    async with async_client(sdk_gateway, key) as sdk:
        await asyncio.gather(*(sdk.images.edit(**EDIT) for _ in range(5)))
        stream = await sdk.images.edit(**EDIT, n=2, partial_images=1, stream=True)
        assert [event.type async for event in stream] == TWO_EDITED
        with pytest.deprecated_call():
            varied = await sdk.images.create_variation(model="acme/image-1", image=PNG, n=2)
        assert len(varied.data or []) == 2
        with pytest.raises(openai.BadRequestError, match="'n'"):
            await sdk.images.edit(**EDIT, n=0)
    assert outcomes(sdk_gateway, key) == [*[("delivered", 1)] * 5, ("delivered", 2), ("delivered", 2)]


def test_a_large_edit_is_retried_whole(sdk_gateway: RunningGateway, quiet_provider: SampleProvider) -> None:
    key, large = sdk_gateway.make_key(requests_per_minute=60), PNG + b"made up" * 300_000
    with client(sdk_gateway, key, max_retries=2) as sdk:
        for expected in (0, 1):
            raw = sdk.images.with_raw_response.edit(**{**EDIT, "image": large})
            assert raw.retries_taken == expected
    sizes = [part["size_bytes"] for request in quiet_provider.requests() for part in request["parts"]][2::3]
    assert sizes == [len(large)] * 2
    assert outcomes(sdk_gateway, key) == [("delivered", 1)] * 2


# --- Chat -------------------------------------------------------------------------------------------------------------


def check_chat(message: dict[str, Any]) -> None:
    [image] = message["images"]
    assert image["image_url"]["url"].startswith(f"data:image/png;base64,{PNG_IN_BASE64}")


def test_chat_answers_with_images(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()
    with client(sdk_gateway, key) as sdk:
        whole = sdk.chat.completions.create(**TALK)
        check_chat(whole.choices[0].message.model_dump())
        assert whole.usage is not None
        assert whole.usage.total_tokens > 0
        assert not whole.usage.model_extra
        check_chat(sdk.chat.completions.with_raw_response.create(**TALK).parse().choices[0].message.model_dump())
        chunks = list(sdk.chat.completions.create(**TALK, stream=True))
    deltas = [choice.delta.model_dump() for chunk in chunks for choice in chunk.choices]
    check_chat(next(delta for delta in deltas if delta.get("images")))
    assert outcomes(sdk_gateway, key) == [("delivered", 1)] * 3


async def test_chat_comes_asynchronously(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()
    async with async_client(sdk_gateway, key) as sdk:
        whole = await sdk.chat.completions.create(**TALK)
        check_chat(whole.choices[0].message.model_dump())
        stream = await sdk.chat.completions.create(**TALK, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert any(choice.delta.model_dump().get("images") for chunk in chunks for choice in chunk.choices)
    assert outcomes(sdk_gateway, key) == [("delivered", 1)] * 2


def test_chat_and_models_pass_the_strict_validation(sdk_gateway: RunningGateway) -> None:
    # Images do not: their types require the usage that stays inside, and know fewer qualities than providers tell.
    with client(sdk_gateway, sdk_gateway.make_key(), _strict_response_validation=True) as sdk:
        assert sdk.chat.completions.create(**TALK).choices
        assert list(sdk.chat.completions.create(**TALK, stream=True))
        assert sdk.models.retrieve(sdk.models.list().data[0].id).id == "acme/image-1"


# --- Models, errors and retries ---------------------------------------------------------------------------------------


async def test_models_and_errors_come_asynchronously(sdk_gateway: RunningGateway) -> None:
    async with async_client(sdk_gateway, sdk_gateway.make_key(4_999)) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["acme/image-1"]
        assert (await sdk.models.retrieve("acme/image-1")).owned_by == "acme"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("acme/image-2")
        with pytest.raises(openai.BadRequestError, match="'n'"):
            await sdk.images.generate(**IMAGE, n=0)
        with pytest.raises(openai.RateLimitError) as refused:
            await sdk.images.generate(**IMAGE)
    assert refused.value.code == "insufficient_quota"


@pytest.mark.parametrize("stream", [False, True])
def test_a_pace_is_waited_for(sdk_gateway: RunningGateway, *, stream: bool) -> None:
    key = sdk_gateway.make_key(requests_per_minute=60)
    with client(sdk_gateway, key, max_retries=2) as sdk:
        for expected in (0, 1):
            raw = sdk.images.with_raw_response.generate(**IMAGE, stream=stream)
            assert raw.retries_taken == expected
            raw.http_response.read()
    assert outcomes(sdk_gateway, key) == [("delivered", 1)] * 2


async def test_a_providers_failure_is_retried_asynchronously(
    sdk_gateway: RunningGateway, quiet_provider: SampleProvider
) -> None:
    key = sdk_gateway.make_key()
    async with async_client(sdk_gateway, key, max_retries=1) as sdk:
        with pytest.raises(openai.InternalServerError):
            await sdk.images.generate(model="acme/image-1", prompt="[sample status=500] a cube")
    assert len(quiet_provider.requests()) == 2
    assert outcomes(sdk_gateway, key) == [("failed", 0)] * 2


# --- Every field that the package has ---------------------------------------------------------------------------------


def test_every_field_of_an_image_may_be_sent(sdk_gateway: RunningGateway) -> None:
    key = sdk_gateway.make_key()
    more: dict[str, Any] = {
        "background": "opaque", "complexity": "low", "frame_count": 1, "frame_duration_ms": 20,
        "output_compression": 90, "output_format": "png", "partial_images": 0, "quality": "high",
        "response_format": "b64_json", "safety_identifier": "user-1", "size": "1024x1024",
        "svg": {"model": "m", "reasoning": {"effort": "none"}}, "user": "user-1",
    }  # fmt: skip
    files: dict[str, Any] = {"image": [PNG, PNG], "mask": PNG, "markup": PNG, "input_fidelity": "high"}
    with client(sdk_gateway, key) as sdk:
        drawn = sdk.images.generate(**IMAGE, **more, moderation="low", style="vivid")
        edited = sdk.images.edit(**IMAGE, **more, **files)
        said = sdk.chat.completions.create(
            **TALK,
            moderation={"model": "m", "policy": {"input": {"mode": "block"}}},
            prompt_cache_options={"mode": "explicit", "ttl": "30m"},
            safety_identifier="user-1",
        )
    assert [len(answer.data or []) for answer in (drawn, edited)] == [1, 1]
    assert said.choices
    assert outcomes(sdk_gateway, key) == [("delivered", 1)] * 3
