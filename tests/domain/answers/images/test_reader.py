"""Where images stand in a provider's answer, which of them are delivered and charged, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.places import IMAGE_MEMBERS, IMAGE_OBJECTS, NAMED_BASE64, NAMED_KIND, NAMED_URL
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.errors import NothingGenerated, ProviderRefusal, UpstreamError, UpstreamTruncated
from proxy.domain.usage import SUM_BYTES_LIMIT, total_tokens
from tests.domain.answer_samples import check_that_thirty_megabytes_flow, events_of, pass_on
from tests.domain.answers.images.samples import (
    COMPLETED,
    CREATED_S,
    addresses,
    check_output,
    cut,
    delivered,
    make,
    read,
    sse,
)
from tests.support.examples import examples

PNG = "iVBORw0KGgo="
LINK = "https://a.example/1"
DATA_URL = "data:image/png;base64,"
LARGE = "A" * (HELD_BYTES_LIMIT + 1)
BASE64_NAMES = [name.decode() for name in NAMED_BASE64]
URL_NAMES = [name.decode() for name in NAMED_URL]
HOLDERS = [name.decode() for name in IMAGE_OBJECTS]
LISTS = ["images", "artifacts", "predictions", "generated_images", "generatedImages", "outputs", "results", "data"]
IN_THE_MIDDLE = ["", '\\"', "\\n", "\\/", "\\\\", "\\u00e9", "\\ud83d", "\\x", "\t", "\n", "\x7f", "é", "-_ "]
"""What stands in the middle of megabytes of base64, where it is looked at no more closely than it has to be."""
NESTS = ["data", "output", "result"]


def choice(message: Any, name: str = "message") -> dict[str, Any]:
    return {"choices": [{"index": 0, name: message, "finish_reason": "stop"}]}


def content(*parts: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}]}


def places(image: str) -> dict[str, Any]:
    """Every place of an image, by its name."""
    items: dict[str, Any] = {
        "a string": image,
        **{name: {name: image} for name in (*BASE64_NAMES, *URL_NAMES, *HOLDERS)},
        **{f"{name}.url": {name: {"url": image}} for name in (*URL_NAMES, *HOLDERS)},
        **{f"{name}.data": {name: {"data": image}} for name in (*URL_NAMES, *HOLDERS)},
        "a typed part": {"type": "image_url", "image_url": {"url": image, "detail": "high"}},
        "a source": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}},
    }
    found: dict[str, Any] = {f"data: {name}": {"data": [item]} for name, item in items.items()}
    found |= {f"{name}: a string": {name: image} for name in ("image", "image_url", *LISTS, *NESTS)}
    found |= {f"{name}: an object": {name: {"url": image}} for name in ("image", "image_url", *NESTS)}
    found |= {f"{name}: strings": {name: [image]} for name in (*LISTS, *NESTS)}
    found |= {f"{name}: objects": {name: [{"b64_json": image}]} for name in (*LISTS, *NESTS)}
    found |= {f"{name}: at the top": {name: image} for name in (*BASE64_NAMES, *URL_NAMES)}
    for nest in NESTS:
        found |= {f"{nest}.{name}": {nest: {name: [image]}} for name in LISTS}
        found |= {
            f"{nest}.image": {nest: {"image": image}},
            f"{nest}.image.url": {nest: {"image": {"url": image}}},
            f"{nest}.choices": {nest: choice({"content": [{"image": image}]})},
            f"{nest}: a call's result": {nest: [{"type": "image_generation_call", "result": image}]},
            f"{nest}: a message": {nest: [{"type": "message", "content": [{"image_url": image}]}]},
        }
    for name in ("message", "delta"):
        found |= {
            f"{name}.images": choice({"content": "", "images": [{"image_url": {"url": image}}]}, name),
            f"{name}.images: strings": choice({"images": [image]}, name),
            f"{name}.images: a string": choice({"images": image}, name),
            f"{name}.content": choice({"content": [{"type": "text", "text": "x"}, {"image_url": image}]}, name),
            f"{name}.multi_mod_content": choice({"multi_mod_content": [{"inline_data": {"data": image}}]}, name),
            f"{name}.inlineData": choice({"inlineData": {"mimeType": "image/png", "data": image}}, name),
            f"{name}.content.parts": choice({"content": {"parts": [{"inline_data": {"data": image}}]}}, name),
        }
    for name in ("inlineData", "inline_data", "fileData"):
        found[f"candidates: {name}"] = content({"text": "x"}, {name: {"mimeType": "image/png", "data": image}})
    found["candidates: fileUri"] = content({"fileData": {"mimeType": "image/png", "fileUri": image}})
    found["predictions"] = {"predictions": [{"bytesBase64Encoded": image, "mimeType": "image/png"}]}
    found["generatedImages"] = {"generatedImages": [{"image": {"imageBytes": image, "mimeType": "image/png"}}]}
    return found


FORMS = {PNG: PNG, LINK: LINK, DATA_URL + "AAAA": "AAAA"}
ROUTES = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize("place", places(PNG))
def test_an_image_is_delivered_and_charged_wherever_it_stands(place: str, *, events: bool, stream: bool) -> None:
    for image, seen_as in FORMS.items():
        document = places(image)[place]
        body = sse(document) if events else orjson.dumps(document)
        seen = pass_on(make(events=events, stream=stream), [body])
        assert (seen.error, seen.images, seen.whole) == (None, 1, True)
        assert pass_on(make(events=events, stream=stream), [bytes([byte]) for byte in body]) == seen
        check_output(seen.output, stream=stream)
        assert addresses(seen.output, stream=stream) == [seen_as]
        if not events:
            listed = pass_on(make(stream=stream), [b"[%b,{}]" % body])
            assert (listed.error, addresses(listed.output, stream=stream)) == (None, [seen_as])


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize("member", ["b64_json", "url"])
@pytest.mark.parametrize("odd", IN_THE_MIDDLE)
def test_it_does_not_matter_how_a_large_image_is_cut(odd: str, member: str, *, events: bool, stream: bool) -> None:
    first, second = "A" * 40_000 + odd + "B" * 40_000, "C" * 300 + odd
    lead = "" if member == "b64_json" else "data:image/png;base64,"
    body = f'{{"data":[{{"{member}":"{lead}{first}"}},{{"{member}":"{lead}{second}"}}],"created":1}}'.encode()
    body = b"data: %b\n\n" % body if events else body
    whole = pass_on(make(events=events, stream=stream), [body])
    at = body.index(b"AB" if not odd else odd.encode(), 40_000)
    for cuts in ([at], [at + 1], [at, at + 1], list(range(0, 80_000, 7_001)), [20_000, at, at + len(odd.encode())]):
        seen = pass_on(make(events=events, stream=stream), cut(body, cuts))
        assert (seen, seen.sizes, seen.closed) == (whole, whole.sizes, whole.closed)
        assert not (seen.error is None and not stream) or orjson.loads(seen.output)


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize(
    "place", ["data: b64_json", "images: strings", "message.images", "candidates: inlineData", "delta.content"]
)
def test_it_does_not_matter_how_the_body_is_cut(place: str, *, events: bool, stream: bool) -> None:
    for image in FORMS:
        document = places(image)[place]
        assert read(sse(document) if events else orjson.dumps(document), events=events, stream=stream).images == 1


@pytest.mark.parametrize(
    ("text", "images"),
    [
        (f"here: ![a]({LINK}) and ![b]({DATA_URL}AAAA)", [LINK, "AAAA"]),
        (LINK, [LINK]),
        (f"{DATA_URL}AAAA\n", ["AAAA"]),
        (f'<img alt="a" src="{LINK}">', [LINK]),
        (f"![a]({LINK}) ![b]({LINK})", [LINK]),
        (f"![a](<{DATA_URL}AAAA>) ![b]({DATA_URL}A...) ![c]({DATA_URL}BBBB)", ["AAAA", "BBBB"]),
    ],
)
@pytest.mark.parametrize(("events", "stream"), ROUTES)
def test_images_in_text_are_delivered(text: str, images: list[str], *, events: bool, stream: bool) -> None:
    for document in (choice({"content": text}), content({"text": text}), {"output": [{"content": [{"text": text}]}]}):
        seen = read(sse(document) if events else orjson.dumps(document), events=events, stream=stream)
        assert (seen.error, seen.images) == (None, len(images))
        check_output(seen.output, stream=stream)
        assert addresses(seen.output, stream=stream) == images


@pytest.mark.parametrize("text", [f"![a]({DATA_URL}) ", DATA_URL, f" {DATA_URL}\n", f"<img src='{DATA_URL}'>"])
@pytest.mark.parametrize(("events", "stream"), ROUTES)
def test_an_address_in_a_text_that_holds_nothing_is_no_image(text: str, *, events: bool, stream: bool) -> None:
    document = choice({"content": text, "images": [LINK]})
    seen = read(sse(document) if events else orjson.dumps(document), events=events, stream=stream)
    assert (seen.error, seen.images, addresses(seen.output, stream=stream)) == (None, 1, [LINK])


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_in_text_goes_on_from_one_event_to_the_next(*, stream: bool) -> None:
    pieces = ["here ![a](ht", "tps://a.exa", "mple/1", ") ![b](data:ima", "ge/png;base64,AA", "AA)", " ok"]
    seen = read(sse(*(choice({"content": piece}, "delta") for piece in pieces)), events=True, stream=stream)
    assert (seen.error, seen.images, addresses(seen.output, stream=stream)) == (None, 2, [LINK, "AAAA"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_between_two_halves_of_one_in_text_is_delivered_too(*, stream: bool) -> None:
    texts = [choice({"content": piece}, "delta") for piece in ("![a](https://a.exa", "mple/1) ok")]
    between = choice({"images": [{"image_url": {"url": DATA_URL + "AAAA"}}]}, "delta")
    seen = read(sse(texts[0], between, texts[1]), events=True, stream=stream)
    assert (seen.error, seen.images) == (None, 2)
    check_output(seen.output, stream=stream)
    assert sorted(addresses(seen.output, stream=stream)) == ["AAAA", LINK]


@pytest.mark.parametrize("data", ["AAAA", LARGE])
@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_part_may_have_an_image_of_its_own_and_one_in_its_text(data: str, *, is_first: bool, stream: bool) -> None:
    members: list[tuple[str, Any]] = [("inlineData", {"data": data}), ("text", f"![a]({LINK})")]
    body = orjson.dumps(content(dict(members if is_first else reversed(members))))
    seen = pass_on(make(stream=stream), [body])
    assert (seen.error, seen.images) == (None, 2)
    check_output(seen.output, stream=stream)
    assert sorted(addresses(seen.output, stream=stream)) == [data, LINK]


# --- What is left out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize(
    "image",
    ["", "javascript:alert(1)", "file:///x", "data:text/html;base64,AAAA", "data:,x", "plain text", "AAAA", DATA_URL],
)
def test_what_is_no_image_is_left_out(image: str, *, events: bool, stream: bool) -> None:
    for document in (
        {"data": [{"url": image}, {"url": LINK}]},
        {"images": [image, LINK]},
        choice({"images": [{"image_url": {"url": image}}, {"image_url": {"url": LINK}}]}),
        content({"fileData": {"fileUri": image}}, {"fileData": {"fileUri": LINK}}),
    ):
        seen = read(sse(document) if events else orjson.dumps(document), events=events, stream=stream)
        assert (seen.error, seen.images, addresses(seen.output, stream=stream)) == (None, 1, [LINK])


@pytest.mark.parametrize("is_first", [False, True])
def test_base64_counts_beside_what_is_no_address(*, is_first: bool) -> None:
    members = [("url", "javascript:x"), ("b64_json", "AAAA")]
    image = dict(members if is_first else reversed(members))
    assert addresses(read(orjson.dumps({"data": [image]})).output, stream=False) == ["AAAA"]


def test_of_two_payloads_of_an_image_the_first_one_counts() -> None:
    for image, first in (({"b64_json": "AAAA", "url": LINK}, "AAAA"), ({"url": LINK, "b64_json": "AAAA"}, LINK)):
        seen = read(orjson.dumps({"data": [image]}))
        assert (seen.images, addresses(seen.output, stream=False)) == (1, [first])


@pytest.mark.parametrize(
    ("url", "image"),
    [
        (r"data:image\/png;base64,AAAA", {"b64_json": "AAAA", "media_type": "image/png"}),
        ("DATA:Image/PNG;base64,AAAA", {"b64_json": "AAAA", "media_type": "Image/PNG"}),
        ("data:image/png;name=a;base64,A", {"b64_json": "A", "media_type": "image/png"}),
        ("data:image/svg+xml,%3Csvg/%3E", {"url": "data:image/svg+xml,%3Csvg/%3E"}),
        ("https://images.example/1.png?a=;base64,", {"url": "https://images.example/1.png?a=;base64,"}),
        ("http:" + "x" * 300, {"url": "http:" + "x" * 300}),
    ],
)
def test_addresses_that_hold_the_image_itself_are_taken_apart(url: str, image: dict[str, str]) -> None:
    body = b'{"data":[{"url":"%b"}]}' % url.encode()
    assert orjson.loads(read(body).output)["data"] == [image]
    assert list(events_of(read(body, stream=True).output)) == [{**COMPLETED, **image}]


@pytest.mark.parametrize("name", [name.decode() for name in NAMED_KIND])
def test_what_kind_it_is_may_be_said_in_any_words(name: str) -> None:
    for part in ({"inlineData": {name: "image/webp", "data": "AAAA"}}, {"b64_json": "AAAA", name: "image/webp"}):
        seen = read(orjson.dumps({"data": [part]}))
        assert orjson.loads(seen.output)["data"] == [{"b64_json": "AAAA", "media_type": "image/webp"}]


@pytest.mark.parametrize("value", [{"cost": 1}, [1], {"a": {"b": "secret"}}])
@pytest.mark.parametrize("name", ["revised_prompt", "media_type"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_said_of_an_image_is_no_object(name: str, value: Any, *, stream: bool) -> None:
    seen = read(orjson.dumps({"data": [{"b64_json": "AAAA", name: value}]}), stream=stream)
    (image,) = delivered(seen.output, stream=stream)
    assert name not in image


# --- Partial images, drafts, the same again --------------------------------------------------------------------------

PARTIAL = {"type": "image_generation.partial_image", "b64_json": "DDDD", "partial_image_index": 1}
DONE = {"type": "image_generation.completed", "b64_json": "AAAA", "size": "64x32"}


def test_partial_images_are_for_streams_and_free() -> None:
    seen = read(sse(PARTIAL, DONE), events=True, stream=True)
    first, last = events_of(seen.output)
    assert seen.images == 1
    assert first == {**{name: value for name, value in COMPLETED.items() if name != "usage"}, **PARTIAL}
    assert last == {**COMPLETED, **DONE}
    seen = read(sse(PARTIAL, DONE), events=True)
    assert orjson.loads(seen.output) == {"data": [{"b64_json": "AAAA"}], "created": CREATED_S, "size": "64x32"}
    assert seen.images == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_partial_image_that_says_so_after_its_data_is_no_image_either(*, stream: bool) -> None:
    seen = read(sse(dict(reversed(PARTIAL.items())), DONE), events=True, stream=stream)
    assert (seen.error, seen.images, addresses(seen.output, stream=stream)) == (None, 1, ["AAAA"])


def test_the_name_of_an_event_says_as_much_as_its_type() -> None:
    body = b'event: image_edit.partial_image\ndata: {"b64_json":"DDDD"}\n\n' + sse(DONE)
    assert [event["type"] for event in events_of(read(body, events=True, stream=True).output)] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_partial_images_that_no_image_follows_are_an_answer_cut_short(*, stream: bool) -> None:
    seen = read(sse(PARTIAL), events=True, stream=stream)
    assert (seen.images, seen.whole) == (0, False)
    if stream:
        assert "ended before its image was complete" in (seen.error or "")


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize("is_first", [False, True])
def test_a_thought_is_neither_delivered_nor_charged(*, is_first: bool, events: bool, stream: bool) -> None:
    thought: dict[str, Any] = {"inlineData": {"data": "TTTT"}, "thoughtSignature": "SSSS"}
    thought = {"thought": True, **thought} if is_first else {**thought, "thought": True}
    document = content({"text": "hm", "thought": True}, thought, {"inlineData": {"data": "AAAA"}, "thought": False})
    seen = read(sse(document) if events else orjson.dumps(document), events=events, stream=stream)
    assert (seen.error, seen.images, addresses(seen.output, stream=stream)) == (None, 1, ["AAAA"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_large_thought_that_says_so_in_time_is_not_sent(*, stream: bool) -> None:
    document = content({"thought": True, "inlineData": {"data": LARGE}}, {"inlineData": {"data": "AAAA"}})
    seen = pass_on(make(stream=stream), [orjson.dumps(document)])
    assert (seen.images, addresses(seen.output, stream=stream)) == (1, ["AAAA"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_large_thought_that_says_so_later_is_on_its_way_and_delivered(*, stream: bool) -> None:
    body = orjson.dumps(content({"inlineData": {"data": LARGE}, "thought": True}, {"inlineData": {"data": "AAAA"}}))
    for pieces in ([body], [body[at : at + 9_999] for at in range(0, len(body), 9_999)]):
        seen = pass_on(make(stream=stream), pieces)
        assert (seen.images, addresses(seen.output, stream=stream)) == (2, [LARGE, "AAAA"])


SAME = [
    {"data": [{"b64_json": "AAAA"}, {"b64_json": "AAAA"}]},
    {"data": [{"url": LINK}], "images": [LINK]},
    {"data": [{"b64_json": "AAAA"}, {"url": DATA_URL + "AAAA"}]},
    choice({"content": f"![a]({LINK})", "images": [{"image_url": {"url": LINK}}]}),
    content({"inlineData": {"data": "AAAA"}}, {"inline_data": {"data": "AAAA"}}),
]


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize("document", SAME)
def test_the_same_image_again_is_delivered_once(document: Any, *, events: bool, stream: bool) -> None:
    for body in (orjson.dumps(document), orjson.dumps([document, document])):
        seen = read(b"data: %b\n\n" % body if events else body, events=events, stream=stream)
        assert (seen.error, seen.images, len(addresses(seen.output, stream=stream))) == (None, 1, 1)
    if events:
        seen = read(sse(document, document), events=True, stream=stream)
        assert (seen.error, seen.images, len(addresses(seen.output, stream=stream))) == (None, 1, 1)


@pytest.mark.parametrize(("events", "stream"), ROUTES)
def test_the_same_large_image_again_is_on_its_way_and_free(*, events: bool, stream: bool) -> None:
    document = {"data": [{"b64_json": LARGE}, {"b64_json": LARGE}, {"b64_json": LARGE[:-1] + "B"}]}
    body = sse(document) if events else orjson.dumps(document)
    for pieces in ([body], [body[at : at + 9_999] for at in range(0, len(body), 9_999)]):
        seen = pass_on(make(events=events, stream=stream), pieces)
        assert (seen.error, seen.images) == (None, 2)
        assert addresses(seen.output, stream=stream) == [LARGE, LARGE, LARGE[:-1] + "B"]


def test_there_is_a_limit_to_the_images_of_one_answer() -> None:
    answer = make()
    answer.feed(orjson.dumps({"padding": LARGE})[:-1] + b',"data":[')
    images = [b'{"url":"http:%d"},{},' % number for number in range(IMAGES_LIMIT)]
    answer.feed(b"".join(images))
    seen = pass_on(answer, [b'{"b64_json":"x"}', b" "])
    assert (seen.error, seen.images) == ("there are too many images in the answer", IMAGES_LIMIT)


# --- Errors, and nothing ----------------------------------------------------------------------------------------------

ERRORS = [
    ({"error": {"message": "no sk-123456789", "code": "x"}}, UpstreamError, "The provider failed: no [removed]"),
    ({"error": "no"}, UpstreamError, "The provider failed: no"),
    ({"error": {"message": "no", "code": "moderation_blocked"}}, ProviderRefusal, "no"),
    ({"type": "error", "message": "no", "code": "content_policy"}, ProviderRefusal, "no"),
    ({"type": "error", "error": {"message": "no"}}, UpstreamError, "The provider failed: no"),
    ({"type": "error"}, UpstreamError, "The provider failed in its answer."),
    ({"choices": [{"error": {"message": "no"}}]}, UpstreamError, "The provider failed: no"),
]


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize(("document", "kind", "message"), ERRORS)
def test_an_error_in_the_answer_is_raised_cleaned(
    document: Any, kind: type[Exception], message: str, *, events: bool, stream: bool
) -> None:
    body = sse(document) if events else orjson.dumps(document)
    seen = read(body, events=events, stream=stream)
    assert (seen.images, seen.error, seen.closed) == (0, message, None)
    answer = make(events=events, stream=stream)
    with pytest.raises(kind):
        answer.feed(body) + answer.finish()


def test_the_name_of_an_event_may_say_that_it_is_an_error() -> None:
    for stream in (False, True):
        seen = read(b"event: error\ndata: {}\n\n", events=True, stream=stream)
        assert seen.error == "The provider failed in its answer."


@pytest.mark.parametrize(("document", "_kind", "message"), ERRORS)
def test_an_error_after_an_image_ends_the_answer_and_the_image_stays(
    document: Any, _kind: object, message: str
) -> None:
    body = sse(DONE, document, {**DONE, "b64_json": "BBBB"})
    for pieces in ([bytes([byte]) for byte in body], [body]):
        seen = pass_on(make(events=True, stream=True), pieces)
        assert (seen.images, seen.error) == (1, message)
    image, error = events_of(seen.told)
    assert (image["b64_json"], error["type"], error["error"]["message"]) == ("AAAA", "error", message)
    seen = read(sse(DONE, document), events=True)
    assert (seen.images, seen.error, addresses(seen.closed or b"", stream=False)) == (1, message, ["AAAA"])


def test_an_error_beside_its_images_does_not_take_them_back() -> None:
    seen = read(orjson.dumps({"data": [{"b64_json": "AAAA"}], "error": {"message": "no"}}))
    assert (seen.images, seen.error) == (1, "The provider failed: no")
    assert addresses(seen.closed or b"", stream=False) == ["AAAA"]


def test_no_error_is_none() -> None:
    assert read(orjson.dumps({"error": None, "data": [{"b64_json": "AAAA"}]})).images == 1


@pytest.mark.parametrize(
    ("document", "message", "code"),
    [
        (content({"text": "I cannot"}), "The provider made no image. I cannot", "no_image"),
        (choice({"content": "Sorry"}), "The provider made no image. Sorry", "no_image"),
        (choice({"content": [{"type": "text", "text": "Sorry"}]}), "The provider made no image. Sorry", "no_image"),
        (choice({"refusal": "Never"}), "The provider made no image. Never", "no_image"),
        ({"data": [], "text": "Sorry"}, "The provider made no image. Sorry", "no_image"),
        (
            {"candidates": [{"finishReason": "IMAGE_SAFETY", "finishMessage": "unsafe"}]},
            "The provider made no image: IMAGE_SAFETY. unsafe",
            "image_safety",
        ),
        (
            {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "bad"}},
            "The provider made no image: SAFETY. bad",
            "safety",
        ),
        (
            {"choices": [{"finish_reason": "content_filter"}]},
            "The provider made no image: content_filter.",
            "content_filter",
        ),
        ({"predictions": [{"raiFilteredReason": "blocked"}]}, "The provider made no image. blocked", "no_image"),
    ],
)
@pytest.mark.parametrize(("events", "stream"), ROUTES)
def test_an_answer_without_an_image_says_why(
    document: Any, message: str, code: str, *, events: bool, stream: bool
) -> None:
    body = sse(document) if events else orjson.dumps(document)
    assert read(body, events=events, stream=stream).error == message
    answer = make(events=events, stream=stream)
    with pytest.raises(NothingGenerated) as refusal:
        answer.feed(body) + answer.finish()
    assert (refusal.value.wire_status, refusal.value.wire_code) == (400, code)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"detail": "no sk-123456789"}, "The provider failed: no [removed]"),
        ({"message": "no"}, "The provider failed: no"),
        ({"code": "x", "message": "no"}, "The provider failed: no"),
    ],
)
def test_an_error_that_is_the_answer_itself_is_one(document: Any, message: str) -> None:
    assert read(orjson.dumps(document)).error == message


def test_an_empty_list_is_an_answer_and_nothing_is_none() -> None:
    seen = read(b'{"data":[]}')
    assert orjson.loads(seen.output) == {"data": [], "created": CREATED_S}
    assert (seen.images, seen.error) == (0, None)
    for document in (b"{}", b"[]", b"1", b'{"created":1}', b'{"usage":{"a":1}}', b'"x"', b""):
        assert read(document).error is not None
    assert "does not say why" in (read(b'{"data":[]}', stream=True).error or "")
    # What is said in events says nothing of why there is none.
    for body in (b"", sse({}), b": hello\n\n", b"data: [DONE]\n\n"):
        for stream in (False, True):
            assert read(body, events=True, stream=stream).error is not None


def test_a_long_text_that_says_why_is_cut_at_a_whole_escape() -> None:
    for length in range(4_080, 4_100):
        text = "w" * length + 'é\n"' * 20
        body = b'{"choices":[{"message":{"content":%b}}]}' % orjson.dumps(text).replace("é".encode(), rb"\u00e9")
        seen = pass_on(make(), [body])
        assert (seen.error or "").startswith("The provider made no image. w")
        assert pass_on(make(), [bytes([byte]) for byte in body]) == seen


# --- Answers that break off ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [False, True])
def test_an_answer_that_breaks_off_anywhere_has_the_images_that_were_whole(*, events: bool) -> None:
    images = [{"b64_json": "AAAA", "revised_prompt": "a"}, {"url": LINK}, {"b64_json": "BBBB"}]
    body = b'{"created":1,"data":[%b],"size":"1x1"}' % b",".join(map(orjson.dumps, images))
    body = b"data: %b\n\n" % body if events else body
    ends = [body.index(end) + len(end) for end in (b'"AAAA"', b'1"}', b'"BBBB"')]
    ends[1] -= 1
    for end in range(len(body) - 3):
        seen = pass_on(make(events=events), [body[:end]])
        count = sum(image_end <= end for image_end in ends)
        assert (seen.error is not None, seen.images) == (True, count)
        if count:
            check_output(seen.closed or b"", stream=False)
            assert addresses(seen.closed or b"", stream=False) == ["AAAA", LINK, "BBBB"][:count]
        else:
            assert seen.closed is None


def test_a_stream_that_breaks_off_tells_so_between_events() -> None:
    body = sse(DONE, {**DONE, "b64_json": "BBBB"})
    for end in range(body.index(b"BBBB") + 4):
        seen = pass_on(make(events=True, stream=True), [body[:end]])
        output = seen.output if seen.error is None else seen.told
        check_output(output, stream=True)
        assert seen.images == len(delivered(output, stream=True))
        assert (seen.error is None) == ([event["type"] for event in events_of(output)][-1] != "error")


def test_a_truncated_stream_is_an_error_of_its_own() -> None:
    answer = make(events=True, stream=True)
    answer.feed(sse(PARTIAL))
    with pytest.raises(UpstreamTruncated):
        answer.finish()


# --- The laws --------------------------------------------------------------------------------------------------------

base64s = st.text("ABab01+/", min_size=1, max_size=9)
payloads = (
    base64s
    | base64s.map(PNG.strip("=").__add__)
    | base64s.map(DATA_URL.__add__)
    | base64s.map("https://a.example/".__add__)
    | st.sampled_from(
        ["javascript:x", "", DATA_URL, "data:text/html;base64,AAAA", f"![a]({LINK})", f"![a]({DATA_URL}AA"]
    )
)
anything: st.SearchStrategy[Any] = st.recursive(
    payloads | st.none() | st.booleans() | st.integers(-9, 2**40) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "data", "b64_json", "image", "text", "cost"]), inner, max_size=3)
    ),
    max_leaves=5,
)
image_names = st.sampled_from([name.decode() for name in IMAGE_MEMBERS] + ["cost", "content", "result"])
images = st.dictionaries(image_names, payloads | anything, max_size=3) | payloads
lists = st.lists(images, max_size=3)
messages = st.dictionaries(
    st.sampled_from(["content", "images", "multi_mod_content", "inlineData", "role"]), lists | images, max_size=3
)
choices = st.dictionaries(st.sampled_from(["message", "delta", "content"]), messages, max_size=2)
facts = st.sampled_from(
    ["created", "created_at", "size", "quality", "background", "output_format", "usage", "cost", "text", "type", "id"]
)
documents = st.dictionaries(
    st.sampled_from(["data", "images", "output", "result", "artifacts", "predictions", "image", "b64_json", "url"]),
    lists | images,
    max_size=3,
).flatmap(
    lambda some: st.builds(
        lambda more, of_choices: {**more, **some, **of_choices},
        st.dictionaries(facts, anything, max_size=3),
        st.fixed_dictionaries({}, optional={"choices": st.lists(choices, max_size=2)}),
    )
)


@examples(400)
@given(
    st.lists(documents, min_size=1, max_size=3), st.lists(st.integers(0, 2**16), max_size=6), st.sampled_from(ROUTES)
)
def test_what_is_charged_is_delivered_however_the_answer_is_made_and_cut(
    several: list[Any], cuts: list[int], route: tuple[bool, bool]
) -> None:
    events, stream = route
    body = sse(*several) if events else orjson.dumps(several if len(several) > 1 else several[0])
    whole = pass_on(make(events=events, stream=stream), [body])
    output = whole.output if whole.error is None else whole.closed or whole.told
    if output:
        check_output(output, stream=stream)
        assert len(delivered(output, stream=stream)) == whole.images
    else:
        assert whole.images == 0
    for pieces in (cut(body, cuts), [bytes([byte]) for byte in body]):
        seen = pass_on(make(events=events, stream=stream), pieces)
        assert (seen, seen.told, seen.closed, seen.sizes) == (whole, whole.told, whole.closed, whole.sizes)


@examples(200)
@given(documents, st.integers(0, 2**16), st.booleans())
def test_an_answer_that_breaks_off_is_closed_with_what_is_charged(document: Any, end: int, events: bool) -> None:
    body = sse(document) if events else orjson.dumps(document)
    seen = pass_on(make(events=events), [body[: end % len(body)]])
    output = seen.output if seen.error is None else seen.closed
    assert (output is None) == (seen.error is not None and not seen.images)
    if output is not None:
        check_output(output, stream=False)
        assert len(delivered(output, stream=False)) == seen.images


# --- Large ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("events", "stream"), ROUTES)
@pytest.mark.parametrize(
    ("lead", "tail"),
    [
        (b'{"data":[{"b64_json":"', b'"}]}'),
        (b'{"data":[{"url":"data:image/png;base64,', b'"}]}'),
        (b'{"choices":[{"message":{"images":[{"image_url":{"url":"data:image/png;base64,', b'"}}]}}]}'),
        (b'{"candidates":[{"content":{"parts":[{"inlineData":{"data":"', b'"}}]}}]}'),
        (b'{"choices":[{"message":{"content":"![a](data:image/png;base64,', b')"}}]}'),
    ],
)
def test_thirty_megabytes_flow(lead: bytes, tail: bytes, *, events: bool, stream: bool) -> None:
    answer = make(events=events, stream=stream)
    answer.feed(b"data: " + lead if events else lead)
    check_that_thirty_megabytes_flow(answer, held_pieces=1)
    assert answer.comment == b""
    seen = pass_on(answer, [tail, b"\n\n"] if events else [tail])
    assert (seen.error, seen.images) == (None, 1)


# --- What an answer says of its images --------------------------------------------------------------------------------


def completed(number: int, **facts: Any) -> dict[str, Any]:
    return {"type": "image_generation.completed", "b64_json": f"AAA{number}", **facts}


@pytest.mark.parametrize("stream", [True, False])
def test_each_event_says_its_own_quality_and_size_and_its_tokens_add_up(*, stream: bool) -> None:
    body = sse(
        completed(1, quality="low", size="1024x1024", usage={"total_tokens": 3, "cost": 0.1}),
        completed(2, quality="high", size="1536x1024", usage={"total_tokens": 4, "cost": 0.2}),
    )
    for step in (len(body), 7):
        answer = make(events=True, stream=stream)
        for start in range(0, len(body), step):
            answer.feed(body[start : start + step])
        answer.finish()
        assert list(answer.told) == [("low", "1024x1024"), ("high", "1536x1024")]
        assert orjson.loads(answer.usage or b"") == {"total_tokens": 7, "cost": 0.3}


@pytest.mark.parametrize("stream", [True, False])
def test_an_event_that_comes_again_reports_no_tokens_of_its_own(*, stream: bool) -> None:
    first = completed(1, usage={"total_tokens": 3})
    second = completed(2, usage={"total_tokens": 3})
    answer = make(events=True, stream=stream)
    answer.feed(sse(first, first, second, second, completed(2, usage={"total_tokens": 8})))
    answer.finish()
    # The last one repeats an image, and reports something else.
    assert (answer.images, orjson.loads(answer.usage or b"")) == (2, {"total_tokens": 14})


@pytest.mark.parametrize("stream", [True, False])
def test_reports_that_have_no_name_in_common_do_not_pile_up(*, stream: bool) -> None:
    answer = make(events=True, stream=stream)
    for number in range(20):
        names = {f"name {number} {each}": each for each in range(700)}
        answer.feed(sse(completed(number, usage={"output_tokens": 5, **names})))
    answer.finish()
    assert answer.usage is not None
    assert len(answer.usage) <= SUM_BYTES_LIMIT
    assert (answer.images, total_tokens(answer.usage)) == (20, 100)


@pytest.mark.parametrize("last", [{}, {"total_tokens": 0, "input_tokens": 0}, None])
def test_a_report_that_says_nothing_takes_the_place_of_none(last: dict[str, Any] | None) -> None:
    answer = make(events=True, stream=False)
    answer.feed(sse(completed(1, usage={"total_tokens": 3}), {"type": "image_generation.done", "usage": last}))
    answer.finish()
    assert orjson.loads(answer.usage or b"") == {"total_tokens": 3}


def test_a_running_total_is_not_added_up() -> None:
    parts = [{"inlineData": {"mimeType": "image/png", "data": f"AAA{number}"}} for number in range(2)]
    body = sse(
        {"candidates": [{"content": {"parts": parts[:1]}}], "usageMetadata": {"totalTokenCount": 5}},
        {
            "candidates": [{"content": {"parts": parts[1:]}, "finishReason": "STOP"}],
            "usageMetadata": {"totalTokenCount": 9},
        },
    )
    answer = make(events=True, stream=False)
    answer.feed(body)
    answer.finish()
    assert (answer.images, orjson.loads(answer.usage or b"")) == (2, {"totalTokenCount": 9})


@pytest.mark.parametrize("padding", [b"", b'"x":"%b",' % (b"y" * 70_000), b'"image":null,'])
def test_a_document_says_it_of_all_its_images(padding: bytes) -> None:
    body = b'{%b"created":1,"data":[{"url":"http:a"},{"url":"http:b"}],"quality":"high","size":7}' % padding
    answer = make(events=False, stream=False)
    answer.feed(body)
    answer.finish()
    assert list(answer.told) == [("high", "")] * 2


@pytest.mark.parametrize("reasons", [["Filter reason: output image"], ["x", "x"]])
@pytest.mark.parametrize("images", [[], [""], [PNG], ["iVBORw0KGgoA" + LARGE], [{"b64_json": PNG}]])
@pytest.mark.parametrize("stream", [False, True])
def test_an_image_that_comes_after_a_reason_to_withhold_it_is_none(
    reasons: list[str], images: list[object], stream: bool
) -> None:
    body = orjson.dumps({"seeds": [1], "finish_reasons": reasons, "images": images})
    for pieces in ([body], [bytes([byte]) for byte in body[:2_000]] + [body[2_000:]]):
        seen = pass_on(make(stream=stream), pieces)
        assert (seen.output, seen.images) == (b"", 0)
        assert reasons[0] in str(seen.error)


@pytest.mark.parametrize("reasons", [[None], [""], ["SUCCESS"], [], None])
def test_no_reason_withholds_nothing(reasons: list[str | None] | None) -> None:
    seen = read(orjson.dumps({"seeds": [1], "finish_reasons": reasons, "images": [PNG]}))
    assert seen.images == 1


def test_what_has_been_delivered_before_its_reason_is_charged() -> None:
    body = orjson.dumps({"images": ["iVBORw0KGgoA" + LARGE], "finish_reasons": ["Filter reason: output image"]})
    cuts = [0, 9, 12, 30, len(body) // 2, len(body) - 42, len(body) - 20, len(body) - 2]
    for pieces in ([body], cut(body, cuts), [bytes([byte]) for byte in body]):
        assert pass_on(make(), pieces).images == 1
