"""Chunks: what they hold, however they are cut; what is none; and to the byte where they end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.connection.chunks import LINE_BYTES, TRAILER_BYTES, Chunks

END = b"0\r\n\r\n"


def read(data: bytes, *cuts: int) -> tuple[bytes, Chunks]:
    """What ``data`` holds, cut at these places; nothing is fed after the end."""
    chunks, body, at = Chunks(), b"", 0
    for cut in (*sorted(cuts), len(data)):
        piece, at = data[at:cut], cut
        if piece and not (chunks.has_ended or chunks.fault):
            body += chunks.feed(piece)
        elif piece:
            chunks.is_clean = False
    return body, chunks


GOOD: dict[str, tuple[bytes, bytes]] = {
    "one": (b"3\r\nabc\r\n" + END, b"abc"),
    "two": (b"3\r\nabc\r\n1\r\nd\r\n" + END, b"abcd"),
    "none": (END, b""),
    "a size with zeros": (b"0003\r\nabc\r\n000\r\n\r\n", b"abc"),
    "a size in hexadecimal": (b"0A\r\n0123456789\r\na\r\n0123456789\r\n" + END, b"0123456789" * 2),
    "an extension": (b'3;a="b;\xff"\r\nabc\r\n0;x\r\n\r\n', b"abc"),
    "blanks behind a size": (b"3 \t\r\nabc\r\n3 ; a\r\ndef\r\n" + END, b"abcdef"),
    "line ends in the data": (b"4\r\n\r\n\r\n\r\n" + END, b"\r\n\r\n"),
    "lines without a CR": (b"3\nabc\n0\n\n", b"abc"),
    "trailers": (b"3\r\nabc\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"abc"),
}
BAD: dict[str, bytes] = {
    "no size": b"\r\nabc\r\n",
    "a size that is none": b"xyz\r\nabc\r\n",
    "a size with a sign": b"+3\r\nabc\r\n",
    "a size below zero": b"-3\r\nabc\r\n",
    "a size as in Python": b"0x3\r\nabc\r\n",
    "a size with a bar": b"1_0\r\nabc\r\n",
    "a blank before a size": b" 3\r\nabc\r\n",
    "a size beyond all": b"ffffffffffffffff\r\nabc\r\n",
    "two sizes": b"3 3\r\nabc\r\n",
    "a NUL in an extension": b"3;\0\r\nabc\r\n",
    "a CR in an extension": b"3;a\rb\r\nabc\r\n",
    "an extension without an end": b"3;" + b"x" * LINE_BYTES,
    "more than its size": b"3\r\nabcd\r\n",
    "less than its size": b"5\r\nabc\r\n0\r\n\r\n0\r\n\r\n",
    "nothing behind the data": b"3\r\nabc3\r\nabc\r\n",
    "two line ends behind the data": b"3\r\nabc\r\n\r\n3\r\nabc\r\n",
    "a CR behind the data": b"3\r\nabc\r3\r\nabc\r\n",
}


@pytest.mark.parametrize(("data", "body"), GOOD.values(), ids=GOOD)
def test_chunks_are_unwrapped_however_they_are_cut(data: bytes, body: bytes) -> None:
    for cuts in [(), range(len(data)), *((cut,) for cut in range(len(data)))]:
        read_body, chunks = read(data, *cuts)
        assert (read_body, chunks.has_ended, chunks.fault, chunks.is_clean) == (body, True, "", True)
    for end in range(len(data)):
        assert not read(data[:end])[1].has_ended


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_none_is_told(data: bytes) -> None:
    for cuts in [(), range(0, len(data), 1 if len(data) < 100 else 500)]:
        _, chunks = read(data, *cuts)
        assert chunks.fault
        assert not chunks.has_ended


@pytest.mark.parametrize("behind", [b"\r", b"\r\n", b"\0", b"HTTP/1.1 200 OK\r\n\r\n", END])
@pytest.mark.parametrize("data", [data for data, _ in GOOD.values()], ids=GOOD)
def test_what_stands_behind_the_end_is_seen(data: bytes, behind: bytes) -> None:
    for cuts in [(), (len(data),), range(len(data))]:
        body, chunks = read(data + behind, *cuts)
        assert (body, chunks.has_ended, chunks.fault, chunks.is_clean) == (read(data)[0], True, "", False)


@pytest.mark.parametrize("trailer", [b"X\r\n", b"X Y: z\r\n", b": z\r\n", b"X: \0\r\n", b"X: a\rb\r\n", b" X: y\r\n"])
def test_trailers_that_are_none_lose_no_body(trailer: bytes) -> None:
    body, chunks = read(b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n")
    assert (body, chunks.has_ended, chunks.is_clean) == (b"abc", True, False)


def test_trailers_without_an_end_have_one() -> None:
    for trailers in (b"X: y\r\n" * TRAILER_BYTES, b"X" * (TRAILER_BYTES + 2)):
        body, chunks = read(b"3\r\nabc\r\n0\r\n" + trailers)
        assert (body, chunks.has_ended, chunks.is_clean) == (b"abc", True, False)


def test_only_trailers_may_be_missing() -> None:
    data = b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    whole = [read(data[:end])[1].has_all_data for end in range(len(data) + 1)]
    assert whole.index(True) == len(b"3\r\nabc\r\n0\r\n")
    assert all(whole[whole.index(True) :])


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=8))
def test_any_body_comes_back_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + END
    body, chunks = read(data, *(cut for cut in cuts if cut < len(data)))
    assert (body, chunks.has_ended, chunks.is_clean) == (b"".join(pieces), True, True)


@given(st.binary(max_size=60) | st.text("0123af;\r\n x", max_size=40).map(str.encode), st.lists(st.integers(0, 60)))
def test_any_bytes_are_read_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    (whole_body, whole), (body, chunks) = read(data), read(data, *(cut for cut in cuts if cut < len(data)))
    assert (body, chunks.has_ended, bool(chunks.fault)) == (whole_body, whole.has_ended, bool(whole.fault))
    if whole.has_ended:
        assert chunks.is_clean == whole.is_clean
