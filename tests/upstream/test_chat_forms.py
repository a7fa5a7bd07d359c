"""A chat answered in another form than it was asked for in: in one piece for a stream, and the other way round."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.rewritten import SIGNATURE_BYTES_LIMIT
from proxy.domain.answers.chat.writing import ChatHead
from proxy.domain.requests.chat import parse_chat_request
from proxy.upstream.dialects.openai import OpenAIChat
from tests.domain.answer_samples import Passed, check_that_thirty_megabytes_flow, events_of, pass_on, passed_however_cut

CHAT = OpenAIChat()
HEAD = ChatHead("chatcmpl-1", 1_764_000_000, "acme/chat")
DATA_URL = "data:image/png;base64,"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAYAAAA="
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 0.04}
USAGE_SEEN = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
DONE = b"data: [DONE]\n\n"


def image(payload: str = "AAAA") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": DATA_URL + payload}}


def make(kind: str, *, stream: bool) -> Answer:
    messages = [{"role": "user", "content": "x"}]
    body = {"model": "acme/chat", "messages": messages, "stream": stream, "modalities": ["image", "text"]}
    return CHAT.read(parse_chat_request(orjson.dumps(body)), HEAD, comes_as_events=kind == "text/event-stream")


def make_chunk() -> Answer:
    return make("application/json", stream=True)


def make_whole() -> Answer:
    return make("text/event-stream", stream=False)


# --- One piece becomes a chunk ---------------------------------------------------------------------------------------


def completion(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "native_finish_reason": "STOP"}]
    return {"id": "1", "object": "chat.completion", "model": "theirs", "provider": "x", "choices": choices, **more}


@pytest.mark.parametrize(
    ("message", "images"),
    [
        ({"content": "text"}, 0),
        ({"content": "a\r\nb", "images": [image("A"), image("B"), image("A")]}, 2),
        ({"content": [{"type": "text", "text": "x"}, image()]}, 1),
        ({"content": f"![a]({DATA_URL}AAAA)"}, 1),
        ({"content": None, "tool_calls": [{"id": "1", "function": {"name": "x"}}], "reasoning": "hm"}, 0),
        ({"content": "x" * 70, "images": [image(PNG)]}, 1),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_piece_becomes_one_chunk(message: dict[str, Any], images: int, indent: int | None) -> None:
    body = json.dumps(completion({"role": "assistant", **message}, usage=USAGE), indent=indent).encode()
    seen = passed_however_cut(make_chunk, body)
    assert (seen.images, seen.whole, seen.error) == (images, True, None)
    [chunk] = events_of(seen.output)
    assert chunk == {
        "id": "1",
        "created": HEAD.created_s,
        "object": "chat.completion.chunk",
        "model": "acme/chat",
        "choices": [{"index": 0, "delta": {"role": "assistant", **message}, "finish_reason": "stop"}],
        "usage": USAGE_SEEN,
    }
    assert seen.output.endswith(DONE)
    assert orjson.loads(seen.usage or b"") == USAGE


@pytest.mark.parametrize(
    ("body", "images"),
    [
        (b"", 0),
        (b"{}", 0),
        (b'{"choices":[]}', 0),
        (b"<html>", 0),
        (b'{"choices":[{"message":{"images":[{"b64_json":"AAAA"},{"b64_json":"BB', 1),
    ],
)
def test_what_is_no_completion_is_no_chunk(body: bytes, images: int) -> None:
    seen = passed_however_cut(make_chunk, body)
    assert seen.error is not None
    assert seen.images == images


def test_an_error_in_one_piece_is_an_event() -> None:
    seen = passed_however_cut(make_chunk, b'{"error":{"message":"no"}}')
    assert (seen.images, seen.whole) == (0, False)
    [event] = events_of(seen.output)
    assert event["error"]["message"] == "The provider failed: no"


# --- Chunks become one piece -----------------------------------------------------------------------------------------


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: %b\n\n" % orjson.dumps({"id": "1", "model": "theirs", "choices": choices, **more})


def read(*events: bytes) -> Passed:
    return passed_however_cut(make_whole, b"".join(events))


@pytest.mark.parametrize(
    ("deltas", "content", "images", "counted"),
    [
        ([{"role": "assistant", "content": "a"}, {"content": 'b"'}, {"content": None}, {"content": ""}], 'ab"', [], 0),
        ([{"content": "", "images": [image("A")]}, {"images": [image("A"), image("B")]}], None, "AAB", 2),
        ([{"content": [{"type": "text", "text": "a"}, image("A")]}, {"content": "b"}], "ab", "A", 1),
        ([{"content": f"![a]({DATA_URL}A"}, {"content": "A)"}], f"![a]({DATA_URL}AA)", [], 1),
        ([{"inline_data": {"mime_type": "image/png", "data": "A"}},
          {"images": [{"b64_json": "B", "media_type": "image/png"}]}], None, "AB", 2),
        ([{"content": "a", "refusal": None, "tool_calls": [], "reasoning": "hm"}], "a", [], 0),
        ([], None, [], 0),
    ],
)  # fmt: skip
def test_chunks_become_one_piece(deltas: list[Any], content: str | None, images: str, counted: int) -> None:
    seen = read(*map(chunk, deltas), chunk({}, "length"), chunk(usage=USAGE), DONE)
    assert (seen.images, seen.whole, seen.error) == (counted, True, None)
    document = orjson.loads(seen.output)
    message = document["choices"][0]["message"]
    assert (document["id"], document["object"], document["model"]) == ("chatcmpl-1", "chat.completion", "acme/chat")
    assert (document["choices"][0]["finish_reason"], document["usage"]) == ("length", USAGE_SEEN)
    assert message["content"] == content
    assert [one["image_url"]["url"] for one in message.get("images", [])] == [DATA_URL + data for data in images]
    assert orjson.loads(seen.usage or b"") == USAGE


def test_an_address_stays_one() -> None:
    url = "https://images.example/1.png"
    for part in ({"image_url": url}, {"image_url": {"url": url}}, {"url": url}):
        seen = read(chunk({"images": [part]}, "stop"))
        assert orjson.loads(seen.output)["choices"][0]["message"]["images"][0]["image_url"] == {"url": url}
        assert (seen.images, seen.sizes) == (1, (None,))


def test_a_stream_that_only_says_that_it_is_done_has_stopped() -> None:
    assert orjson.loads(read(chunk({"content": "a"}), DONE).output)["choices"][0]["finish_reason"] == "stop"


# --- Thought signatures ----------------------------------------------------------------------------------------------


def signed(text: str) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": text}}}


MESSAGE_SIGNED = [
    [{"content": "a"}, {"content": "b", **signed("c2ln")}],
    [{**signed("c2ln"), "content": "a"}, {"content": "b"}],
    [{"content": "ab"}, signed("c2ln")],
    [signed("c2ln"), {"content": [{"type": "text", "text": "a"}]}, {"content": "b"}],
    [{"content": "ab", "extra_content": {"thought_signature": "c2ln", "other": {"google": 1}}}],
    [{"content": "ab", "thought_signature": "c2ln"}],
    [{"content": "ab", "thoughtSignature": "c2ln"}],
    [{"content": "ab", **signed("earlier")}, signed("c2ln"), signed("")],
]


@pytest.mark.parametrize("deltas", MESSAGE_SIGNED)
def test_a_messages_signature_stays_with_it_in_one_piece(deltas: list[Any]) -> None:
    seen = read(*map(chunk, deltas), chunk({}, "stop"), DONE)
    message = orjson.loads(seen.output)["choices"][0]["message"]
    assert (message["content"], message["extra_content"]) == ("ab", signed("c2ln")["extra_content"])


IMAGE_SIGNED = [
    {**image("A"), **signed("aW1n")},
    {**signed("aW1n"), **image("A")},
    {"type": "image_url", "extra_content": signed("aW1n")["extra_content"], "image_url": DATA_URL + "A"},
    {**image("A"), "thought_signature": "aW1n"},
]


@pytest.mark.parametrize("place", ["images", "content"])
@pytest.mark.parametrize("part", IMAGE_SIGNED)
def test_an_images_signature_stays_with_it_in_one_piece(part: dict[str, Any], place: str) -> None:
    seen = read(chunk({place: [part, image("B")], **signed("c2ln")}), chunk({}, "stop"), DONE)
    message = orjson.loads(seen.output)["choices"][0]["message"]
    assert message["images"] == [{**image("A"), **signed("aW1n")}, image("B")]
    assert (message["extra_content"], seen.images) == (signed("c2ln")["extra_content"], 2)


@pytest.mark.parametrize("deltas", [[{"content": "a", **signed("")}], [{"content": "a", "extra_content": None}], [{}]])
def test_a_message_without_a_signature_has_none(deltas: list[Any]) -> None:
    seen = read(*map(chunk, deltas), chunk({"images": [image()]}, "stop"), DONE)
    message = orjson.loads(seen.output)["choices"][0]["message"]
    assert "extra_content" not in message
    assert "extra_content" not in message["images"][0]


def test_a_signature_that_breaks_off_is_none() -> None:
    whole = chunk({"images": [{**image("A"), **signed("aW1n")}]})
    for end in range(whole.index(b"aW1n"), len(whole)):
        closed = pass_on(make_whole(), [whole[:end]]).closed
        (one,) = orjson.loads(closed or b"")["choices"][0]["message"]["images"]
        assert one == image("A") if end <= whole.index(b"aW1n") + 4 else one == {**image("A"), **signed("aW1n")}


def test_a_signature_is_bounded() -> None:
    long = "s" * (SIGNATURE_BYTES_LIMIT + 1)
    body = b"".join([chunk({"content": "a", **signed(long[1:])}), chunk({}, "stop"), DONE])
    assert orjson.loads(pass_on(make_whole(), [body]).output)["choices"][0]["message"]["extra_content"]
    body = b"".join([chunk({"content": "a", **signed(long)}), chunk({}, "stop"), DONE])
    assert "signature is too long" in (pass_on(make_whole(), [body]).error or "")


@pytest.mark.parametrize(
    ("events", "images", "error"),
    [
        ([chunk({"images": [image()]})], 1, "The provider's stream ended before its answer was complete."),
        ([chunk({"images": [image()]}), chunk({}, "error", error={"message": "no"})], 1, "The provider failed: no"),
        pytest.param(
            [chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 20_000}}]}), DONE],
            0,
            "The provider answ",
            marks=pytest.mark.slow,
        ),
        ([chunk({"images": [image()], "refusal": "no"}, "stop"), DONE], 1, "The provider answered with a stream"),
        ([chunk({"function_call": {"name": "x"}}, "stop"), DONE], 0, "The provider answered with a stream"),
        ([b"data: {\n\n"], 0, "the body ends"),
        ([b""], 0, "The provider's stream ended"),
    ],
)
def test_what_cannot_be_put_together_is_an_error(events: list[bytes], images: int, error: str) -> None:
    seen = read(*events)
    assert (seen.error or "").startswith(error)
    assert seen.images == images


# --- However it comes ------------------------------------------------------------------------------------------------

DELTAS = st.lists(
    st.one_of(
        st.builds(lambda text: {"content": text}, st.text(st.sampled_from('ab"\\\n☃'), max_size=6)),
        st.builds(lambda data: {"images": [image(data)]}, st.sampled_from(["AAAA", "BBBB", PNG])),
        st.builds(lambda text: {"content": [{"type": "text", "text": text}, image()]}, st.sampled_from(["", "a"])),
    ),
    max_size=6,
)


@given(deltas=DELTAS, cuts=st.lists(st.integers(0, 2_000), max_size=8))
def test_what_comes_out_is_what_went_in(deltas: list[dict[str, Any]], cuts: list[int]) -> None:
    body = b"".join([*map(chunk, deltas), chunk({}, "stop"), DONE])
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    whole = pass_on(make_whole(), [body])
    assert pass_on(make_whole(), [body[begin:end] for begin, end in pairwise(places)]) == whole
    parts = [part for delta in deltas for part in [*delta.get("images", []), *_parts(delta.get("content", []))]]
    message = orjson.loads(whole.output)["choices"][0]["message"]
    assert message.get("images", []) == [part for part in parts if part["type"] == "image_url"]
    assert (message["content"] or "") == "".join(part["text"] for part in parts if part["type"] == "text")
    assert whole.images == len({part["image_url"]["url"] for part in message.get("images", [])})


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


@pytest.mark.parametrize("stream", [False, True])
def test_thirty_megabytes_flow(*, stream: bool) -> None:
    answer = make_chunk() if stream else make_whole()
    lead, tail = (b"", b"") if stream else (b"data: ", b"\n\ndata: [DONE]\n\n")
    name = b"message" if stream else b"delta"
    answer.feed(lead + b'{"choices":[{"%b":{"images":[{"image_url":{"url":"data:image/png;base64,' % name)
    check_that_thirty_megabytes_flow(answer, held_pieces=1)
    assert pass_on(answer, [b'"}}]}}]}', tail]).images == 1
