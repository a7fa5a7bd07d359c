from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.answer import EVENT_STREAM, JSON, Answer
from proxy.domain.answers.chat import ChatChunk, ChatEvents, ChatJson
from proxy.domain.answers.chat_rewritten import ChatTranslation
from proxy.domain.answers.chat_writing import ChatHead, CompletionChunks, CompletionJson
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.image_events import ImageEvents
from proxy.domain.answers.images import ImagesAnswer
from proxy.domain.answers.images_rewritten import translate
from proxy.domain.parsing.image_addresses import LEAD_BYTES_LIMIT, is_image_address, read_lead
from proxy.upstream.dialects.openai import ANSWER_READING, CHAT_READING, EVENT_READING, read_error
from proxy.upstream.dialects.openrouter import READING as OPENROUTER_READING
from tests.domain.answer_samples import events_of, pass_on, passed_however_cut
from tests.support.examples import examples

GOOD = [
    "https://images.example/1.png",
    "HTTP://images.example/1.png",
    "data:image/png;base64,AAAA",
    "Data:Image/svg+xml,%3Csvg%3E",
]
BAD = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "vbscript:x",
    "file:///etc/passwd",
    "data:text/html,<script>alert(1)</script>",
    "data:text/html;base64,PHNjcmlwdD4=",
    "data:application/octet-stream;base64,AAAA",
    "data:;base64,AAAA",
    "data:,image/png",
    "data: image/png,x",
    "blob:https://images.example/1",
    "//images.example/1.png",
    "images/1.png",
    "iVBORw0KGgo=",
    "ws://https:",
    "http",
    "https",
    "data:image",
    " https://images.example/1.png",
    "\thttps://images.example/1.png",
    "\u0001https://images.example/1.png",
    "\ufeffhttps://images.example/1.png",
    "ht\ntp://images.example/1.png",
    "http\u017f://images.example/1.png",
    "javascript:" + "x" * 500,
    "",
]


@pytest.mark.parametrize("address", GOOD + BAD)
def test_what_is_no_address_of_an_image_is_none_however_json_has_it(address: str) -> None:
    assert is_image_address(address) == (address in GOOD)
    for spelling in spellings(address):
        assert json.loads(b'"%b"' % spelling) == address
        assert bool(read_lead(spelling)) == (address in GOOD)
        assert bool(read_lead(b'"' + spelling, 1)) == (address in GOOD)


def spellings(text: str) -> list[bytes]:
    plain = json.dumps(text)[1:-1].encode()
    escaped = b"".join(rb"\u%04x" % ord(character) for character in text)
    return [plain, plain.replace(b"/", rb"\/"), escaped, escaped.upper().replace(rb"\U", rb"\u")]


characters = st.sampled_from("htpsdaimge:/HTS \\u0") | st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])


@examples(300)
@given(
    lead=st.sampled_from(["", "http", "https:", "data:image/", "data:image", "javascript:"]),
    rest=st.text(characters, max_size=90),
    escaped=st.lists(st.booleans(), min_size=1, max_size=9),
)
def test_it_is_told_of_json_what_is_told_of_the_text(lead: str, rest: str, escaped: list[bool]) -> None:
    text = lead + rest
    spelling = b"".join(
        rb"\u%04x" % ord(one) if escaped[at % len(escaped)] else json.dumps(one)[1:-1].encode()
        for at, one in enumerate(text)
    )
    assert is_image_address(text) == text.lower().startswith(("http:", "https:", "data:image/"))
    assert bool(read_lead(spelling)) == is_image_address(text)
    for end in range(min(len(spelling), LEAD_BYTES_LIMIT)):
        # What is told early is told for good.
        told = read_lead(spelling[:end])
        assert told is None or told == is_image_address(text)


# --- Everything that reads an answer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """An answer that has an image's address where it says %b, and else nothing that is an image."""

    make: Callable[[], Answer]
    body: bytes


def head() -> ChatHead:
    return ChatHead("chatcmpl-1", 1, "acme/chat")


def translated(reading: object, content_type: str, *, stream: bool) -> Callable[[], Answer]:
    return lambda: translate(reading, content_type, stream=stream, created_s=1)  # type: ignore[arg-type]


IMAGES = b'{"created":1,"data":[{"url":%b,"revised_prompt":"a"}]}'
EVENT = b'event: image_generation.completed\ndata: {"type":"image_generation.completed","url":%b}\n\n'
PART = b'{"type":"image_url","image_url":{"url":%b}}'
CHAT = b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","images":[%b]},"finish_reason":"stop"}]}'
CHUNK = b'data: {"id":"1","choices":[{"index":0,"delta":{"images":[%b]},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
PARTS = {
    "an object": PART,
    "a text": b'{"type":"image_url","image_url":%b}',
    "beside it": b'{"type":"image_url","url":%b}',
}
PLACES = {
    "images": Place(ImagesAnswer, IMAGES),
    "events of images": Place(lambda: ImageEvents(read_error), EVENT),
    "images as events": Place(translated(ANSWER_READING, JSON, stream=True), IMAGES),
    "images out of events": Place(translated(EVENT_READING, EVENT_STREAM, stream=False), EVENT),
    "openrouter": Place(translated(OPENROUTER_READING, JSON, stream=False), CHAT % PART),
    "openrouter's events": Place(translated(OPENROUTER_READING, EVENT_STREAM, stream=True), CHUNK % PART),
    **{
        f"{form}, {name}": Place(make, body % part)
        for name, part in PARTS.items()
        for form, make, body in (
            ("a chat", lambda: ChatJson("acme/chat", read_error), CHAT),
            ("a chat's chunks", lambda: ChatEvents("acme/chat", read_error, wants_usage=False), CHUNK),
            ("a chat as a chunk", lambda: ChatChunk("acme/chat", read_error, wants_usage=False), CHAT),
            (
                "a chat out of chunks",
                lambda: ChatTranslation(CHAT_READING, EVENT_STREAM, CompletionJson(head())),
                CHUNK,
            ),
            (
                "chunks out of chunks",
                lambda: ChatTranslation(CHAT_READING, EVENT_STREAM, CompletionChunks(head(), wants_usage=False)),
                CHUNK,
            ),
        )
    },
}


def addresses_in(output: bytes) -> list[str]:
    """The images of an answer: their addresses, or what such a one held itself."""
    documents = [orjson.loads(output)] if output.startswith(b"{") else list(events_of(output))
    return [text for document in documents for text in images_in(document)]


def images_in(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from images_in(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name in ("url", "image_url", "b64_json") and isinstance(one, str):
                yield one
            yield from images_in(one)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_what_is_no_address_is_left_out_and_nobody_pays_for_it(place: Place) -> None:
    for address in BAD:
        for spelling in spellings(address):
            body = place.body % (b'"%b"' % spelling)
            seen = pass_on(place.make(), [body])
            assert (seen.images, seen.sizes, seen.error) == (0, (), None)
            assert addresses_in(seen.output) == []
            assert pass_on(place.make(), [bytes([byte]) for byte in body]) == seen
    for spelling in spellings(BAD[0]):
        assert passed_however_cut(place.make, place.body % (b'"%b"' % spelling)).images == 0


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_an_address_of_an_image_is_passed_on_and_counts(place: Place) -> None:
    for address in GOOD:
        for spelling in spellings(address):
            seen = passed_however_cut(place.make, place.body % (b'"%b"' % spelling))
            assert (seen.images, seen.error) == (1, None)
            assert addresses_in(seen.output) in ([address], ["AAAA"])


@pytest.mark.parametrize("data", ["AAAA", "javascript:AAAA"])
@pytest.mark.parametrize("padding", ["", "A" * HELD_BYTES_LIMIT])
@pytest.mark.parametrize("is_first", [False, True])
def test_base64_beside_it_is_passed_on_and_counts(data: str, padding: str, *, is_first: bool) -> None:
    for address in BAD:
        for spelling in spellings(address):
            members = [b'"url":"%b"' % spelling, b'"b64_json":"%b"' % data.encode()]
            image = b"{%b}" % b",".join(members if is_first else reversed(members))
            body = b'{"created":1,"data":[%b,%b],"x":"%b"}' % (image, image, padding.encode())
            answer = ImagesAnswer()
            seen = pass_on(answer, [body])
            assert (answer.images, seen.error) == (2, None)
            assert orjson.loads(seen.output) == {"created": 1, "data": [{"b64_json": data}] * 2}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_nothing_of_a_long_one_goes_out_and_little_of_it_is_held(place: Place) -> None:
    lead, tail = place.body.split(b"%b")
    answer = place.make()
    sent = answer.feed(lead + b'"javascript:')
    before = len(sent)
    for _ in range(40):
        sent += answer.feed(b"A" * 65_536)
    sent += answer.feed(b'"' + tail) + answer.finish()
    assert (b"AAA" in sent, answer.images) == (False, 0)
    assert len(sent) < before + len(place.body) + 500


@pytest.mark.parametrize("text", ["![a](javascript:alert(1))", "![a](data:text/html;base64,AAAA)", "javascript:x"])
def test_what_a_text_shows_from_no_address_is_not_counted(text: str) -> None:
    body = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})
    seen = passed_however_cut(lambda: ChatJson("acme/chat", read_error), body)
    assert (seen.images, seen.error) == (0, None)
