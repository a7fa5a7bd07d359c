from __future__ import annotations

import pytest

from proxy.domain.answers.documents import DocumentReader
from proxy.domain.parsing.json_shapes import Shape
from proxy.domain.parsing.json_tokens import MalformedResponse

SHAPE = Shape(members={b"a": Shape(note="a"), b"image": Shape(payload="image")})


class Heard:
    """All that a listener hears, in its order; pieces of one payload as one."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bytes]] = []
        self.is_done = False

    def begin_document(self, name: bytes) -> None:
        self.all.append(("document", name))

    def passed(self, piece: bytes) -> None:
        raise NotImplementedError

    def end_document(self, name: bytes) -> None:
        """It tells nothing that its beginning has not."""

    def end_of_stream(self) -> None:
        self.is_done = True

    def begin_element(self) -> None:
        raise NotImplementedError

    def end_element(self) -> None:
        raise NotImplementedError

    def begin_payload(self, name: str) -> None:
        self.all.append((name, b""))

    def payload(self, piece: bytes) -> None:
        name, before = self.all.pop()
        self.all.append((name, before + piece))

    def end_payload(self) -> None:
        pass

    def note(self, name: str, value: bytes) -> None:
        self.all.append((name, value))


def heard(body: bytes, *, is_stream: bool) -> tuple[list[tuple[str, bytes]], bool]:
    """The same byte by byte, and cut in two anywhere."""
    found = []
    cuts = [
        [body],
        [body[at : at + 1] for at in range(len(body))],
        *([body[:at], body[at:]] for at in range(len(body) + 1)),
    ]
    for pieces in cuts:
        listener = Heard()
        reader = DocumentReader(SHAPE, is_stream=is_stream)
        for piece in pieces:
            reader.feed(piece, listener)
        reader.finish(listener)
        found.append((listener.all, listener.is_done))
    assert all(one == found[0] for one in found)
    return found[0]


def test_one_document() -> None:
    assert heard(b'{"a":1,"b":[2],"image":"xyz"}', is_stream=False) == (
        [("document", b""), ("a", b"1"), ("image", b"xyz")],
        False,
    )


def test_events_with_a_document_each() -> None:
    stream = b'event: one\ndata: {"a":1}\n\n: comment\n\ndata: {"image":"xy"}\n\ndata: [DONE]\n\n'
    documents, is_done = heard(stream, is_stream=True)
    assert documents == [("document", b"one"), ("a", b"1"), ("document", b""), ("image", b"xy")]
    assert is_done


@pytest.mark.parametrize(
    ("body", "is_stream"), [(b'{"a":1', False), (b"", False), (b'data: {"a":1\n\n', True), (b"data: [DO\n\n", False)]
)
def test_a_document_that_is_not_whole_is_malformed(body: bytes, *, is_stream: bool) -> None:
    with pytest.raises(MalformedResponse):
        heard(body, is_stream=is_stream)


def test_a_word_that_is_not_whole_is_no_end() -> None:
    assert heard(b"data: [DO\n\n", is_stream=True) == ([], False)
