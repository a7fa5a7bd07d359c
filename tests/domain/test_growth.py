"""Nothing that a client or a provider sends takes time by its square: each reader is fed the worst there is for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

import pytest

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.writing import ChatHead
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.counter import CountedImages, SeenImages
from proxy.domain.answers.images.in_text import TextImages
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.image_header import SizeProbe
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.requests.chat import ChatRequest, parse_chat_request
from proxy.domain.requests.edit import FieldKind, parse_edit_request
from proxy.domain.requests.image import parse_image_request
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.errors.failures import clean, error_in_answer
from proxy.upstream.errors.reports import ErrorReport
from proxy.web.intake.form_reader import FormLimits, FormReader
from tests.support.forms import BOUNDARY, FORM
from tests.support.growth import check_growth
from tests.support.sources import Bytes

pytestmark = pytest.mark.slow

SIZE = 2**17
"""Enough for what takes time by its square, even a billionth of a second for each, to take 17 seconds."""
HEAD = ChatHead("chatcmpl-1", 1_764_000_000, "acme/chat")


def fill(unit: str, before: str = "", after: str = "") -> Callable[[int], bytes]:
    """A text of a given size, ``unit`` over and over between two others."""

    def of_size(size: int) -> bytes:
        return (before + unit * (size // len(unit.encode())) + after).encode()

    return of_size


# --- Text ------------------------------------------------------------------------------------------------------------

TEXTS = {
    "letters": fill("a"),
    "digits": fill("7"),
    "letters and digits": fill("a1"),
    "blanks": fill(" "),
    "words": fill("word "),
    "beginnings of keys": fill("sk-"),
    "beginnings of tokens": fill("Bearer "),
    "a token of blanks": fill(" ", "Bearer"),
    "addresses": fill("http://"),
    "backslashes": fill("\\"),
    "escapes": fill("\\u002f"),
    "percents": fill("%25"),
    "control characters": fill("\x00"),
    "quotes": fill('"'),
    "no ASCII": fill("é"),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_cleaning_a_providers_words(text: Callable[[int], bytes]) -> None:
    texts = {size: text(size).decode() for size in (SIZE // 2, SIZE)}
    check_growth(lambda size: clean(texts[size]), SIZE)
    check_growth(lambda size: error_in_answer(ErrorReport(texts[size], texts[size], texts[size])), SIZE)


IN_TEXT = {
    **TEXTS,
    "images begun": fill("!["),
    "links begun": fill("]("),
    "links into blanks": fill("](\\n\\t "),
    "references begun": fill("]: "),
    "sources begun": fill("src="),
    "addresses begun": fill("data:image/png;"),
    "addresses with parameters": fill(";a", "![](data:image/png"),
    "images cut short": fill("![](data:image/png;base64,AAAA"),
    "images": fill("![](data:image/png;base64,AAAA)"),
    "links": fill("![](https://images.example/1.png) "),
    "escaped base64": fill("\\u002b", "![](data:image/png;base64,"),
}


@pytest.mark.parametrize("text", IN_TEXT.values(), ids=IN_TEXT)
def test_finding_images_in_text(text: Callable[[int], bytes]) -> None:
    def find(size: int) -> None:
        images, sink = TextImages(), CountedImages(SeenImages())
        with contextlib.suppress(MalformedResponse):
            images.add(text(size), sink)
            images.end(sink)

    check_growth(find, SIZE)


@pytest.mark.parametrize("text", [fill("A"), fill("\\/"), fill("iVBORw0KGgo"), fill("/9j/4AAQ")])
def test_reading_the_size_of_an_image(text: Callable[[int], bytes]) -> None:
    def probe(size: int) -> None:
        reader = SizeProbe()
        reader.begin()
        reader.add(text(size))
        assert reader.size() is None

    check_growth(probe, SIZE)


# --- Answers ---------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "members": fill('"a":1,', "{", '"b":1}'),
    "members of one name": fill('"usage":{},', "{", '"b":1}'),
    "long names": fill("n", '{"', '":1}'),
    "names of escapes": fill("\\u0061", '{"', '":1}'),
    "nesting": fill("["),
    "nesting of objects": fill('{"a":'),
    "an array of numbers": fill("1,", '{"data":[', "1]}"),
    "an array of objects": fill("{},", '{"data":[', "{}]}"),
    "blanks": fill(" ", "{", "}"),
    "images of every kind": fill(
        '{"b64_json":"AAAA"},"iVBORw0KGgo",{"inlineData":{"data":"AAAA"}},{"image":{"url":"https://a.example/1"}},',
        '{"data":[',
        "{}]}",
    ),
    "what is no image": fill('{"url":"javascript:x"},"x",', '{"images":[', "{}]}"),
    "documents in an array": fill('{"data":[{"b64_json":"AAAA"}]},', "[", "{}]"),
    "signatures": fill(
        '{"inlineData":{"data":"AAAA"},"thoughtSignature":"BBBB"},', '{"candidates":[{"content":{"parts":[', "{}]}}]}"
    ),
    "a long signature": fill("A", '{"candidates":[{"content":{"parts":[{"text":"x","thoughtSignature":"', '"}]}}]}'),
    "ends of a stream": fill("data: [DONE]\n\n", '{"data":[]}'),
    "images without an end": fill('{"url":"https://a.example/1"},', '{"data":['),
    "one long string": fill("A", '{"data":[{"b64_json":"', '"}]}'),
    "a string of escapes": fill("\\u0041", '{"data":[{"b64_json":"', '"}]}'),
    "a string of backslashes": fill("\\\\", '{"data":[{"b64_json":"', '"}]}'),
    "a long number": fill("1", '{"created":', "}"),
    "a note": fill("x", '{"error":{"message":"', '"}}'),
    "a long usage": fill('"a":1,', '{"usage":{', '"b":1}}'),
    "choices": fill('{"message":{"content":"x"}},', '{"choices":[', "{}]}"),
    "parts": fill('{"type":"text","text":"x"},', '{"choices":[{"message":{"content":[', "{}]}}]}"),
    "images of a message": fill(
        '{"image_url":{"url":"data:image/png;base64,AAAA"}},', '{"choices":[{"message":{"images":[', "{}]}}]}"
    ),
    "text of a message": fill("![](", '{"choices":[{"message":{"content":"', '"}}]}'),
    "candidates": fill('{"content":{"parts":[{"text":"x"}]}},', '{"candidates":[', "{}]}"),
    "thoughts": fill('{"text":"x","thought":true},', '{"candidates":[{"content":{"parts":[', "{}]}}]}"),
}
EVENTS = {
    "blank lines": fill("\n"),
    "carriage returns": fill("\r"),
    "lines that end in CR": fill("data: {}\r\r"),
    "lines that end in CR within one event": fill("data:\r"),
    "fields that nobody knows, ended by CR": fill("id: 1\r"),
    "comments": fill(":\n"),
    "comments that end in CR": fill(":\r"),
    "comments within an event": fill(":\n", "data: {\n"),
    "one long comment": fill("x", ":"),
    "one long field": fill("x"),
    "names": fill("event: x\n"),
    "one long name": fill("x", "event: "),
    "small events": fill("data: {}\n\n"),
    "empty data": fill("data\n"),
    "documents in pieces": fill("data: [\n", "data: "),
    "the last word": fill("data: [DONE]\n\n"),
    "deltas": fill('data: {"choices":[{"delta":{"content":"x"}}]}\n\n'),
    "images": fill('data: {"type":"image_generation.completed","b64_json":"AAAA"}\n\n'),
    "images in the text": fill('data: {"choices":[{"delta":{"content":"![](https://a.example/1) "}}]}\n\n'),
    "partial images": fill('data: {"type":"image_generation.partial_image","b64_json":"AAAA"}\n\n'),
    "candidates": fill('data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\n\n'),
}


def chat_request(*, stream: bool) -> ChatRequest:
    return parse_chat_request(
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"stream":%b}' % (b"true" if stream else b"false")
    )


def readers(*, events: bool) -> dict[str, Callable[[], Answer]]:
    """One of each class that reads such answers."""
    found: dict[str, Callable[[], Answer]] = {}
    for dialect in DIALECTS.values():
        for stream in (False, True):
            makers: list[Callable[[], Answer]] = [
                partial(read_images, dialect.reading, ImagesHead(0), comes_as_events=events, stream=stream)
            ]
            if dialect.chat is not None:
                makers.append(partial(dialect.chat.read, chat_request(stream=stream), HEAD, comes_as_events=events))
            for make in makers:
                answer = make()
                writer = getattr(answer, "_writer", None)
                name = f"{type(answer).__name__} {'' if writer is None else type(writer).__name__}".strip()
                found.setdefault(name, make)
    return found


def read(make: Callable[[], Answer], text: bytes) -> None:
    answer = make()
    try:
        # All at once, which may cost more than in pieces, and never less.
        answer.feed(text)
        answer.finish()
    except (MalformedResponse, ProxyError):
        answer.break_off()


@pytest.mark.parametrize("make", readers(events=False).values(), ids=readers(events=False))
@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_reading_a_document(make: Callable[[], Answer], text: Callable[[int], bytes]) -> None:
    check_growth(lambda size: read(make, text(size)), SIZE)


@pytest.mark.parametrize("make", readers(events=True).values(), ids=readers(events=True))
@pytest.mark.parametrize("text", EVENTS.values(), ids=EVENTS)
def test_reading_events(make: Callable[[], Answer], text: Callable[[int], bytes]) -> None:
    check_growth(lambda size: read(make, text(size)), SIZE)


# --- Requests --------------------------------------------------------------------------------------------------------

REQUESTS = {
    "fields": fill('"a":1,', "{", '"b":1}'),
    "a long field name": fill("a", '{"', '":1}'),
    "nesting": fill("[", '{"prompt":"x","image_config":', ""),
    "a long prompt": fill("x", '{"prompt":"', '"}'),
    "a long size": fill("1", '{"prompt":"x","size":"', '"}'),
    "a size of blanks": fill(" ", '{"prompt":"x","size":"4', 'K"}'),
    "a size of crosses": fill("x", '{"prompt":"x","size":"1', '1"}'),
    "a long ratio": fill("1:", '{"prompt":"x","image_config":{"aspect_ratio":"', '"}}'),
    "images": fill('{"image_url":"https://a.example/1"},', '{"prompt":"x","images":[', "{}]}"),
    "an address": fill(";a", '{"prompt":"x","images":[{"image_url":"data:image/png', '"}]}'),
    "messages": fill('{"role":"user","content":"x"},', '{"model":"a","messages":[', '{"role":"user"}]}'),
    "parts": fill('{"type":"text"},', '{"model":"a","messages":[{"role":"user","content":[', "{}]}]}"),
}


@pytest.mark.parametrize("parse", [parse_image_request, parse_edit_request, parse_chat_request])
@pytest.mark.parametrize("text", REQUESTS.values(), ids=REQUESTS)
def test_reading_a_request(parse: Callable[[bytes], object], text: Callable[[int], bytes]) -> None:
    texts = {size: text(size) for size in (SIZE // 2, SIZE)}

    def work(size: int) -> None:
        with contextlib.suppress(ProxyError):
            parse(texts[size])

    check_growth(work, SIZE)


FORMS = {
    "line ends": fill("\r\n"),
    "dashes": fill("-"),
    "boundaries": fill(f"\r\n--{BOUNDARY}", f"--{BOUNDARY}"),
    "boundaries begun": fill(
        f"\r\n--{BOUNDARY[:-1]}", f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    ),
    "line ends in a file": fill(
        "\r", f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    ),
    "a long header": fill("x", f"--{BOUNDARY}\r\nContent-Disposition: "),
    "headers": fill("a: b\r\n", f"--{BOUNDARY}\r\n"),
    "parameters": fill('; a="b"', f"--{BOUNDARY}\r\nContent-Disposition: form-data"),
    "texts": fill(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_reading_a_form(text: Callable[[int], bytes]) -> None:
    limits = FormLimits(max_files=3, max_file_bytes=2 * SIZE, max_text_bytes=2 * SIZE)

    def work(size: int) -> None:
        form = FormReader(FORM, limits, Bytes(), lambda name: FieldKind.FILE if name == "image" else FieldKind.TEXT)
        with contextlib.suppress(ProxyError):
            form.feed(text(size))
            form.finish()

    check_growth(work, SIZE)
