from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.completion import ChatJson
from proxy.domain.answers.chat.events import ChatChunk, ChatEvents
from proxy.domain.answers.chat.rewritten import ChatTranslation
from proxy.domain.answers.chat.writing import ChatHead, CompletionChunks, CompletionJson
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.reader import Reading
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.errors import NothingGenerated
from proxy.domain.parsing.image_addresses import (
    LEAD_BYTES_LIMIT,
    PREFIX_BYTES_LIMIT,
    Place,
    is_image_address,
    read_data_url,
    read_lead,
    read_place,
)
from proxy.upstream.dialects.openai import CHAT_READING, READING, read_error
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
    "AAAABBBB",
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


# --- What an image's place holds -------------------------------------------------------------------------------------

LONG = b"A" * 400
BASE64 = Place(b"b64_json")
URL = Place(b"url")


@pytest.mark.parametrize(
    ("begin", "in_any", "in_base64"),
    [
        (b"https://a.example/1", URL, URL),
        (rb"\u0068ttps:\/\/a.example", URL, URL),
        (b"data:image/svg+xml,%3Csvg", URL, URL),
        (b"data:image/png;base64,AAAA", Place(b"b64_json", 22, b"image/png"), Place(b"b64_json", 22, b"image/png")),
        (rb"data:image\/png;base64,AAAA", *[Place(b"b64_json", 23, rb"image\/png")] * 2),
        (b"data:image/png;name=a;base64,A", *[Place(b"b64_json", 29, b"image/png")] * 2),
        (b"DATA:IMAGE/PNG;BASE64,AAAA", *[Place(b"b64_json", 22, b"IMAGE/PNG")] * 2),
        (b"data:;base64,AAAA", None, Place(b"b64_json", 13)),
        (b"data:application/octet-stream;base64,AAAA", None, Place(b"b64_json", 37)),
        (b"data:text/html;base64,AAAA", None, Place(b"b64_json", 22)),
        (b"data:image/png;base64,", None, None),
        (b"data:,AAAA", None, None),
        (b"AAAA", None, BASE64),
        (b"AA-_AA==", None, BASE64),
        (rb"AA\/A\u002bA\u003d", None, BASE64),
        (rb"AAAA\nAAAA\r\nAAAA", None, BASE64),
        (LONG, None, BASE64),
        (b"iVBORw0KGgo=", BASE64, BASE64),
        (b"/9j/4AAQ", BASE64, BASE64),
        (rb"\/9j\/4AAQ", BASE64, BASE64),
        (b"UklGRgAA", BASE64, BASE64),
        (b"R0lGODlh", BASE64, BASE64),
        (b"AAAAIGZ0eXBhdmlm", BASE64, BASE64),
        (b"PHN2ZyB4", BASE64, BASE64),
        (b"iVBORw0KGgo" + LONG, BASE64, BASE64),
        (b"iVBORw0KGgo" + LONG[:244] + b"\\", BASE64, BASE64),
        (b"iVBORw0KGgo" + LONG[:241] + rb"\u00", BASE64, BASE64),
        (b"iVBORw0KGgo, as text", None, None),
        (b"javascript:alert(1)", None, None),
        (b"file:///etc/passwd", None, None),
        ("é".encode(), None, None),
        (b"", None, None),
    ],
)
def test_what_stands_in_an_images_place_is_an_address_or_base64(
    begin: bytes, in_any: Place | None, in_base64: Place | None
) -> None:
    assert read_place(begin, is_base64=False) == in_any
    assert read_place(begin, is_base64=True) == in_base64


@given(
    lead=st.sampled_from([b"", b"iVBORw0KGgo", b"data:image/png;base64,", b"data:;base64,", b"https:", b"javascript:"]),
    rest=st.text('Aa0+/=_- :;,\\n"é', max_size=300).map(str.encode),
    more=st.binary(max_size=300),
    is_base64=st.booleans(),
)
@examples(200)
def test_what_it_is_is_told_by_its_first_bytes(lead: bytes, rest: bytes, more: bytes, *, is_base64: bool) -> None:
    text = lead + rest
    place = read_place(text, is_base64=is_base64)
    if place is not None:
        assert place.kind in (b"b64_json", b"url")
        assert place.lead_bytes == 0 or read_data_url(text) is not None
        assert (place.kind == b"b64_json") or read_lead(text)
        assert is_base64 or place == read_place(text, is_base64=True)
    if len(text) >= PREFIX_BYTES_LIMIT:
        begin = text[:PREFIX_BYTES_LIMIT]
        assert read_place(begin + more, is_base64=is_base64) == read_place(begin, is_base64=is_base64)


# --- Everything that reads an answer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """An answer that has an image's address where it says %b, and else nothing that is an image.

    ``is_refusal``: without an image it is no answer.
    """

    make: Callable[[], Answer]
    body: bytes
    is_refusal: bool = False


def head() -> ChatHead:
    return ChatHead("chatcmpl-1", 1, "acme/chat")


def reader(*, events: bool, stream: bool, reading: Reading = READING) -> Callable[[], Answer]:
    return lambda: read_images(reading, ImagesHead(1), comes_as_events=events, stream=stream)


def rewritten(writer: Callable[[], CompletionJson | CompletionChunks]) -> Callable[[], Answer]:
    return lambda: ChatTranslation(CHAT_READING, writer(), comes_as_events=True)


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
FORMS = {
    "images": Form(reader(events=False, stream=False), IMAGES),
    "events of images": Form(reader(events=True, stream=True), EVENT, is_refusal=True),
    "images as events": Form(reader(events=False, stream=True), IMAGES, is_refusal=True),
    "images out of events": Form(reader(events=True, stream=False), EVENT, is_refusal=True),
    "openrouter": Form(reader(events=False, stream=False, reading=OPENROUTER_READING), CHAT % PART),
    "openrouter's events": Form(
        reader(events=True, stream=True, reading=OPENROUTER_READING), CHUNK % PART, is_refusal=True
    ),
    **{
        f"{form}, {name}": Form(make, body % part)
        for name, part in PARTS.items()
        for form, make, body in (
            ("a chat", lambda: ChatJson(head(), CHAT_READING), CHAT),
            (
                "a chat's chunks",
                lambda: ChatEvents(head(), read_error, wants_usage=False),
                CHUNK,
            ),
            (
                "a chat as a chunk",
                lambda: ChatChunk(head(), read_error, wants_usage=False),
                CHAT,
            ),
            (
                "a chat out of chunks",
                rewritten(lambda: CompletionJson(head())),
                CHUNK,
            ),
            (
                "chunks out of chunks",
                rewritten(lambda: CompletionChunks(head(), wants_usage=False)),
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


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_what_is_no_address_is_left_out_and_nobody_pays_for_it(form: Form) -> None:
    for address in BAD:
        for spelling in spellings(address):
            body = form.body % (b'"%b"' % spelling)
            seen = pass_on(form.make(), [body])
            assert (seen.images, seen.sizes, seen.closed, seen.error is not None) == (0, (), None, form.is_refusal)
            assert not seen.output or addresses_in(seen.output) == []
            assert b"64_json" not in seen.told
            assert pass_on(form.make(), [bytes([byte]) for byte in body]) == seen
    for spelling in spellings(BAD[0]):
        assert passed_however_cut(form.make, form.body % (b'"%b"' % spelling)).images == 0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_an_address_of_an_image_is_passed_on_and_counts(form: Form) -> None:
    for address in GOOD:
        for spelling in spellings(address):
            seen = passed_however_cut(form.make, form.body % (b'"%b"' % spelling))
            assert (seen.images, seen.error) == (1, None)
            assert addresses_in(seen.output) in ([address], ["AAAA"])


@pytest.mark.parametrize("data", ["AAAA", "iVBORw0KGgo"])
@pytest.mark.parametrize("padding", ["", "A" * HELD_BYTES_LIMIT])
@pytest.mark.parametrize("is_first", [False, True])
def test_base64_beside_it_is_passed_on_and_counts(data: str, padding: str, *, is_first: bool) -> None:
    for address in BAD:
        for spelling in spellings(address):
            members = [b'"url":"%b"' % spelling, b'"b64_json":"%b"' % data.encode()]
            image = b"{%b}" % b",".join(members if is_first else reversed(members))
            other = image.replace(data.encode(), data.encode() + b"B")
            body = b'{"created":1,"data":[%b,%b],"x":"%b"}' % (image, other, padding.encode())
            seen = pass_on(reader(events=False, stream=False)(), [body])
            assert (seen.images, seen.error) == (2, None)
            assert orjson.loads(seen.output) == {"created": 1, "data": [{"b64_json": data}, {"b64_json": data + "B"}]}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_nothing_of_a_long_one_goes_out_and_little_of_it_is_held(form: Form) -> None:
    lead, tail = form.body.split(b"%b")
    answer = form.make()
    sent = answer.feed(lead + b'"javascript:')
    before = len(sent)
    for _ in range(40):
        sent += answer.feed(b"A" * 65_536)
    sent += answer.feed(b'"' + tail)
    with pytest.raises(NothingGenerated) if form.is_refusal else nullcontext():
        sent += answer.finish()
    assert (b"AAA" in sent, answer.images) == (False, 0)
    assert len(sent) < before + len(form.body) + 500


@pytest.mark.parametrize("text", ["![a](javascript:alert(1))", "![a](data:text/html;base64,AAAA)", "javascript:x"])
def test_what_a_text_shows_from_no_address_is_not_counted(text: str) -> None:
    body = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})
    seen = passed_however_cut(lambda: ChatJson(head(), CHAT_READING), body)
    assert (seen.images, seen.error) == (0, None)
