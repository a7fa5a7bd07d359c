"""Heads by a table, and beside the parser of aiohttp, which is llhttp."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.connection.faults import NotHttp
from proxy.upstream.connection.head import IDLE_S, Head
from tests.upstream.connection.answers import BAD, CHUNKS, CLOSE, END, GOOD, LENGTH, OK, Read

# What llhttp refuses, and can mean one thing only.
READ_BEYOND_LLHTTP = {
    "a blank before a colon", "a length and chunks", "a length said twice", "a length said twice in one",
    "chunks and a length", "identity",
}  # fmt: skip
# What llhttp reads, and can be more than one thing, or nothing that anybody should send.
REFUSED_BEYOND_LLHTTP = {"a status below 100", "chunks within a coding", "HTTP/0.9"}


def read(raw: bytes) -> Read:
    head = Head(raw)
    return Read(CHUNKS if head.is_chunked else CLOSE if head.length is None else head.length, head.may_go_on)


@pytest.mark.parametrize(("raw", "expected"), GOOD.values(), ids=GOOD)
def test_heads_that_are_read(raw: bytes, expected: Read) -> None:
    assert read(raw) == expected


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_heads_that_are_refused(raw: bytes) -> None:
    with pytest.raises(NotHttp):
        Head(raw)


async def by_llhttp(raw: bytes) -> Any | None:
    """What aiohttp makes of it; None where it refuses it."""
    loop = asyncio.get_running_loop()
    parser = HttpResponseParser(
        BaseProtocol(loop), loop, 65_536, max_line_size=2**18, max_field_size=2**18, max_headers=300,
        read_until_eof=True, auto_decompress=False,
    )  # fmt: skip
    try:
        messages, _, _ = parser.feed_data(raw)
    except HttpProcessingError:
        return None
    return messages[0][0] if messages else None


def plain(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """How many blanks the end of a line becomes is not said (RFC 9112 section 5.2), nor how names are spelt."""
    return [(name.lower(), " ".join(value.split())) for name, value in headers.items()]


@pytest.mark.parametrize("name", [*GOOD, *BAD])
async def test_llhttp_reads_the_same_but_for_what_is_listed(name: str) -> None:
    raw = GOOD[name][0] if name in GOOD else BAD[name]
    theirs = await by_llhttp(raw)
    assert (theirs is not None) == ((name in GOOD and name not in READ_BEYOND_LLHTTP) or name in REFUSED_BEYOND_LLHTTP)
    if theirs is None or name in BAD:
        return
    ours = Head(raw)
    assert ours.status == theirs.code
    assert plain(ours.headers) == plain(theirs.headers)
    # A connection that would be kept there may be closed here, and never the other way round.
    assert not ours.may_go_on or not theirs.should_close or read(raw).body == CLOSE


PARTS = st.sampled_from(
    [b"HTTP/1.1", b"HTTP/1.0", b" ", b"200", b"204", b"OK", b"\r\n", b"\n", b"\r", b":", b"\t", b"\0", b"X", b"close",
     b"Content-Length", b": ", b"2", b"3", b",", b"Transfer-Encoding: ", b"chunked", b"Connection: ", b"\xff", b"\r\n "]
)  # fmt: skip


@given(st.lists(PARTS, max_size=12).map(b"".join))
async def test_what_is_kept_here_is_kept_by_llhttp_as_well(middle: bytes) -> None:
    raw = OK + middle + b"\r\n\r\n"
    if b"\n\n" in raw[:-2] or b"\n\r\n" in raw[:-2]:
        return
    try:
        ours = Head(raw)
    except NotHttp:
        return
    theirs = await by_llhttp(raw)
    if ours.may_go_on and read(raw).body != CLOSE:
        assert theirs is not None
        assert not theirs.should_close
        assert (ours.status, ours.is_chunked) == (theirs.code, theirs.chunked)
        assert plain(ours.headers) == plain(theirs.headers)


@pytest.mark.parametrize(
    "line",
    [b"X: " + b" " * 100_000 + b"\0", b"\t" * 100_000 + b"\0", b"X" * 100_000, b"X" + b" " * 100_000 + b"\0",
     b"X: \r\n" + b" \r\n" * 30_000 + b"\0", b"Content-Length: " + b"1," * 50_000],
)  # fmt: skip
def test_no_head_takes_long(line: bytes) -> None:
    began = time.process_time()
    with pytest.raises(NotHttp):
        Head(OK + line + END + END)
    assert time.process_time() - began < 1


def test_what_a_head_tells() -> None:
    head = Head(
        OK + b"Content-TYPE: Text/Event-Stream; charset=utf-8\r\nContent-Encoding:  gzip \r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    )
    assert (head.content_type, head.encoding) == ("text/event-stream", "gzip")
    assert (head.headers["X-a"], head.headers.getall("x-A")) == ("1", ["1", "2"])
    assert Head(OK + END).content_type == "application/octet-stream"
    assert Head(OK + END).encoding == ""
    assert Head(OK + b"X: \xff\r\n\r\n").headers["X"] == "\udcff"


@pytest.mark.parametrize(
    ("told", "idle_s"),
    [(b"timeout=5", 4.0), (b"max=100, Timeout=5", 4.0), (b"timeout=600", IDLE_S), (b"x", IDLE_S), (b"timeout=0", -1.0)],
)
def test_a_server_says_how_long_it_keeps_a_connection(told: bytes, idle_s: float) -> None:
    assert Head(OK + LENGTH + b"Keep-Alive: " + told + END + END).idle_s == idle_s
