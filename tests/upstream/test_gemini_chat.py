"""A chat in Gemini's words, and Gemini's answers as chat completions, however they are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.writing import TEXT_BYTES_LIMIT, ChatHead
from proxy.domain.errors import InvalidRequest
from proxy.domain.parsing.image_header import Size
from proxy.domain.requests.chat import ChatRequest, parse_chat_request
from proxy.upstream.dialects.gemini_chat import GeminiChat
from tests.domain.answer_samples import Passed, check_that_thirty_megabytes_flow, events_of, pass_on, passed_however_cut
from tests.domain.samples import make_model

CHAT = GeminiChat()
HEAD = ChatHead("chatcmpl-1", 1_764_000_000, "acme/chat")
DATA_URL = "data:image/png;base64,"
USAGE = {
    "promptTokenCount": 3,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 2,
    "totalTokenCount": 9,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}],
}
USAGE_SEEN = {
    "prompt_tokens": 3,
    "completion_tokens": 6,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAYAAAA="


def parse(*messages: Any, **fields: Any) -> ChatRequest:
    said = list(messages) or [{"role": "user", "content": "a cube"}]
    return parse_chat_request(orjson.dumps({"model": "acme/chat", "messages": said, **fields}))


def written(*messages: Any, **fields: Any) -> dict[str, Any]:
    request = parse(*messages, **fields)
    CHAT.check(request.fields)
    body: dict[str, Any] = orjson.loads(CHAT.write(request, make_model()))
    return body


# --- Requests --------------------------------------------------------------------------------------------------------


def test_messages_become_contents_and_a_system_instruction() -> None:
    body = written(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "a cube"}, picture("AAAA")], "name": "ann"},
        {"role": "assistant", "content": "here", "images": [picture("BBBB")], "refusal": None, "tool_calls": []},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "image_url", "image_url": "DATA:image/JPEG;x=1;base64,CC"}]},
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "a cube"}, inline("AAAA")]},
            {"role": "model", "parts": [{"text": "here"}, inline("BBBB")]},
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/jpeg", "data": "CC"}}]},
        ],
    }


def test_settings_go_into_the_generation_config_and_hints_are_left_out() -> None:
    config = {
        "modalities": ["image", "text"],
        "image_config": {"aspect_ratio": "16:9", "image_size": "2K"},
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 10,
        "max_completion_tokens": 20,
        "stop": "x",
        "seed": 7,
        "presence_penalty": 0.25,
        "frequency_penalty": 1,
    }
    hints = {
        "user": "ann",
        "metadata": {},
        "store": True,
        "reasoning_effort": "low",
        "tools": [],
        "tool_choice": "auto",
    }
    asks_for_nothing = {"response_format": {"type": "text"}, "logprobs": False, "modalities": []}
    assert written(**config, **hints)["generationConfig"] == {
        "responseModalities": ["IMAGE", "TEXT"],
        "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        "temperature": 0,
        "topP": 0.5,
        "maxOutputTokens": 20,
        "stopSequences": ["x"],
        "seed": 7,
        "presencePenalty": 0.25,
        "frequencyPenalty": 1,
    }
    assert set(written(**asks_for_nothing)) == {"contents"}


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ([], {"tools": [{"type": "function"}]}, "tools"), ([], {"tool_choice": "required"}, "tool_choice"),
        ([], {"functions": [{}]}, "functions"), ([], {"function_call": {"name": "x"}}, "function_call"),
        ([], {"audio": {"voice": "x"}}, "audio"), ([], {"modalities": ["text", "audio"]}, "modalities"),
        ([], {"logprobs": True}, "logprobs"), ([], {"logit_bias": {"1": 1}}, "logit_bias"),
        ([], {"response_format": {"type": "json_object"}}, "response_format"),
        ([], {"web_search_options": {}}, "web_search_options"), ([], {"temperature": "hot"}, "temperature"),
        ([], {"temperature": True}, "temperature"), ([], {"max_tokens": 1.5}, "max_tokens"),
        ([], {"seed": "1"}, "seed"), ([], {"stop": [1]}, "stop"), ([], {"stop": 1}, "stop"),
        ([USER, {"role": "tool", "content": "x", "tool_call_id": "1"}], {}, "messages"),
        ([USER, {"content": "x"}], {}, "messages"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}, USER], {}, "messages"),
        ([{"role": "assistant", "audio": {"id": "1"}}, USER], {}, "messages"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], {}, "messages"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/"}}]}], {},
         "messages"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}], {},
         "messages"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, "messages"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], {}, "messages"),
        ([{"role": "user", "content": ["x"]}], {}, "messages"), ([{"role": "user", "content": 1}], {}, "messages"),
        ([{"role": "system", "content": [{"type": "image_url", "image_url": DATA_URL + "A"}]}, USER], {}, "messages"),
        ([{"role": "system", "content": "x"}], {}, "messages"), ([{"role": "user", "content": ""}], {}, "messages"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_named(messages: list[Any], fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        written(*messages, **fields)
    assert refused.value.param == param


@pytest.mark.parametrize(("stream", "path"), [(False, ":generateContent"), (True, ":streamGenerateContent?alt=sse")])
def test_a_stream_has_a_path_of_its_own(path: str, *, stream: bool) -> None:
    assert CHAT.path(parse(stream=stream), make_model(upstream_model="their-model")) == "/models/their-model" + path


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_what_google_signed_comes_back_with_it() -> None:
    def signed(value: str) -> dict[str, Any]:
        return {"extra_content": {"google": {"thought_signature": value}}}

    images = [{**picture("AAAA"), **signed("b")}, {**picture("BBBB"), "thought_signature": "c"}]
    turns = [
        USER,
        {"role": "assistant", "content": "here", "images": images, **signed("a")},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y", **signed("e")}]},
        {"role": "assistant", "content": None, "images": [picture("CCCC")], **signed("f")},
        {"role": "assistant", "content": "none", "extra_content": {"google": {"thought_signature": 1}}},
        USER,
    ]
    parts = [content["parts"] for content in written(*turns)["contents"]]
    assert parts[1] == [
        {"text": "here", "thoughtSignature": "a"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "thoughtSignature": "b"},
        {"inlineData": {"mimeType": "image/png", "data": "BBBB"}, "thoughtSignature": "c"},
    ]
    assert parts[2] == [{"text": "x"}, {"text": "y", "thoughtSignature": "e"}]
    assert parts[3] == [
        {"text": "", "thoughtSignature": "f"},
        {"inlineData": {"mimeType": "image/png", "data": "CCCC"}},
    ]
    assert parts[4] == [{"text": "none"}]


def picture(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": DATA_URL + data}}


def inline(data: str = "AAAA", **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": data}, **more}


def gemini(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    reason = {} if finish is None else {"finishReason": finish}
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, **reason}], **more}


def sse(*documents: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % orjson.dumps(document) for document in documents)


def make(kind: str = "application/json", *, stream: bool = False, wants_usage: bool = False) -> Answer:
    options = {"stream_options": {"include_usage": wants_usage}} if stream else {}
    return CHAT.read(parse(stream=stream, **options), HEAD, comes_as_events=kind == "text/event-stream")


def read(body: bytes, *, stream: bool = False, wants_usage: bool = False) -> Passed:
    kind = "text/event-stream" if body.startswith(b"data:") else "application/json"
    return passed_however_cut(lambda: make(kind, stream=stream, wants_usage=wants_usage), body)


def said(seen: Passed, *, stream: bool) -> dict[str, Any]:
    """The message and the reason, put together again where it came in chunks."""
    documents = list(events_of(seen.output)) if stream else [orjson.loads(seen.output)]
    message: dict[str, Any] = {"content": None, "images": [], "refusal": None}
    reasons, roles = [], []
    for document in documents:
        kind = "chat.completion.chunk" if stream else "chat.completion"
        assert {**document, "choices": [], "usage": None} == {
            "id": "chatcmpl-1", "object": kind, "created": HEAD.created_s, "model": "acme/chat", "choices": [],
            "usage": None,
        }  # fmt: skip
        for choice in document["choices"]:
            assert choice["index"] == 0
            part = choice["delta"] if stream else choice["message"]
            roles += [part["role"]] if "role" in part else []
            if part.get("content") is not None:
                message["content"] = (message["content"] or "") + part["content"]
            message["images"] += [image["image_url"]["url"] for image in part.get("images", [])]
            message["refusal"] = part.get("refusal") or message["refusal"]
            reasons.append(choice["finish_reason"])
    assert roles == ["assistant"]
    assert not any(reasons[:-1])
    if stream:
        assert seen.output.endswith(b"}\n\ndata: [DONE]\n\n")
    return {**message, "finish": reasons[-1]}


NOTHING: dict[str, Any] = {"content": None, "images": [], "refusal": None, "finish": "stop"}
ONE = {**NOTHING, "images": [DATA_URL + "AAAA"]}
SAFETY = "The provider made no answer: IMAGE_SAFETY. unsafe"
ROWS: list[tuple[str, bytes, dict[str, Any], int]] = [
    ("an image", orjson.dumps(gemini(inline())), ONE, 1),
    ("indented", json.dumps(gemini(inline()), indent=2).encode(), ONE, 1),
    ("text", orjson.dumps(gemini({"text": 'a "b"\n'}, {"text": "c"})), {**NOTHING, "content": 'a "b"\nc'}, 0),
    ("text and images", orjson.dumps(gemini({"text": "a"}, inline(), {"text": "b"}, inline("BBBB"))),
     {**NOTHING, "content": "ab", "images": [DATA_URL + "AAAA", DATA_URL + "BBBB"]}, 2),
    ("the same image twice", orjson.dumps(gemini(inline(), inline())), {**ONE, "images": [DATA_URL + "AAAA"] * 2}, 1),
    ("snake case", orjson.dumps(gemini({"inline_data": {"mime_type": "image/png", "data": "AAAA"}})), ONE, 1),
    ("the kind after the data", orjson.dumps(gemini({"inlineData": {"data": "AAAA", "mimeType": "image/png"}})),
     ONE, 1),
    ("no kind, but a PNG", orjson.dumps(gemini({"inlineData": {"data": PNG}})),
     {**NOTHING, "images": [DATA_URL + PNG]}, 1),
    ("no kind", orjson.dumps(gemini({"inlineData": {"data": "AAAA", "mimeType": 'x"y/z'}})),
     {**NOTHING, "images": ["data:application/octet-stream;base64,AAAA"]}, 1),
    ("a kind that browsers run", orjson.dumps(gemini({"inlineData": {"data": "AAAA", "mimeType": "text/html"}})),
     {**NOTHING, "images": ["data:application/octet-stream;base64,AAAA"]}, 1),
    ("a PNG of another kind", orjson.dumps(gemini({"inlineData": {"data": PNG, "mimeType": "text/html"}})),
     {**NOTHING, "images": [DATA_URL + PNG]}, 1),
    ("thoughts", orjson.dumps(gemini({"text": "hm", "thought": True}, {"thought": True, **inline("T")}, inline())),
     ONE, 1),
    ("a thought that says so later", orjson.dumps(gemini(inline("AAAA", thought=True), inline())), ONE, 1),
    ("no thought", orjson.dumps(gemini(inline(thought=False), {"text": "a", "thought": None})),
     {**ONE, "content": "a"}, 1),
    ("empty parts", orjson.dumps(gemini({"text": ""}, inline(""), {"functionCall": {"name": "x"}}, inline())), ONE, 1),
    ("cut short", orjson.dumps(gemini({"text": "a"}, finish="MAX_TOKENS")),
     {**NOTHING, "content": "a", "finish": "length"}, 0),
    ("no reason", orjson.dumps(gemini({"text": "a"}, finish=None)), {**NOTHING, "content": "a"}, 0),
    ("withheld", orjson.dumps({"candidates": [{"finishReason": "IMAGE_SAFETY", "finishMessage": "unsafe"}]}),
     {**NOTHING, "refusal": SAFETY, "finish": "content_filter"}, 0),
    ("withheld midway", orjson.dumps(gemini({"text": "a"}, finish="RECITATION")),
     {**NOTHING, "content": "a", "finish": "content_filter"}, 0),
    ("no image made", orjson.dumps({"candidates": [{"finishReason": "NO_IMAGE"}]}),
     {**NOTHING, "refusal": "The provider made no answer: NO_IMAGE."}, 0),
    ("blocked", orjson.dumps({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "no"}}),
     {**NOTHING, "refusal": "The provider made no answer: OTHER. no", "finish": "content_filter"}, 0),
    ("nothing, in good order", orjson.dumps({"candidates": [{"finishReason": "STOP"}]}), NOTHING, 0),
    ("a stream", sse(gemini({"text": "a"}, finish=None), gemini(inline(), finish=None), gemini({"text": "b"})),
     {**ONE, "content": "ab"}, 1),
    ("a stream that repeats", sse(gemini(inline(), finish=None), gemini(inline())),
     {**ONE, "images": [DATA_URL + "AAAA"] * 2}, 1),
    ("a blocked stream", sse({"promptFeedback": {"blockReason": "SAFETY"}}),
     {**NOTHING, "refusal": "The provider made no answer: SAFETY.", "finish": "content_filter"}, 0),
    ("an image in the text",
     sse(gemini({"text": f"![a]({DATA_URL}AA"}, finish=None), gemini({"text": "AA)"}, inline())),
     {**ONE, "content": f"![a]({DATA_URL}AAAA)"}, 1),
    ("a stream with an end", sse(gemini(inline())) + b"data: [DONE]\n\n", ONE, 1),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "message", "images"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_answers_become_chat_completions(body: bytes, message: dict[str, Any], images: int, *, stream: bool) -> None:
    seen = read(body, stream=stream)
    assert (seen.images, seen.whole, seen.error) == (images, True, None)
    assert said(seen, stream=stream) == message


def test_usage_has_its_standard_names_and_the_ledger_has_googles() -> None:
    body = orjson.dumps(gemini({"text": "a"}, usageMetadata=USAGE))
    seen = read(body)
    assert orjson.loads(seen.output)["usage"] == USAGE_SEEN
    assert orjson.loads(seen.usage or b"") == USAGE
    *_, last = events_of(read(body, stream=True, wants_usage=True).output)
    assert (last["choices"], last["usage"]) == ([], USAGE_SEEN)
    assert all("usage" not in event for event in events_of(read(body, stream=True).output))


def test_the_usage_of_a_stream_is_the_last_one() -> None:
    seen = read(sse(gemini({"text": "a"}, finish=None, usageMetadata={}), gemini({"text": "b"}, usageMetadata=USAGE)))
    assert orjson.loads(seen.output)["usage"] == USAGE_SEEN


def test_the_size_of_each_image_is_read() -> None:
    assert read(orjson.dumps(gemini(inline(PNG), inline()))).sizes == ((64, 32), None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "error", "images"),
    [
        (orjson.dumps({"error": {"code": 500, "message": "no", "status": "INTERNAL"}}), "The provider failed: no", 0),
        (sse({"error": {"code": 500, "message": "no"}}), "The provider failed: no", 0),
        (sse({"candidates": []}), "The provider's stream ended before", 0),
        (b"{}", "the answer holds nothing", 0),
        (b"[]", "the answer holds nothing", 0),
        (b'{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA"}', "the body ends", 1),
        (b'{"candidates":[{"content":{"parts":[{"thought":true,"inlineData":{"data":"AAAA"}', "the body ends", 0),
        (b'{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA', "the body ends", 0),
    ],
)
def test_what_goes_wrong_is_said_and_what_was_complete_counts(
    body: bytes, error: str, images: int, *, stream: bool
) -> None:
    seen = read(body, stream=stream)
    assert (seen.error or "").startswith(error)
    assert seen.images == images


@pytest.mark.parametrize("stream", [False, True])
def test_a_raw_line_end_in_a_text_is_a_blank(*, stream: bool) -> None:
    seen = read(b'{"candidates":[{"content":{"parts":[{"text":"a\nb"}]},"finishReason":"STOP"}]}', stream=stream)
    assert seen.error is None
    assert b'"content":"a b"' in seen.output


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([{"error": {"code": 500, "message": "no"}}, gemini(inline("BBBB"))], "The provider failed: no"),
        ([], "The provider's stream ended before its answer was complete."),
    ],
)
def test_an_error_after_an_image_is_an_event_after_it(events: list[dict[str, Any]], error: str) -> None:
    body = sse(gemini(inline(), finish=None), *events)
    seen = read(body, stream=True)
    assert (seen.images, seen.whole, seen.error) == (1, False, None)
    first, last = events_of(seen.output)
    assert first["choices"][0]["delta"]["images"] == [picture("AAAA")]
    assert last["error"]["message"] == error
    whole = read(body)
    assert (whole.images, whole.error) == (1, error)


# --- However it comes ------------------------------------------------------------------------------------------------

PARTS = st.lists(
    st.builds(
        lambda part, thought, first: {"thought": True, **part} if thought and first else {**part, "thought": thought},
        st.one_of(
            st.builds(lambda text: {"text": text}, st.text(st.sampled_from('ab"\\\n☃'), max_size=6)),
            st.builds(inline, st.sampled_from(["AAAA", "BBBB", PNG])),
            st.builds(lambda data: {"inlineData": {"data": data, "mimeType": "image/png"}}, st.just("AAAA")),
        ),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
)


@given(parts=PARTS, stream=st.booleans(), in_events=st.booleans(), cuts=st.lists(st.integers(0, 2_000), max_size=8))
def test_what_comes_out_is_what_went_in(
    parts: list[dict[str, Any]], cuts: list[int], *, stream: bool, in_events: bool
) -> None:
    if in_events:
        body = sse(*(gemini(part, finish=None) for part in parts), gemini(usageMetadata=USAGE))
    else:
        body = orjson.dumps(gemini(*parts, usageMetadata=USAGE))
    kind = "text/event-stream" if in_events else "application/json"
    whole = pass_on(make(kind, stream=stream), [body])
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[begin:end] for begin, end in pairwise(places)]
    assert pass_on(make(kind, stream=stream), pieces) == whole
    kept = [part for part in parts if not part["thought"]]
    images = [part["inlineData"]["data"] for part in kept if "inlineData" in part]
    message = said(whole, stream=stream)
    assert message["images"] == [DATA_URL + image for image in images]
    assert (message["content"] or "") == "".join(part["text"] for part in kept if "text" in part)
    sizes: list[Size | None] = [(64, 32) if image == PNG else None for image in dict.fromkeys(images)]
    assert (whole.images, whole.sizes) == (len(sizes), tuple(sizes))


@pytest.mark.parametrize("stream", [False, True])
def test_thirty_megabytes_flow(*, stream: bool) -> None:
    answer = make(stream=stream)
    answer.feed(b'{"candidates":[{"content":{"parts":[{"text":"a"},{"inlineData":{"mimeType":"image/png","data":"')
    check_that_thirty_megabytes_flow(answer, held_pieces=1)
    assert pass_on(answer, [b'"}}]},"finishReason":"STOP"}]}']).images == 1


def test_a_large_thought_that_says_so_later_is_delivered_and_charged() -> None:
    body = orjson.dumps(gemini(inline("T" * 70_000, thought=True), {"text": "t" * 70_000, "thought": True}, inline()))
    for stream in (False, True):
        seen = pass_on(make(stream=stream), [body[at : at + 1_000] for at in range(0, len(body), 1_000)])
        assert (seen.images, len(said(seen, stream=stream)["images"])) == (2, 2)
        assert seen == pass_on(make(stream=stream), [body])


LONG = {"text": "t" * (TEXT_BYTES_LIMIT + 1)}


@pytest.mark.parametrize(
    ("parts", "images", "error"),
    [
        ([LONG, {"text": "u"}], 0, None),
        ([inline(), LONG], 1, None),
        ([LONG, inline()], 1, None),
        ([inline(), LONG, inline("BBBB")], 2, "a long text stands between two images"),
        ([LONG, inline(), {"text": "u"}], 1, "a long text goes on after an image"),
    ],
)
def test_text_that_is_too_long_to_be_held_is_passed_on(
    parts: list[dict[str, Any]], images: int, error: str | None
) -> None:
    body = orjson.dumps(gemini(*parts))
    cuts = [[body], [body[at : at + 999] for at in range(0, len(body), 999)]]
    for pieces in cuts:
        seen = pass_on(make(), pieces)
        assert (seen.images, seen.error) == (images, error)
        if error is None:
            assert said(seen, stream=False)["content"] == "".join(part.get("text", "") for part in parts)
