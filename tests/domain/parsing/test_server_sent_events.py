from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.parsing.server_sent_events import KEEP_ALIVE, NAME_BYTES_LIMIT, EventReader, begin_event, write_event
from tests.support.examples import examples

Event = tuple[bytes, bytes]


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.first_names: list[bytes] = []
        self._data: list[bytes] = []

    def data(self, piece: bytes, name: bytes) -> None:
        if not self._data:
            self.first_names.append(name)
        self._data.append(piece)

    def end_event(self, name: bytes) -> None:
        self.events.append((name, b"".join(self._data)))
        self._data = []


class Deaf(Heard):
    def data(self, piece: bytes, name: bytes) -> None:
        """Keep nothing."""


def read(pieces: Iterable[bytes], *, finished: bool = False) -> list[Event]:
    heard = Heard()
    reader = EventReader()
    for piece in pieces:
        reader.feed(piece, heard)
    if finished:
        reader.finish(heard)
    return heard.events


def read_as_the_standard_says(stream: bytes) -> list[Event]:
    """The standard's own steps over a stream that is there as a whole."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    events: list[Event] = []
    name, data = b"", b""
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((name, data.removesuffix(b"\n")))
            name, data = b"", b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value if len(value) <= NAME_BYTES_LIMIT else b""
    return events


fragments = st.sampled_from(
    [
        b"data", b"event", b"id", b"retry", b"", b":", b": ", b":  ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r",
        b"\r\n\r\n", b"\n\r", b"x", b"[DONE]", b'{"a": "b:c"}', b"data: x", b"event: y", b": comment", b"dat", b"datas",
        b"\xef\xbb\xbf", b"\xef", b"\xbb", b"event:" + b"n" * 300,
    ]
)  # fmt: skip
streams = st.lists(fragments, max_size=40).map(b"".join)


@examples(500)
@given(stream=streams)
def test_the_events_are_those_of_the_standard(stream: bytes) -> None:
    assert read([stream]) == read_as_the_standard_says(stream)


@examples(300)
@given(stream=streams, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_it_does_not_matter_how_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    whole = read([stream], finished=True)
    assert read([stream[at : at + 1] for at in range(len(stream))], finished=True) == whole
    ends = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    assert read([stream[begin:end] for begin, end in pairwise(ends)], finished=True) == whole


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [(b"", b"one"), (b"", b"two")]),
        (b"event: x\ndata:y\n\ndata: z\n\n", [(b"x", b"y"), (b"", b"z")]),
        (b"data: y\nevent: x\n\n", [(b"x", b"y")]),
        (b"data: a\ndata: b\ndata\n\n", [(b"", b"a\nb\n")]),
        (b"data\n\n", [(b"", b"")]),
        (b": ping\n\n:\r\ndata: a\r\n\r\n", [(b"", b"a")]),
        (b"id: 7\nretry: 3000\ndata:  a\n\n", [(b"", b" a")]),
        (b"\xef\xbb\xbfdata: a\r\rdata: [DONE]\n\n", [(b"", b"a"), (b"", b"[DONE]")]),
        (b"event: x\n\ndata: a\n\n", [(b"", b"a")]),
        (b"data: not ended\n", []),
    ],
)
def test_events_in_every_spelling(stream: bytes, events: list[Event]) -> None:
    assert read([stream]) == events


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n", b"\n\n"])
def test_at_the_end_of_a_stream_the_last_blank_line_may_be_missing(ending: bytes) -> None:
    assert read([b"event: x\ndata: a" + ending], finished=True) == [(b"x", b"a")]


def test_ten_megabytes_in_one_line_are_handed_on_as_they_come() -> None:
    reader, deaf = EventReader(), Deaf()
    reader.feed(b"event: x\ndata: ", deaf)
    piece = b"A" * 65_536
    tracemalloc.start()
    try:
        for _ in range(160):
            reader.feed(piece, deaf)
        reader.feed(b"\n\n", deaf)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_the_name_is_told_with_the_data_where_it_stood_before() -> None:
    heard = Heard()
    EventReader().feed(b"event: x\ndata: a\n\ndata: b\nevent: y\n\n", heard)
    assert heard.first_names == [b"x", b""]


def test_what_is_written_is_read_again() -> None:
    stream = KEEP_ALIVE + write_event(b'{"a":1}', b"x") + begin_event(b"") + b"b\n" + KEEP_ALIVE + b"\n"
    assert read([stream]) == [(b"x", b'{"a":1}'), (b"", b"b")]
