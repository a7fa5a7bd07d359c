from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.parsing.json_shapes import NOTE_BYTES_LIMIT, PASSED, WHOLE, Shape, ShapedScanner, object_of
from proxy.domain.parsing.json_tokens import DEPTH_LIMIT, LITERAL_BYTES_LIMIT, NAME_BYTES_LIMIT, MalformedResponse
from tests.domain.json_documents import is_address
from tests.support.examples import examples

PICTURE = Shape(passes=True, element=True, members={b"url": Shape(passes=True, payload="url"), b"kind": PASSED})
SHAPE = Shape(
    passes=True,
    members={
        b"a": PASSED,
        b"whole": WHOLE,
        b"model": Shape(passes=True, constant="model"),
        b"usage": Shape(note="usage"),
        b"tokens": Shape(passes=True, note="tokens", members={b"a": PASSED}),
        b"pictures": Shape(passes=True, items=PICTURE),
        b"hidden": Shape(items=Shape(members={b"url": Shape(payload="url")})),
        b"in": Shape(passes=True, members={b"a": PASSED, b"pictures": Shape(passes=True, items=PICTURE)}),
    },
)


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []

    def begin_element(self) -> None:
        self.told.append(("picture", b"begin"))

    def end_element(self) -> None:
        self.told.append(("picture", b"end"))

    def begin_payload(self, name: str) -> None:
        self.told.append((name, b""))

    def payload(self, piece: bytes) -> None:
        name, before = self.told.pop()
        self.told.append((name, before + piece))

    def end_payload(self) -> None:
        self.told.append(("end", b""))

    def note(self, name: str, value: bytes) -> None:
        self.told.append((name, value))


class Deaf(Heard):
    def payload(self, piece: bytes) -> None:
        """Keep nothing."""


def read(pieces: Iterable[bytes]) -> tuple[bytes, list[tuple[str, bytes]], str | None]:
    heard, output, error = Heard(), b"", None
    scanner = ShapedScanner(SHAPE, {"model": b'"ours"'})
    try:
        for piece in pieces:
            output += scanner.feed(piece, heard)
        output += scanner.finish(heard)
        error = "something follows the end" if scanner.rest else None
    except MalformedResponse as malformed:
        error = str(malformed)
    return output, heard.told, error


def one_by_one(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def passed(value: Any, shape: Shape) -> Any:
    """What the shape leaves of a value that it lets pass."""
    if shape.whole:
        return value
    if isinstance(value, dict):
        return {
            name: "ours" if inner.constant and not isinstance(value[name], dict | list) else passed(value[name], inner)
            for name in value
            if (inner := shape.members.get(name.encode())) and _fits(value[name], inner)
        }
    if isinstance(value, list):
        return [passed(one, shape.items) for one in value if shape.items and _fits(one, shape.items)]
    return value


def _fits(value: Any, shape: Shape) -> bool:
    if not shape.passes or shape.whole:
        return shape.passes
    if isinstance(value, dict):
        return bool(shape.members)
    if isinstance(value, str) and shape.payload == "url":
        return is_address(value)
    return shape.items is not None if isinstance(value, list) else True


names = st.sampled_from(
    ["a", "whole", "model", "usage", "tokens", "pictures", "hidden", "in", "url", "kind", "x", 'é"\\', ""]
)
addresses = st.builds(
    str.__add__, st.sampled_from(["https:", "HTTP://", "data:image/", "data:text/html,", "javascript:"]), st.text()
)
scalars = (
    addresses | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
documents = st.dictionaries(names, values, max_size=6)


@examples(300)
@given(document=documents, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_what_passes_is_what_the_shape_leaves(document: Any, *, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    output, told, error = read([body])
    assert error is None
    assert json.loads(output) == passed(document, SHAPE)
    notes = {name: json.loads(value) for name, value in told if name in ("usage", "tokens")}
    assert notes == {name: document[name] for name in ("usage", "tokens") if name in document}


@examples(150)
@given(document=documents, cuts=st.lists(st.integers(0, 300), max_size=6))
def test_it_does_not_matter_how_the_document_is_cut(document: Any, cuts: list[int]) -> None:
    body = json.dumps(document).encode()
    whole = read([body])
    assert read(one_by_one(body)) == whole
    ends = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    assert read([body[begin:end] for begin, end in pairwise(ends)]) == whole


@examples(100)
@given(document=documents)
def test_a_document_that_ends_early_is_malformed(document: Any) -> None:
    body = json.dumps(document).encode()
    for end in range(len(body)):
        assert read([body[:end]])[2] == "the body ends in the middle of the answer"


@examples(500)
@given(
    tokens=st.lists(
        st.sampled_from(
            ["{", "}", "[", "]", ",", ":", '"a"', '"', '\\"', "\\\\", "1", "-", "01", "null", "nul", "1e", " ", "x"]
        ),
        max_size=12,
    )
)
def test_what_is_no_json_is_malformed_and_what_is_json_is_not(tokens: list[str]) -> None:
    # Escapes are whole here: the inside of strings is passed on as it came.
    body = "".join(tokens).encode()
    try:
        json.loads(body)
    except ValueError:
        is_json = False
    else:
        is_json = True
    # Of what nobody wants only brackets and strings are looked at.
    body = b'{"whole":%b}' % body
    assert (read([body])[2] is None) == is_json
    assert read(one_by_one(body))[1:] == read([body])[1:]


def test_pictures_payloads_and_notes_are_told_in_their_order() -> None:
    body = (
        rb'{"pictures":[{"url":"http:a\"b","kind":"x","cost":1},7,{"kind":{}},{"url":"file:x"}],'
        rb'"hidden":[{"url":"http:h"},{"url":"file:x"}],"model":"theirs",'
        rb'"usage":{"cost":0.5,"by":["a\n",null]},"tokens":{"a":1,"cost":2}}'
    )
    output, told, error = read([body])
    assert error is None
    assert output == (rb'{"pictures":[{"url":"http:a\"b","kind":"x"},7,{},{}],"model":"ours","tokens":{"a":1}}')
    assert told == [
        ("picture", b"begin"), ("url", rb"http:a\"b"), ("end", b""), ("picture", b"end"),
        ("picture", b"begin"), ("picture", b"end"), ("picture", b"begin"), ("picture", b"end"),
        ("url", b"http:h"), ("end", b""),
        ("usage", rb'{"cost":0.5,"by":["a\n",null]}'), ("tokens", b'{"a":1,"cost":2}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"whole":' + b"[" * DEPTH_LIMIT, "a value is nested too deeply"),
        (b'{"' + b"n" * (NAME_BYTES_LIMIT + 1) + b'":1}', "a name is too long"),
        (b'{"a":' + b"1" * (LITERAL_BYTES_LIMIT + 1) + b"}", "a number is too long"),
        (rb'{"\ud800":1}', "a name is not valid JSON"),
    ],
)
def test_there_is_a_limit_to_everything(body: bytes, error: str) -> None:
    assert read([body])[2] == error
    assert read(one_by_one(body))[2] == error


@pytest.mark.parametrize("rest", [b"{}", b"}", b",", b"true", b"\0", b"data: [DONE]"])
def test_what_follows_the_end_is_kept_apart(rest: bytes) -> None:
    body = b'{"model":1}\n '
    for cut in range(len(body) + 1):
        scanner, deaf = ShapedScanner(SHAPE, {"model": b'"ours"'}), Deaf()
        output = scanner.feed(body[:cut], deaf) + scanner.feed(body[cut:] + rest, deaf)
        assert (output, scanner.complete, scanner.rest) == (b'{"model":"ours"}', True, rest)
    assert read([body])[2] is None


@pytest.mark.parametrize("value", [b"[]", b'[{"url":"https:x"}]', b"{}", b'"x"', b"1", b"null"])
def test_a_mark_tells_that_something_stands_there(value: bytes) -> None:
    shape = Shape(members={b"list": Shape(mark="listed", items=Shape(members={b"url": PASSED}))})
    for body, told in ((b'{"list":%b}' % value, [("listed", b"true")]), (b'{"other":%b,"a":["list"]}' % value, [])):
        for pieces in ([body], [bytes([byte]) for byte in body]):
            heard, scanner = Heard(), ShapedScanner(shape)
            for piece in pieces:
                scanner.feed(piece, heard)
            scanner.finish(heard)
            assert heard.told == told


def test_a_note_that_is_too_long_is_not_told() -> None:
    for length, is_told in ((NOTE_BYTES_LIMIT - 10, True), (NOTE_BYTES_LIMIT, False)):
        body = b'{"usage":"%b","a":1}' % (b"u" * length)
        output, told, error = read([body])
        assert (output, error, bool(told)) == (b'{"a":1}', None, is_told)
        assert read(one_by_one(body)) == (output, told, error)


def test_thirty_megabytes_in_one_string_are_not_held() -> None:
    scanner, deaf = ShapedScanner(SHAPE), Deaf()
    scanner.feed(b'{"pictures":[{"url":"https:', deaf)
    piece = b"A" * 65_536
    tracemalloc.start()
    try:
        for _ in range(460):
            assert scanner.feed(piece, deaf) == piece
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert scanner.feed(b'"}]}', deaf) + scanner.finish(deaf) == b'"}]}'


@pytest.mark.parametrize(
    ("note", "is_kept"),
    [(b'{"a":"b"}', True), (b"{}", True), (b"7", False), (b'{"a":"\xff"}', False), (b'{"a":"\n"}', False)],
)
def test_an_object_that_cannot_be_written_into_other_json_is_none(note: bytes, *, is_kept: bool) -> None:
    assert object_of(note) == (note if is_kept else None)
