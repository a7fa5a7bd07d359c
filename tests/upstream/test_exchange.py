"""What an answer is, its first bytes say, in however many pieces they come."""

from __future__ import annotations

import asyncio

import pytest

from proxy.upstream.exchange import Exchange

EVENTS = [
    b'data: {"a":1}\n\n',
    b"data:{}\n\n",
    b"event: x\ndata: {}\n\n",
    b"id: 1\ndata: {}\n\n",
    b"retry: 5\n\n",
    b": waiting\n\ndata: {}\n\n",
    b"\xef\xbb\xbfdata: {}\n\n",
    b"\r\n \n\tevent: x\n\n",
]
DOCUMENTS = [
    b'{"data":[]}',
    b"[1]",
    b"\xef\xbb\xbf{}",
    b" \n {}",
    b"data",
    b"dated: x",
    b"idle",
    b"<html>",
    b"\xef",
    b"",
    b" ",
]


class Begun(Exchange):
    """One whose body comes in these pieces, without a Content-Type that is of help."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)
        self._begin = b""
        self._response = None

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self._begin:
            begin, self._begin = self._begin, b""
            return begin
        return next(self._pieces, b"")


async def begun(body: bytes, size: int) -> tuple[bool, bytes]:
    exchange = Begun([body[at : at + size] for at in range(0, len(body), size)])
    is_events = await exchange.begin()
    whole = b""
    while piece := await exchange.read():
        whole += piece
    return is_events, whole


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 100])
@pytest.mark.parametrize("body", EVENTS)
async def test_events_are_known_by_their_first_line(body: bytes, size: int) -> None:
    assert await begun(body, size) == (True, body.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n"))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("body", DOCUMENTS)
async def test_whatever_else_is_one_document(body: bytes, size: int) -> None:
    assert (await begun(body, size))[0] is False
