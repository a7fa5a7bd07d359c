from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.answers.answer import JSON, Answer
from proxy.domain.answers.chat.completion import ChatJson
from proxy.domain.answers.chat.events import ChatChunk, ChatEvents
from proxy.domain.answers.chat.rewritten import ChatTranslation
from proxy.domain.answers.chat.writing import ChatHead, CompletionChunks, CompletionJson
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.reader import Reading
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.image_addresses import PREFIX_BYTES_LIMIT
from proxy.domain.parsing.json_strings import StringMender
from proxy.upstream.dialects.openai import CHAT_READING
from tests.support.growth import check_growth

MEGABYTE = 2**20


def mended(pieces: list[bytes]) -> bytes:
    mender = StringMender()
    return b"".join([*(mender.add(piece) for piece in pieces), mender.end()])


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (b"", b""),
        (b"a plain text, ~", b"a plain text, ~"),
        (b"\x7f", b"\x7f"),
        (b'\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u0000', b'\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u0000'),
        (b"a\x00b\x1bc\nd\re\tf\x1f", b"a b c d e f "),
        ("é\u2028\U0001f3a8".encode(), "é\u2028\U0001f3a8".encode()),
        (b"\xff", b"?"),
        (b"\xc3", b"?"),
        (b"\xc3(", b"?("),
        (b"\xf0\x9f\x8e", b"?"),
        (b"\xed\xa0\x80", b"???"),
        (b"\xc0\xaf", b"??"),
        ("\ufffd".encode(), b"?"),
        (b"\\q", b"q"),
        (b"\\\n", b" "),
        (b"\\\\q", b"\\\\q"),
        (b"\\u12", b"u12"),
        (b"\\u12g4", b"u12g4"),
        (b"\\u", b"u"),
        (b"\\ud83c\\udfa8", b"\\ud83c\\udfa8"),
        (b"\\ud83c", b"\\ufffd"),
        (b"\\udfa8", b"\\ufffd"),
        (b"\\ud83c\\ud83c\\udfa8", b"\\ufffd\\ud83c\\udfa8"),
        (b"\\ud83c\\n", b"\\ufffd\\n"),
        (b"\\ud83c\\ud", b"\\ufffdud"),
        (b"\\ud83c\xc3", b"\\ufffd?"),
    ],
)
def test_what_is_not_valid_is_mended_however_it_is_cut(text: bytes, passed: bytes) -> None:
    assert mended([text]) == passed
    assert mended([text[at : at + 1] for at in range(len(text))]) == passed
    for at in range(len(text) + 1):
        assert mended([text[:at], text[at:]]) == passed


FRAGMENTS = [
    b"a", b"AAAA", b"\\", b"\\\\", b"\\u", b"\\ud83c", b"\\udfa8", b"d8", b"00", b"\x00", b"\n", b"\r", b"\x1b",
    b"\xff", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x8e\xa8", b"\xe2\x80\xa8", b"n", b"q", b'\\"', b" ",
]  # fmt: skip
strings = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=3), max_size=16).map(b"".join)


def as_string(text: bytes) -> bytes:
    """The text with what would end the string, or take its end, left out."""
    text = text.replace(b'"', b"")
    return text + b"\\" if (len(text) - len(text.rstrip(b"\\"))) % 2 else text


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[begin:end] for begin, end in pairwise(ends)]


def check_strict(text: bytes) -> None:
    json.loads(text.decode(), strict=True)
    orjson.loads(text)


@given(strings.map(as_string), st.lists(st.integers(0, 400), max_size=6))
def test_it_is_always_valid_and_never_longer(text: bytes, places: list[int]) -> None:
    out = mended([text])
    assert mended(cut(text, places)) == out
    assert len(out) <= len(text)
    check_strict(b'"%b"' % out)


def no_error(_report: bytes) -> ProxyError:
    raise AssertionError


HEAD = ChatHead("1", 1, "acme/chat")


def images(*, events: bool, stream: bool) -> Answer:
    return read_images(Reading(no_error), ImagesHead(1), comes_as_events=events, stream=stream)


ANSWERS: dict[str, Callable[[], Answer]] = {
    "images": lambda: images(events=False, stream=False),
    "image events": lambda: images(events=True, stream=True),
    "images as events": lambda: images(events=False, stream=True),
    "image events as images": lambda: images(events=True, stream=False),
    "a chat": lambda: ChatJson(HEAD, CHAT_READING),
    "chat events as a chat": lambda: ChatTranslation(CHAT_READING, CompletionJson(HEAD), comes_as_events=True),
    "chat events anew": lambda: ChatTranslation(
        CHAT_READING, CompletionChunks(HEAD, wants_usage=True), comes_as_events=True
    ),
    "chat events": lambda: ChatEvents(ChatHead("chatcmpl-1", 1, "acme/chat"), no_error, wants_usage=True),
    "a chat as a chunk": lambda: ChatChunk(ChatHead("chatcmpl-1", 1, "acme/chat"), no_error, wants_usage=True),
}
IMAGES = b'{"created":1,"data":[{"b64_json":"%b%b","revised_prompt":"%b"}],"size":"%b"}'
EVENT = b'{"type":"image_generation.completed","b64_json":"%b%b","revised_prompt":"%b","quality":"%b"}'
CHAT = (
    b'{"id":"%b","choices":[{"index":0,"message":{"images":[{"image_url":{"url":"data:image/png;base64,AAAA%b%b"}}],'
    b'"content":"%b"%b},"finish_reason":"stop"}]}'
)
CALLS = b',"tool_calls":[{"name":"%b"}]'
BASE64 = b"A" * PREFIX_BYTES_LIMIT
"""What is looked at to know that it is base64."""


def document(kind: str, text: bytes, padding: bytes) -> bytes:
    if "event" in kind:
        text = text.replace(b"\n", b" ").replace(b"\r", b" ")
    if kind.startswith("images"):
        return IMAGES % (BASE64 + padding, text, text, text)
    if kind.startswith("image events"):
        return b"data: %b\n\n" % (EVENT % (BASE64 + padding, text, text, text))
    # No call is put together from pieces.
    calls = b"" if kind.startswith("chat events ") else CALLS % text
    chat = CHAT % (text, padding, text, text, calls)
    return b"data: %b\n\ndata: [DONE]\n\n" % chat if kind.startswith("chat events") else chat


def read(kind: str, pieces: list[bytes]) -> tuple[int, bytes]:
    answer = ANSWERS[kind]()
    out = b"".join([*(answer.feed(piece) for piece in pieces), answer.finish()])
    return answer.images, out


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("padding", [b"", b"A" * 70_000], ids=["small", "large"])
@given(text=strings.map(as_string), places=st.lists(st.integers(0, 200_000), max_size=4))
def test_what_leaves_is_valid_json(kind: str, padding: bytes, text: bytes, places: list[int]) -> None:
    body = document(kind, text, padding)
    count, out = read(kind, [body])
    assert count == 1
    assert read(kind, cut(body, places)) == (count, out)
    if ANSWERS[kind]().content_type == JSON:
        check_strict(out)
        assert kind != "images" or len(out) <= len(body)
    else:
        events = [line[6:] for line in out.split(b"\n") if line.startswith(b"data: {")]
        assert events
        assert out.count(b"\n") == out.count(b"\n\n") * 2 + out.count(b"event: ")
        for event in events:
            check_strict(event)


WORST = (
    b"\\", b"\\q", b"\\u", b"\\ud83c", b"\\udfa8\\ud83c", b"\\n", b"\x00", b"\xff", b"\xc3", "é".encode(), b"\\\\\x00",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("unit", WORST, ids=[repr(unit) for unit in WORST])
def test_mending_grows_with_the_text(unit: bytes) -> None:
    texts = {size: unit * (size // len(unit)) for size in (MEGABYTE // 2, MEGABYTE)}
    check_growth(lambda size: mended([texts[size]]), MEGABYTE)
    check_growth(lambda size: mended(cut(texts[size], list(range(0, size, 1_000)))), MEGABYTE)
