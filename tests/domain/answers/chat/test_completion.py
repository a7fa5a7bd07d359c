from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.domain.answers.chat.completion import ChatJson
from proxy.domain.answers.chat.events import ChatChunk, ChatEvents
from proxy.domain.answers.chat.writing import ChatHead
from proxy.upstream.dialects.openai import CHAT_READING, read_error
from tests.domain.answer_samples import Passed, check_that_thirty_megabytes_flow, events_of, pass_on, passed_however_cut

HEAD = ChatHead("chatcmpl-1", 1_764_000_000, "acme/chat")
DATA_URL = "data:image/png;base64,"
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "cost": 0.04,
    "cost_details": {"upstream_inference_cost": 1},
    "completion_tokens_details": {"image_tokens": 4, "cost": 1},
}
USAGE_SEEN = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "completion_tokens_details": {"image_tokens": 4},
}


def image(payload: str = "AAAA") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": DATA_URL + payload}, "index": 0}


def read_json(message: Any, **more: Any) -> Passed:
    document = {"id": "1", "model": "theirs", "provider": "them", "choices": [{"index": 0, "message": message}], **more}
    return passed_however_cut(lambda: ChatJson(HEAD, CHAT_READING), orjson.dumps(document))


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "native": "STOP"}]
    return b"data: %b\n\n" % orjson.dumps({"model": "theirs", "choices": choices, **more})


def read_events(*events: bytes, wants_usage: bool = False) -> tuple[Passed, list[Any]]:
    body = b"".join(events)
    seen = passed_however_cut(lambda: ChatEvents(HEAD, read_error, wants_usage=wants_usage), body)
    return seen, list(events_of(seen.output))


PLACES = [
    ({"images": [image()]}, 1),
    ({"images": [image("A"), image("B")]}, 2),
    ({"images": [image("A"), image("A")]}, 1),
    ({"content": [{"type": "text", "text": "x"}, image()]}, 1),
    ({"content": [{"type": "image_url", "image_url": "https://images.example/1.png"}]}, 1),
    ({"content": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]}, 1),
    ({"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "images": [image("AAAA")]}, 1),
    ({"images": [{"b64_json": "AAAA"}], "content": [{"url": "https://images.example/1.png"}]}, 2),
    ({"multi_mod_content": [{"text": "x"}, {"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]}, 1),
    ({"images": [DATA_URL + "AAAA", "https://images.example/1.png"]}, 2),
    ({"content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}, 1),
    ({"content": [{"type": "image", "image": "https://images.example/1.png"}]}, 1),
    ({"content": [{"type": "image", "b64_json": "AAAA"}, {"type": "image", "base64": "AAAA"}]}, 1),
    ({"images": [{"image_url": {"url": "iVBORw0KGgo" + "A" * 80}}]}, 1),
    ({"images": [image("")]}, 0),
    ({"images": [], "content": "text"}, 0),
    ({"content": None}, 0),
    ({"content": f"here: ![a]({DATA_URL}AAAA) and ![b]({DATA_URL}BBBB)"}, 2),
    ({"content": f"![a]({DATA_URL}AAAA)", "images": [image("AAAA"), image("BBBB")]}, 2),
    ({"content": [{"type": "text", "text": f"![a]({DATA_URL}AAAA)"}, {"type": "text", "text": "b"}, image("B")]}, 2),
    ({"content": DATA_URL + "AAAA"}, 1),
    ({"content": f"![a]({DATA_URL}AAAA"}, 0),
]


@pytest.mark.parametrize(("message", "images"), PLACES)
def test_images_count_wherever_they_stand(message: dict[str, Any], images: int) -> None:
    seen = read_json({"role": "assistant", **message, "cost": 1})
    assert (seen.images, seen.error) == (images, None)
    assert orjson.loads(seen.output) == {
        "id": "1",
        "created": HEAD.created_s,
        "model": "acme/chat",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}}],
    }
    events, _ = read_events(chunk(message), chunk({}, "stop"), b"data: [DONE]\n\n")
    assert (events.images, events.whole) == (images, True)


@pytest.mark.parametrize("created", [{}, {"created": "2026-11-26"}, {"created": None}, {"created": 7.5}])
def test_when_it_was_made_is_always_a_number(created: dict[str, Any]) -> None:
    assert orjson.loads(read_json({"content": "x"}, **created).output)["created"] == HEAD.created_s
    _, events = read_events(chunk({"content": "x"}, **created), chunk({}, "stop"), b"data: [DONE]\n\n")
    assert {event["created"] for event in events} == {HEAD.created_s}


def test_usage_keeps_its_tokens_and_loses_its_cost() -> None:
    seen = read_json({"content": "x"}, usage=USAGE, cost=1)
    assert orjson.loads(seen.output)["usage"] == USAGE_SEEN
    assert orjson.loads(seen.usage or b"") == USAGE


@pytest.mark.parametrize(("usage", "kept"), [(b'{"a":"\xff"}', b'{"a":"?"}'), (b"7", None)])
def test_a_usage_is_kept_as_valid_json_or_not_at_all(usage: bytes, kept: bytes | None) -> None:
    body = b'{"choices":[{"message":{"content":"x"}}],"usage":%b}' % usage
    assert passed_however_cut(lambda: ChatJson(HEAD, CHAT_READING), body).usage == kept
    assert read_events(b"data: %b\n\n" % body, b"data: [DONE]\n\n")[0].usage == kept


def test_what_a_stream_repeats_counts_once_and_passes_all_the_same() -> None:
    seen, events = read_events(
        chunk({"images": [image("A")]}),
        chunk({"images": [image("A"), image("B")]}),
        chunk({"content": ""}, "stop", usage=USAGE),
        b"data: [DONE]\n\n",
    )
    assert (seen.images, seen.whole, len(events)) == (2, True, 3)
    assert events[-1] == {
        "created": HEAD.created_s,
        "model": "acme/chat",
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],
        "usage": USAGE_SEEN,
    }
    assert seen.output.endswith(b"data: [DONE]\n\n")


def test_an_image_in_the_text_may_go_on_over_many_events() -> None:
    texts = ["here: ![a](data:ima", "ge/png;base64,", "AA", "AA", ") ![b](", DATA_URL + "BBBB)", "", " and more"]
    chunks = [chunk({"content": text}) for text in texts]
    between = chunk({"images": [image("CCCC")]})
    seen, events = read_events(*chunks[:3], between, *chunks[3:], chunk({}, "stop"), b"data: [DONE]\n\n")
    assert (seen.images, seen.whole) == (3, True)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "".join(texts)


def test_each_choice_has_a_text_of_its_own() -> None:
    def say(index: int, text: str) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({"choices": [{"index": index, "delta": {"content": text}}]})

    begin, end = f"![a]({DATA_URL}AA", "AA)"
    seen, _ = read_events(say(0, begin), say(1, "no image"), say(0, end), say(1, end), chunk({}, "stop"))
    assert seen.images == 1
    many = [say(index, begin) for index in range(20)]
    assert read_events(*many, say(3, "B)"), chunk({}, "stop"))[0].images == 1


def test_what_is_found_in_text_is_held_back_until_it_is_charged() -> None:
    answer = ChatEvents(HEAD, read_error, wants_usage=False)
    answer.feed(chunk({"content": f"![a]({DATA_URL}AAAA"}))
    last = answer.feed(chunk({"content": ")"}))
    assert (answer.images, last.endswith(b"}]}\n")) == (1, True)


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_chunk_of_usage_alone_is_for_whoever_asked(*, wants_usage: bool) -> None:
    seen, events = read_events(
        chunk({"content": "x"}, "stop"), chunk(usage=USAGE), b"data: [DONE]\n\n", wants_usage=wants_usage
    )
    assert [bool(event["choices"]) for event in events] == ([True, False] if wants_usage else [True])
    assert orjson.loads(seen.usage or b"") == USAGE


def test_a_stream_without_its_end_is_not_whole_and_says_so() -> None:
    seen, events = read_events(chunk({"images": [image()]}))
    assert (seen.images, seen.whole) == (1, False)
    assert events[-1]["error"]["code"] == "upstream_error"


def test_errors_in_a_2xx_are_errors() -> None:
    assert read_json({"content": "x"}, error={"message": "no", "code": "x"}).error == "The provider failed: no"
    seen, events = read_events(chunk({"content": "x"}), chunk({"content": ""}, "error", error={"message": "no"}))
    assert not seen.whole
    assert events[-1]["error"]["message"] == "The provider failed: no"


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b'{"choices":', b"[]", b"x"])
def test_what_is_no_chat_completion_is_malformed(body: bytes) -> None:
    assert passed_however_cut(lambda: ChatJson(HEAD, CHAT_READING), body).error is not None


@pytest.mark.parametrize("stream", [False, True])
def test_thirty_megabytes_flow(*, stream: bool) -> None:
    answer: ChatJson | ChatEvents = ChatJson(HEAD, CHAT_READING)
    lead, tail = b"", b""
    if stream:
        answer = ChatEvents(HEAD, read_error, wants_usage=False)
        lead, tail = b"data: ", b"\n\ndata: [DONE]\n\n"
    answer.feed(lead + b'{"choices":[{"message":{"images":[{"image_url":{"url":"data:image/png;base64,')
    check_that_thirty_megabytes_flow(answer)
    assert pass_on(answer, [b'"}}]}}]}', tail]).images == 1


# --- Answers that break off ------------------------------------------------------------------------------------------

MESSAGE = {
    "role": "assistant",
    "content": f"first ![a]({DATA_URL}CCCC) ok",
    "images": [image("AAAA"), image("BBBB"), {"image_url": {"url": "https://images.example/1.png"}}],
}


def test_a_chat_that_breaks_off_anywhere_has_the_images_that_were_whole() -> None:
    body = orjson.dumps({"id": "1", "model": "theirs", "choices": [{"index": 0, "message": MESSAGE}], "usage": USAGE})
    ends = [body.index(end) + len(end) for end in (b"CCCC)", b'AAAA"', b'BBBB"', b'1.png"')]
    for end in range(len(body)):
        seen = pass_on(ChatJson(HEAD, CHAT_READING), [body[:end]])
        count = sum(image_end <= end for image_end in ends)
        assert (seen.error is not None, seen.images) == (True, count)
        if not count:
            assert seen.closed is None
            continue
        closed = orjson.loads(seen.closed or b"")
        assert (closed["id"], closed["model"], closed["object"]) == (HEAD.id, HEAD.model, "chat.completion")
        (choice,) = closed["choices"]
        message = choice["message"]
        assert (choice["finish_reason"], message["role"]) == ("length", "assistant")
        assert f"![a]({DATA_URL}CCCC)" in message["content"]
        found = [one["image_url"]["url"] for one in message.get("images", ())]
        assert found == [DATA_URL + "AAAA", DATA_URL + "BBBB", "https://images.example/1.png"][: count - 1]


LARGE: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "images": [image("A" * 70_000), {**image("BBBB"), "x": [1]}],
    "audio": {},
}


@pytest.mark.parametrize("is_reason_first", [False, True])
def test_a_chat_that_has_flowed_is_closed_where_no_string_is_cut(*, is_reason_first: bool) -> None:
    reason = {"finish_reason": "stop"}
    choice = {**(reason if is_reason_first else {}), "message": LARGE, **({} if is_reason_first else reason)}
    body = orjson.dumps({"choices": [choice, {"index": 1, "message": {"content": "x"}}], "usage": USAGE})
    ends = [body.index(image) + len(image) for image in (b'A"', b'BBBB"')]
    closed = 0
    for end in range(ends[0] - 1, len(body)):
        seen = pass_on(ChatJson(HEAD, CHAT_READING), [body[: ends[0] - 9], body[ends[0] - 9 : end]])
        count = sum(image_end <= end for image_end in ends)
        assert (seen.error is not None, seen.images) == (True, count)
        if seen.closed is None:
            continue
        closed += 1
        document = orjson.loads(seen.closed)
        choice, *_others = document["choices"]
        assert choice["finish_reason"] == ("stop" if is_reason_first or b'"stop"' in body[:end] else "length")
        found = [one["image_url"]["url"] for one in choice["message"]["images"]]
        assert found == [DATA_URL + "A" * 70_000, DATA_URL + "BBBB"][:count]
    assert closed > (len(body) - ends[0]) * 0.3
    assert pass_on(ChatJson(HEAD, CHAT_READING), [body[: ends[0] - 1]]).closed is None


def test_what_passed_before_an_error_is_part_of_what_is_closed() -> None:
    body = orjson.dumps({"choices": [{"message": LARGE, "finish_reason": "stop"}], "error": {"message": "no more"}})
    for at in range(70_000, len(body), 7):
        seen = pass_on(ChatJson(HEAD, CHAT_READING), [body[:at], body[at:]])
        assert (seen.error, seen.images) == ("The provider failed: no more", 2)
        (choice,) = orjson.loads(seen.closed or b"")["choices"]
        assert (len(choice["message"]["images"]), choice["finish_reason"]) == (2, "stop")


def test_a_completion_for_a_client_that_asked_for_chunks_is_one_chunk() -> None:
    body = orjson.dumps(
        {"id": "1", "model": "theirs", "object": "chat.completion", "cost": 1,
         "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}], "usage": USAGE}
    )  # fmt: skip
    seen = passed_however_cut(lambda: ChatChunk(HEAD, read_error, wants_usage=True), body)
    (event,) = events_of(seen.output)
    assert (seen.images, seen.whole, seen.output.endswith(b"data: [DONE]\n\n")) == (4, True, True)
    assert (event["object"], event["model"]) == ("chat.completion.chunk", "acme/chat")
    assert event["choices"] == [{"index": 0, "delta": MESSAGE, "finish_reason": "stop"}]
    assert (event["usage"], "cost" in event) == (USAGE_SEEN, False)
