from __future__ import annotations

import json
import re
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, cycle
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.domain.parsing.json_shapes import NOTE_BYTES_LIMIT, PASSED, Shape, ShapedScanner, object_of
from proxy.domain.parsing.json_tokens import DEPTH_LIMIT, LITERAL_BYTES_LIMIT, NAME_BYTES_LIMIT, MalformedResponse
from tests.domain.json_documents import (
    TOP_LEVEL,
    Document,
    allowed,
    count_images,
    documents,
    last_usage,
    parse,
    parse_object,
    plain,
)
from tests.support.examples import examples

SHAPE = Shape(
    passes=True,
    members={
        **dict.fromkeys((name.encode() for name in TOP_LEVEL), PASSED),
        b"data": Shape(
            passes=True,
            items=Shape(
                passes=True,
                element=True,
                members={
                    b"url": Shape(passes=True, payload="url"),
                    b"b64_json": Shape(passes=True, payload="b64_json"),
                    b"revised_prompt": PASSED,
                    b"media_type": PASSED,
                },
            ),
        ),
        b"usage": Shape(note="usage", optional=True),
    },
)
"""A shape that passes what it names, with payloads in elements and a note that may be left out."""


class CountingScanner:
    """Reads documents of ``SHAPE``, and counts the elements whose payload came from the first byte to the last."""

    def __init__(self) -> None:
        self.images = 0
        self.usage: bytes | None = None
        self._scanner = ShapedScanner(SHAPE)
        self._is_counted = False
        self._payload_bytes = 0

    @property
    def complete(self) -> bool:
        return self._scanner.complete

    def feed(self, piece: bytes) -> bytes:
        return self._scanner.feed(piece, self)

    def finish(self) -> bytes:
        return self._scanner.finish(self)

    def begin_element(self) -> None:
        self._is_counted = False

    def end_element(self) -> None:
        """It was counted when its payload ended."""

    def begin_payload(self, name: str) -> None:
        self._payload_bytes = 0

    def payload(self, piece: bytes) -> None:
        self._payload_bytes += len(piece)

    def end_payload(self) -> None:
        if self._payload_bytes and not self._is_counted:
            self._is_counted = True
            self.images += 1

    def note(self, name: str, value: bytes) -> None:
        assert name == "usage"
        self.usage = object_of(value) or self.usage


def patient(number: int) -> settings:
    return examples(number, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is to be seen of a scanner after a body; ``error`` is None where ``finish`` was content."""

    output: bytes
    images: int
    usage: bytes | None
    complete: bool
    error: str | None


def read(pieces: Iterable[bytes]) -> Reading:
    scanner = CountingScanner()
    output, error = b"", None
    try:
        for piece in pieces:
            output += scanner.feed(piece)
        output += scanner.finish()
    except MalformedResponse as malformed:
        error = str(malformed)
    return Reading(output, scanner.images, scanner.usage, scanner.complete, error)


def one_by_one(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def cut_by(text: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for size in cycle(sizes):
        if at >= len(text):
            return
        yield text[at : at + size]
        at += size


def with_one_cut(text: bytes) -> Iterator[list[bytes]]:
    """In two pieces, cut at every position; at both ends that makes an empty piece."""
    return ([text[:at], text[at:]] for at in range(len(text) + 1))


sizes_of_pieces = st.lists(st.integers(1, 30), min_size=1, max_size=8)

# --- Every document, cut in every way --------------------------------------------------------------------------------


@given(documents())
@patient(250)
def test_what_comes_out_is_what_the_allow_list_leaves_of_the_document(document: Document) -> None:
    answer = parse_object(document.text)
    assert answer is not None
    reading = read([document.text])
    assert reading.error is None
    assert parse(reading.output) == allowed(answer)
    assert reading.images == count_images(answer)


@given(documents())
@patient(150)
def test_usage_is_kept_for_the_ledger(document: Document) -> None:
    answer = parse_object(document.text)
    assert answer is not None
    usage = read([document.text]).usage
    assert (None if usage is None else json.loads(usage)) == plain(last_usage(answer))


@given(documents(), sizes_of_pieces)
@patient(100)
def test_it_does_not_matter_how_the_body_is_cut(document: Document, sizes: list[int]) -> None:
    whole = read([document.text])
    assert read(one_by_one(document.text)) == whole
    assert read(cut_by(document.text, sizes)) == whole
    for pieces in with_one_cut(document.text):
        assert read(pieces) == whole


@pytest.mark.parametrize(
    "body",
    [
        rb'{"data":[{"url":"https:\\\"a\\","revised_prompt":"\\"}],"x":"\"\\"}',
        rb'{"d\u0061ta":[{"x":["\\\"","\\"],"url":"https:\\"}],"a\"\\":[{"]":"\\"}]}',
    ],
    ids=["strings", "dropped strings and names"],
)
def test_backslashes_are_counted_across_every_two_cuts(body: bytes) -> None:
    whole = read([body])
    assert (whole.images, whole.error) == (1, None)
    for first, second in combinations(range(len(body) + 1), 2):
        assert read([body[:first], body[first:second], body[second:]]) == whole


@given(documents())
@patient(60)
def test_a_body_that_ends_early_is_malformed_and_its_images_are_those_whose_payload_was_whole(
    document: Document,
) -> None:
    for end in range(len(document.text.rstrip())):
        reading = read([document.text[:end]])
        assert reading.error == "the body ends in the middle of the answer"
        assert not reading.complete
        assert reading.images == sum(payload_end <= end for payload_end in document.payload_ends)


def test_billing_stays_inside() -> None:
    body = rb"""
        {"created": 1744000000, "cost": 0.04, "model": "image-1-internal", "provider": {"name": "acme"},
         "usage": {"total_tokens": 4160, "input_tokens_details": {"text_tokens": 50}},
         "data": [{"b64_json": "iVBORw0KGgo=", "revised_prompt": "a \"cube\"", "cost": 0.2, "data": [{"url": "a"}]},
                  {"url": "https:\/\/images.example\/2.png", "usage": {"total_tokens": 1}, "media_type": "image/png"}],
         "background": "opaque", "output_format": "png", "quality": "high", "size": "1024x1024", "x_billing": [1]}
    """
    reading = read([body])
    assert reading.output == (
        rb'{"created":1744000000,"data":[{"b64_json":"iVBORw0KGgo=","revised_prompt":"a \"cube\""},'
        rb'{"url":"https:\/\/images.example\/2.png","media_type":"image/png"}],'
        rb'"background":"opaque","output_format":"png","quality":"high","size":"1024x1024"}'
    )
    assert reading.images == 2
    assert orjson.loads(reading.usage or b"") == {
        "total_tokens": 4160,
        "input_tokens_details": {"text_tokens": 50},
    }


def test_what_follows_in_the_body_is_not_waited_for() -> None:
    scanner = CountingScanner()
    assert scanner.feed(b' { "created" : 17') == b"{"
    assert scanner.feed(b'44, "usage": {}, "data": [ {"b64_json": "iVBO') == b'"created":1744,"data":[{"b64_json":"iVBO'
    assert (scanner.feed(b"Rw0K"), scanner.images) == (b"Rw0K", 0)
    assert (scanner.feed(b'"'), scanner.images) == (b'"', 1)
    assert not scanner.complete
    assert (scanner.feed(b"}]}"), scanner.complete) == (b"}]}", True)


# --- What counts as an image ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "images"),
    [
        (b"{}", 0),
        (b'{"url": "https://images.example/1.png"}', 1),
        (b'{"b64_json": "iVBORw0KGgo="}', 1),
        (b'{"b64_json": "iVBORw0KGgo=", "url": "https://images.example/1.png"}', 1),
        (b'{"url": ""}', 0),
        (b'{"url": null}', 0),
        (b'{"url": "", "b64_json": "iVBORw0KGgo="}', 1),
        (b'{"url": null, "b64_json": "iVBORw0KGgo="}', 1),
        (b'{"b64_json": "iVBORw0KGgo=", "url": ""}', 1),
        (b'{"url": 5}', 0),
        (b'{"url": true}', 0),
        (b'{"url": {"url": "https://images.example/1.png"}}', 0),
        (b'{"url": ["https://images.example/1.png"]}', 0),
        (b'{"image": {"url": "https://images.example/1.png"}}', 0),
        (b'{"data": [{"url": "https://images.example/1.png"}]}', 0),
        (b'{"revised_prompt": "a cube", "media_type": "image/png"}', 0),
        (b'{"URL": "https://images.example/1.png"}', 0),
        (rb'{"\u0075rl": "https://images.example/1.png"}', 1),
        (rb'{"b64\u005Fjson": "iVBORw0KGgo="}', 1),
        (rb'{"url": "https:\""}', 1),
        (rb'{"url": "https:\\"}', 1),
    ],
)
def test_an_image_is_an_object_in_data_with_a_payload_that_is_not_empty(image: bytes, images: int) -> None:
    body = b'{"data": [%b]}' % image
    assert (read([body]).images, read([body]).error) == (images, None)
    assert read(one_by_one(body)) == read([body])
    assert read([b'{"data": [%b, %b, {"url": "http:x"}]}' % (image, image)]).images == 2 * images + 1


@pytest.mark.parametrize("place", [b'{"%b": "x", "data": []}', b'{"a": {"%b": "x"}, "data": []}'])
def test_a_payload_outside_of_data_is_no_image(place: bytes) -> None:
    assert read([place % b"url"]) == Reading(b'{"data":[]}', 0, None, True, None)


@pytest.mark.parametrize("data", [b"[]", b"null", b"[{}]", b'[{"url":"http:x"}]', b'[{},{"url":"http:x"}]'])
def test_members_stand_before_and_after_data_of_any_length(data: bytes) -> None:
    for body in (b'{"data":%b,"size":"1x1"}', b'{"size":"1x1","data":%b}', b'{"size":"1x1","data":%b,"created":1}'):
        assert read([body % data]).output == body % data


@pytest.mark.parametrize("body", [b'{"data":[]}', b'{"data":null}', rb'{"d\u0061ta": null, "usage": null}'])
def test_an_answer_without_images_is_a_good_answer(body: bytes) -> None:
    reading = read([body])
    assert (reading.images, reading.usage, reading.complete, reading.error) == (0, None, True, None)
    assert not json.loads(reading.output)["data"]


# --- Lengths ----------------------------------------------------------------------------------------------------------


def check_unchanged(body: bytes) -> None:
    expected = Reading(body, 1, None, True, None)
    for pieces in ([body], one_by_one(body), cut_by(body, [7]), [body[:-30], body[-30:]]):
        assert read(pieces) == expected


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 255, 256, 257, 511, 512, 513, 1_023, 1_024, 1_025, 70_000])
def test_a_string_of_any_length_is_passed_on(length: int) -> None:
    check_unchanged(b'{"size":"%b","data":[{"url":"https:%b"}]}' % (b"1" * length, b"x" * length))


def test_a_number_of_any_length_within_the_limit_is_passed_on() -> None:
    for length in range(4, LITERAL_BYTES_LIMIT + 1):
        for number in (b"9" * length, b"0." + b"9" * (length - 2), b"-" + b"9" * (length - 3) + b".5"):
            check_unchanged(b'{"created":%b,"data":[{"url":"http:x"}]}' % number)


def test_a_name_of_any_length_within_the_limit_is_dropped_unless_it_is_allowed() -> None:
    for length in range(NAME_BYTES_LIMIT + 1):
        body = b'{"%b":1,"data":[{"%b":"x","url":"http:x"}]}' % (b"n" * length, b"n" * length)
        for pieces in ([body], one_by_one(body)):
            assert read(pieces) == Reading(b'{"data":[{"url":"http:x"}]}', 1, None, True, None)


# --- Limits -----------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"data":[],"x":' + b"[" * depth + b"]" * depth + b"}"


def named(length: int) -> bytes:
    return b'{"data":[],"%b":1}' % (b"n" * length)


def numbered(length: int) -> bytes:
    return b'{"data":[],"created":%b}' % (b"1" * length)


@pytest.mark.parametrize(
    ("within", "past", "error"),
    [
        (nested(DEPTH_LIMIT - 1), nested(DEPTH_LIMIT), "a value is nested too deeply"),
        (named(NAME_BYTES_LIMIT), named(NAME_BYTES_LIMIT + 1), "a name is too long"),
        (numbered(LITERAL_BYTES_LIMIT), numbered(LITERAL_BYTES_LIMIT + 1), "a number is too long"),
    ],
)
def test_there_is_a_limit_on_depth_names_and_numbers(within: bytes, past: bytes, error: str) -> None:
    assert read([within]).error is None
    for pieces in ([past], one_by_one(past), *with_one_cut(past)):
        assert read(pieces).error == error


def usage_of(length: int) -> bytes:
    return b'{"a":"%b"}' % (b"u" * (length - 8))


def test_a_usage_larger_than_its_limit_is_dropped_and_the_images_are_passed_on() -> None:
    for length, kept in ((NOTE_BYTES_LIMIT, True), (NOTE_BYTES_LIMIT + 1, False)):
        usage = usage_of(length)
        assert len(usage) == length
        body = b'{"usage":%b,"data":[{"url":"http:x"}]}' % usage
        for pieces in ([body], cut_by(body, [1_000]), one_by_one(body)):
            expected = Reading(b'{"data":[{"url":"http:x"}]}', 1, usage if kept else None, True, None)
            assert read(pieces) == expected


@pytest.mark.parametrize("usage", [b"[1]", b"5", b'"much"', b"null", b"{1}", b'{"a":nan}', b'{"a":"\xff"}', b"{a}"])
def test_a_usage_that_is_no_object_of_json_is_dropped_and_the_images_are_passed_on(usage: bytes) -> None:
    reading = read([b'{"usage":%b,"data":[{"url":"http:x"}]}' % usage])
    assert reading == Reading(b'{"data":[{"url":"http:x"}]}', 1, None, True, None)


@pytest.mark.parametrize(
    ("before", "more"),
    [
        (b'{"data":[{"b64_json":"', b"a"),
        (b'{"data":[{"b64_json":"', b"\\n"),
        (b'{"data":[{"extra":"', b"a"),
        (b'{"data":[{"extra":{"a":["', b"a"),
        (b'{"data":[{"extra":{"a":["', rb"\\\""),
        (b'{"data":[],"extra":[', b"1,"),
        (b'{"data":[],"extra":[', b'"a",'),
        (b'{"data":[],"extra":[', b'{"a":["a"]},'),
        (b'{"usage":{"a":"', b"a"),
        (b'{"usage":{"a":[', b'{"a":["a"]},'),
        (b'{"usage":{"a":', b" "),
        (b'{"usage":', b" "),
    ],
    ids=lambda value: value.decode(),
)
def test_memory_does_not_grow_with_the_answer(before: bytes, more: bytes) -> None:
    piece = more * (65_536 // len(more))
    scanner = CountingScanner()
    scanner.feed(before)
    tracemalloc.start()
    try:
        for _ in range(128 if len(more) == 1 else 8):  # 8 MiB, or half of one where there is more to do in each
            scanner.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300_000


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b'{"data":[],"dropped":"', rb"\"" * 4096),
        (b'{"data":[],"dropped":"', rb"\\" * 4096),
        (b'{"data":[],"dropped":["', rb"\"" * 4096),
        (b'{"data":[],"dropped":["x"', rb',"\""' * 2048),
        (b'{"data":[{"b64_json":"', rb"\"x" * 4096),
    ],
)
def test_escapes_are_read_as_fast_as_anything_else(before: bytes, piece: bytes) -> None:
    scanner = CountingScanner()
    scanner.feed(before)
    began = time.process_time()
    for _ in range(8 * 2**20 // len(piece)):
        scanner.feed(piece)
    assert time.process_time() - began < 2


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    scanner = CountingScanner()
    scanner.feed(b'{"data":[{"url":"http:x"}')
    piece = b',{"url":"http:x"}' * 100
    tracemalloc.start()
    try:
        for _ in range(90):
            scanner.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert scanner.images == 9_001
    assert peak < 100_000


# --- What is not an images answer -------------------------------------------------------------------------------------

MALFORMED = {
    # The body
    "no bytes": b"",
    "only blanks": b" \r\n\t ",
    "a byte order mark": b'\xef\xbb\xbf{"data":[]}',
    "text": b"Bad Gateway",
    "UTF-16": '{"data":[]}'.encode("utf-16-le"),
    "what ends a stream, in the middle": b'{"data":[]data: [DONE]}',
    "a comment": b'{"data":[]/* none */}',
    "a comment of one line": b'// none\n{"data":[]}',
    # Commas and colons
    "a trailing comma": b'{"data":[],}',
    "a trailing comma in data": b'{"data":[{"url":"http:x"},]}',
    "a trailing comma in an image": b'{"data":[{"url":"http:x",}]}',
    "a leading comma": b'{,"data":[]}',
    "a leading comma in data": b'{"data":[,{"url":"http:x"}]}',
    "a leading comma in an image": b'{"data":[{,"url":"http:x"}]}',
    "two commas": b'{"created":1,,"data":[]}',
    "no comma": b'{"created":1 "data":[]}',
    "no comma after a string": b'{"size":"1x1""data":[]}',
    "no comma in data": b'{"data":[{"url":"http:x"}{"url":"http:x"}]}',
    "no comma in an image": b'{"data":[{"url":"http:x" "b64_json":"x"}]}',
    "a semicolon": b'{"created":1;"data":[]}',
    "no colon": b'{"data" []}',
    "no colon after an escaped name": rb'{"d\u0061ta" []}',
    "two colons": b'{"data"::[]}',
    "an equals sign": b'{"data"=[]}',
    "a name alone": b'{"data"}',
    "no value": b'{"data":}',
    "no value before a comma": b'{"created":,"data":[]}',
    "no value for a dropped name": b'{"cost":,"data":[]}',
    # Brackets
    "an object not closed": b'{"data":[]',
    "data not closed": b'{"data":[{"url":"http:x"}',
    "data closed as an object": b'{"data":[}',
    "data closed twice": b'{"data":[]]}',
    "an image not closed": b'{"data":[{"url":"http:x"',
    "an image closed as an array": b'{"data":[{"url":"http:x"]]}',
    "the answer closed as an array": b'{"data":[]]',
    "a dropped array closed as an object": b'{"x":[1},"data":[]}',
    "a dropped object closed as an array": b'{"x":{"a":1],"data":[]}',
    "dropped brackets crossed": b'{"x":[{"a":[1}]],"data":[]}',
    "a dropped array not closed": b'{"data":[],"x":[[1]}',
    "the answer opened as an array": b'["data":[]}',
    "an image opened as an array": b'{"data":[["url":"http:x"}]}',
    "data closed as an object after an image": b'{"data":[{"url":"http:x"}}}',
    "an image closed with a quote": b'{"data":[{"url":"http:x"""]}',
    "brackets of another kind": b'("data":[])',
    "nested too deeply": b'{"data":[],"x":' + b'{"a":' * 65 + b"1" + b"}" * 65 + b"}",
    # Words and numbers
    "True": b'{"created":True,"data":[]}',
    "None": b'{"created":None,"data":[]}',
    "undefined": b'{"created":undefined,"data":[]}',
    "half a word": b'{"created":nul,"data":[]}',
    "a word too long": b'{"created":nulll,"data":[]}',
    "two words": b'{"created":null null,"data":[]}',
    "NaN": b'{"created":NaN,"data":[]}',
    "NaN in a dropped value": b'{"cost":NaN,"data":[]}',
    "Infinity": b'{"created":Infinity,"data":[]}',
    "-Infinity": b'{"created":-Infinity,"data":[]}',
    "a leading zero": b'{"created":01,"data":[]}',
    "a negative leading zero": b'{"created":-01,"data":[]}',
    "a leading plus": b'{"created":+1,"data":[]}',
    "a minus alone": b'{"created":-,"data":[]}',
    "two minuses": b'{"created":--1,"data":[]}',
    "a point at the end": b'{"created":1.,"data":[]}',
    "a point at the start": b'{"created":.5,"data":[]}',
    "two points": b'{"created":1.2.3,"data":[]}',
    "no exponent": b'{"created":1e,"data":[]}',
    "a sign for an exponent": b'{"created":1e+,"data":[]}',
    "hexadecimal": b'{"created":0x1F,"data":[]}',
    "digits set apart": b'{"created":1_000,"data":[]}',
    "a number too long": b'{"created":1%b,"data":[]}' % (b"0" * 64),
    "a number that the body ends in": b'{"data":[],"created":1',
    "a word in an image": b'{"data":[{"url":yes}]}',
    # Strings and names
    "single quotes": b"{'data':[]}",
    "a value in single quotes": b'{"size":\'1x1\',"data":[]}',
    "a name with a single quote": b"{'data\":[]}",
    "a name without its first quote": b'{data":[]}',
    "a bare name": b"{data:[]}",
    "a number as a name": b'{1:2,"data":[]}',
    "null as a name": b'{null:2,"data":[]}',
    "a string not closed": b'{"data":[{"url":"http:x}]}',
    "a string whose end is escaped": rb'{"data":[{"url":"http:x\"}]}',
    "a string whose end is escaped after backslashes": rb'{"data":[{"url":"http:x\\\"}]}',
    "a string closed after two backslashes": rb'{"data":[{"url":"http:x\\" "}]}',
    "a dropped string not closed": b'{"data":[],"x":"}',
    "a nested string not closed": b'{"data":[],"x":["]}',
    "a name not closed": b'{"data:[]}',
    "an unknown escape in a name": rb'{"d\xata":1,"data":[]}',
    "half an escape in a name": rb'{"d\u00":1,"data":[]}',
    "half a surrogate pair in a name": rb'{"\ud83d":1,"data":[]}',
    "a tab in a name": b'{"da\tta":1,"data":[]}',
    "a name that is not UTF-8": b'{"d\xe9":1,"data":[]}',
    "a name too long": b'{"%b":1,"data":[]}' % (b"n" * 257),
    "a name too long and not closed": b'{"%b' % (b"n" * 300),
    "a blank that is none": b'{\x0b"data":[]}',
    "a blank that does not break": '{"data":\xa0[]}'.encode(),
    "a zero byte": b'{"data":\x00[]}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_json_is_malformed_however_it_is_cut(body: bytes) -> None:
    reading = read(one_by_one(body))
    assert reading.error is not None
    assert read([body, b""]).error == read([body]).error
    for pieces in ([body], *with_one_cut(body)):
        other = read(pieces)
        assert (other.error, other.images, other.complete) == (reading.error, reading.images, reading.complete)
        # A piece with a mistake in it is held back as a whole; what went out before is the same.
        assert reading.output.startswith(other.output)


@pytest.mark.parametrize("name", MALFORMED)
def test_an_ordinary_parser_refuses_the_same_but_what_is_past_a_limit(name: str) -> None:
    past_a_limit = name in {"nested too deeply", "a number too long", "a name too long"}
    assert (parse_object(MALFORMED[name]) is None) == (not past_a_limit)


@pytest.mark.parametrize(
    "end", [b"data: [DONE]", b"\n\ndata: [DONE]\n\n", b"data:", b' data:{"data":[}', b"\r\ndata:data:", b"\ndat"]
)
def test_what_ends_a_stream_may_follow_a_document(end: bytes) -> None:
    body = b'{"data":[{"url":"http:x"}]}'
    for pieces in ([body + end], one_by_one(body + end), *with_one_cut(body + end)):
        assert read(pieces) == Reading(body, 1, None, True, None)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'{"data":{"url":"http:x"}}', b"{}"),
        (b'{"data":"x"}', b'{"data":"x"}'),
        (b'{"data":[[{"url":"http:x"}],null,1,"x",{}]}', b'{"data":[null,1,"x",{}]}'),
        (rb'{"data":[],"d\u0061ta":null}', rb'{"data":[],"d\u0061ta":null}'),
        (b"{}", b"{}"),
        (b"[]", b""),
        (b'[{"data":[]}]', b""),
        (b'"data"', b'"data"'),
        (b"12 ", b"12"),
        (b"null", b"null"),
    ],
)
def test_what_does_not_fit_its_shape_is_left_out_and_what_is_flat_passes(body: bytes, output: bytes) -> None:
    for pieces in ([body], one_by_one(body), *with_one_cut(body)):
        assert read(pieces) == Reading(output, 0, None, True, None)


@pytest.mark.parametrize(("length", "is_passed"), [(65, False), (66, True), (5_000, True)])
def test_base64_of_a_known_kind_passes_where_an_address_is_expected(length: int, *, is_passed: bool) -> None:
    data = b"iVBORw0KGgo".ljust(length, b"A")
    body = b'{"data":[{"url":"%b"}]}' % data
    expected = Reading(body if is_passed else b'{"data":[{}]}', int(is_passed), None, True, None)
    for pieces in ([body], one_by_one(body), cut_by(body, [7])):
        assert read(pieces) == expected


# --- Bytes that were never meant --------------------------------------------------------------------------------------

_HALF_PAIR = re.compile("[\ud800-\udfff]")

DAMAGE = b'{}[]",:\\ 0n1-.eu\x00\xff\n'
damages = st.lists(
    st.tuples(st.sampled_from(["replace", "insert", "delete", "swap"]), st.integers(0, 2**16), st.sampled_from(DAMAGE)),
    min_size=1,
    max_size=3,
)


def damage(text: bytes, strokes: list[tuple[str, int, int]]) -> bytes:
    for stroke, place, byte in strokes:
        at = place % len(text)
        if stroke == "insert":
            text = text[:at] + bytes([byte]) + text[at:]
        elif stroke == "swap":
            text = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
        else:
            text = text[:at] + (bytes([byte]) if stroke == "replace" else b"") + text[at + 1 :]
    return text


def mended(value: Any) -> Any:
    """The value with halves of surrogate pairs as they are passed on."""
    if isinstance(value, tuple):
        return tuple(mended(one) for one in value)
    if isinstance(value, list):
        return [mended(one) for one in value]
    return _HALF_PAIR.sub("\ufffd", value) if isinstance(value, str) else value


def check_any(body: bytes, sizes: list[int]) -> None:
    reading = read([body])
    answer = parse_object(body)
    if answer is not None:
        assert reading.error is None
        assert parse(reading.output) == mended(allowed(answer))
        assert reading.images == count_images(answer)
    elif reading.error is None and reading.output.startswith(b"{"):
        out = parse_object(reading.output)
        assert out is not None
        assert allowed(out) == out
        assert {name for name, _ in out} <= TOP_LEVEL
        assert reading.images <= reading.output.count(b"{") - 1
    for pieces in (one_by_one(body), cut_by(body, sizes)):
        other = read(pieces)
        assert (other.error, other.images, other.usage) == (reading.error, reading.images, reading.usage)
        assert other.output.startswith(reading.output)
        assert reading.error is not None or other.output == reading.output


@given(documents(), damages, sizes_of_pieces)
@patient(500)
@example(Document(rb'{"data":[{"url":"http:a"}]}', ()), [("insert", 22, ord("\\"))], [3])
@example(Document(rb'{"data":[{"url":"http:a"}]}', ()), [("insert", 17, ord("\\"))], [3])
def test_a_damaged_answer_is_malformed_or_passed_on_in_form(
    document: Document, strokes: list[tuple[str, int, int]], sizes: list[int]
) -> None:
    check_any(damage(document.text, strokes), sizes)


TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b'"data":', b'"url":', b'"x"', b'"http:x"', b"[{",
    b"}]", b"1", b"null", b'"usage":', b"\xc3", b"\xa9", b"-",
]  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join), st.binary(max_size=8), sizes_of_pieces)
@patient(300)
def test_any_bytes_are_malformed_or_passed_on_in_form(tokens: bytes, noise: bytes, sizes: list[int]) -> None:
    in_an_image, dropped = b'{"data":[{"url":"http:x"},{%b}]}' % tokens, b'{"data":[],"x":%b}' % tokens
    for body in (noise, tokens + noise, in_an_image, dropped):
        check_any(body, sizes)


def test_half_of_a_surrogate_pair_in_a_string_is_passed_on_as_a_mark_of_what_is_unknown() -> None:
    assert read([rb'{"data":[{"revised_prompt":"\ud83d"}]}']).output == rb'{"data":[{"revised_prompt":"\ufffd"}]}'


def test_a_number_that_no_double_holds_is_passed_on_as_it_came() -> None:
    body = b'{"created":123456789012345678901234567890,"size":1e400,"data":[]}'
    assert read([body]).output == body
