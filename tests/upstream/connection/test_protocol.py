"""One connection over a transport that is none: every answer in every cut, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed, NotHttp
from proxy.upstream.connection.protocol import Connection
from proxy.upstream.connection.response import HELD_BYTES, Response
from tests.upstream.connection.answers import (
    BODY_IN_CHUNKS,
    BROKEN_OFF,
    CHUNKED,
    END,
    LENGTH,
    NO_ANSWER,
    OK,
    WHOLE,
    Told,
)


class Wire(asyncio.Transport):
    """Keeps what is written, and tells its protocol of its end at once."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.unwritten_bytes = 0
        self.reads, self._is_closed = True, False
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closed
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unwritten_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._is_closed

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True

    def abort(self) -> None:
        self.end()

    def end(self, error: Exception | None = None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.protocol.connection_lost(error)

    def receive(self, data: bytes) -> None:
        """As a loop does it: nothing after the end, and nothing while reading is paused."""
        if data and not self._is_closed:
            assert self.reads
            self.protocol.data_received(data)


class Scene:
    """A connection that has been asked once."""

    def __init__(self, *, expects_body: bool = True) -> None:
        self.freed = self.lost = 0
        self.connection = Connection(asyncio.get_running_loop(), self._free, self._lose)
        self.wire = Wire(self.connection)
        self.response = self.connection.ask((b"POST / HTTP/1.1\r\n\r\n", b"{}"), expects_body=expects_body)

    def _free(self, connection: Connection) -> None:
        assert connection is self.connection
        self.freed += 1

    def _lose(self, _connection: Connection) -> None:
        self.lost += 1

    @property
    def is_kept(self) -> bool:
        """Whether another request may have it."""
        assert (self.freed, self.lost) in ((1, 0), (0, 1), (1, 1), (0, 0))
        return (self.freed, self.lost) == (1, 0)

    async def read(self) -> Told | type[AnswerBroken]:
        body = b""
        try:
            await self.response.begin()
            while piece := await self.response.read():
                body += piece
        except AnswerBroken as error:
            return type(error)
        return Told(self.response.status, body, self.is_kept)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(each for each in cuts if each < len(data)), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


async def answered(pieces: Sequence[bytes], *, ends: bool = False, expects_body: bool = True) -> Scene:
    scene = Scene(expects_body=expects_body)
    for piece in pieces:
        scene.wire.receive(piece)
    if ends:
        scene.wire.end()
    return scene


@pytest.mark.parametrize(("raw", "told"), WHOLE.values(), ids=WHOLE)
async def test_an_answer_is_the_same_however_it_is_cut(raw: bytes, told: Told) -> None:
    expected = told._replace(ends_with_connection=False)
    for cuts in [(), range(len(raw)), *((at,) for at in range(1, len(raw)))]:
        scene = await answered(cut(raw, cuts), ends=told.ends_with_connection)
        assert await scene.read() == expected
        assert scene.wire.is_closing() == (not told.is_kept)


@given(st.sampled_from(list(WHOLE)), st.lists(st.integers(1, 300), max_size=10))
async def test_an_answer_is_the_same_in_any_cut(name: str, cuts: list[int]) -> None:
    raw, told = WHOLE[name]
    scene = await answered(cut(raw, cuts), ends=told.ends_with_connection)
    assert await scene.read() == told._replace(ends_with_connection=False)


@pytest.mark.parametrize("behind", [b"\r\n", b"\0", b"{}", OK + LENGTH + END + b"[]"])
@pytest.mark.parametrize("name", [name for name, (_, told) in WHOLE.items() if not told.ends_with_connection])
async def test_what_comes_behind_an_answer_is_nobodys_and_ends_the_connection(name: str, behind: bytes) -> None:
    raw, told = WHOLE[name]
    for cuts in [(), (len(raw),), (len(raw) + 1,), range(len(raw + behind))]:
        scene = await answered(cut(raw + behind, cuts))
        assert await scene.read() == Told(told.status, told.body, is_kept=False)
        assert scene.wire.is_closing()
        with pytest.raises(ConnectFailed):
            scene.connection.ask((b"x",))


@pytest.mark.parametrize("raw", NO_ANSWER.values(), ids=NO_ANSWER)
async def test_what_is_no_answer(raw: bytes) -> None:
    for cuts in [(), range(0, len(raw), 1 if len(raw) < 500 else 7_001)]:
        scene = await answered(cut(raw, cuts), ends=True)
        assert await scene.read() is NotHttp
        assert (scene.freed, scene.lost) == (0, 1)


@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "reset")])
@pytest.mark.parametrize(("raw", "body"), BROKEN_OFF.values(), ids=BROKEN_OFF)
async def test_what_breaks_off_is_told_after_what_had_come(raw: bytes, body: bytes, error: Exception | None) -> None:
    scene = await answered([raw])
    scene.wire.end(error)
    read = bytearray()
    with pytest.raises(AnswerBroken):
        await read_into(scene.response, read)
    assert read == body
    assert (scene.freed, scene.lost) == (0, 1)


async def read_into(response: Response, read: bytearray) -> None:
    await response.begin()
    while piece := await response.read():
        read += piece


async def test_all_that_came_before_a_break_is_given() -> None:
    scene = await answered([OK + CHUNKED + END + b"3\r\nabc\r\n", b"2\r\nde\r\nxyz\r\n"])
    assert await scene.response.read() == b"abcde"
    for _ in range(2):
        with pytest.raises(NotHttp):
            await scene.response.read()


async def test_a_body_until_the_end_is_broken_by_a_reset() -> None:
    scene = await answered([OK + END + b"{}"])
    scene.wire.end(ConnectionResetError(104, "reset"))
    assert await scene.response.read() == b"{}"
    with pytest.raises(AnswerBroken, match="reset"):
        await scene.response.read()


async def test_trailers_may_be_missing() -> None:
    for raw in (b"2\r\n{}\r\n0\r\n", b"2\r\n{}\r\n0\r\nX: ", b"2\r\n{}\r\n0\r\nX: y\r\n"):
        scene = await answered([OK + CHUNKED + END + raw], ends=True)
        assert await scene.read() == Told(200, b"{}", is_kept=False)


@pytest.mark.parametrize("more", [LENGTH, CHUNKED, b""])
async def test_an_answer_to_a_head_or_a_tunnel_has_no_body(more: bytes) -> None:
    scene = await answered([OK + more + END], expects_body=False)
    assert await scene.read() == Told(200, b"", is_kept=True)


# --- Who may have it --------------------------------------------------------------------------------------------------


async def test_a_connection_answers_one_request_after_the_other_and_no_two_at_once() -> None:
    scene = await answered([OK + LENGTH + END + b"{"])
    with pytest.raises(ConnectFailed):
        scene.connection.ask((b"x",))
    assert scene.wire.written == b"POST / HTTP/1.1\r\n\r\n{}"
    scene.wire.receive(b"}")
    second = scene.connection.ask((b"second",))
    scene.wire.receive(OK + CHUNKED + END + BODY_IN_CHUNKS)
    third = scene.connection.ask((b"third",))
    scene.wire.receive(OK + LENGTH + END + b"[]")
    assert scene.wire.written.endswith(b"secondthird")
    assert [await one.read() for one in (third, second, scene.response)] == [b"[]", b"{}", b"{}"]
    assert scene.freed == 3


async def test_what_has_not_been_written_yet_stands_before_no_other_request() -> None:
    scene = Scene()
    scene.wire.unwritten_bytes = 1
    scene.wire.receive(OK + LENGTH + END + b"{}")
    assert await scene.read() == Told(200, b"{}", is_kept=False)
    assert scene.wire.is_closing()


async def test_an_answer_before_the_end_of_an_upload_ends_the_connection() -> None:
    scene = Scene()
    scene.connection.is_uploading = True
    scene.wire.receive(OK + LENGTH + END + b"{}")
    assert await scene.read() == Told(200, b"{}", is_kept=False)
    with pytest.raises(AnswerBroken):
        await scene.connection.write_more(b"x")


@pytest.mark.parametrize("had_come", [b"", OK, OK + LENGTH + END, OK + LENGTH + END + b"{", OK + CHUNKED + END + b"1"])
async def test_a_response_that_is_given_up_takes_its_connection_along(had_come: bytes) -> None:
    scene = await answered([had_come])
    scene.response.close()
    scene.response.close()
    assert (scene.freed, scene.lost) == (0, 1)
    with pytest.raises(AnswerBroken):
        await read_into(scene.response, bytearray())


async def test_one_that_is_given_up_after_its_end_does_not() -> None:
    scene = await answered([OK + LENGTH + END + b"{}"])
    again = scene.connection.ask((b"again",))
    scene.response.close()
    scene.wire.receive(OK + LENGTH + END + b"[]")
    assert (await again.read(), scene.freed, scene.lost) == (b"[]", 2, 0)


# --- How much waits ---------------------------------------------------------------------------------------------------


async def test_no_more_is_read_than_is_wanted() -> None:
    size = 8 * HELD_BYTES
    scene = await answered([OK + b"Content-Length: %d\r\n\r\n" % size])
    sent, pieces, piece = 0, 0, b"x" * 40_000
    while scene.wire.reads and sent < size:
        scene.wire.receive(piece)
        sent += len(piece)
    assert HELD_BYTES < sent <= HELD_BYTES + len(piece)
    while sent < size or not scene.wire.reads:
        pieces += len(await scene.response.read())
        if scene.wire.reads and sent < size:
            scene.wire.receive(piece[: size - sent])
            sent = min(size, sent + len(piece))
    while more := await scene.response.read():
        pieces += len(more)
    assert (pieces, scene.is_kept, scene.wire.reads) == (size, True, True)


async def test_a_connection_goes_back_reading_though_its_answer_waits() -> None:
    size = 2 * HELD_BYTES
    scene = await answered([OK + b"Content-Length: %d\r\n\r\n" % size, b"x" * size])
    assert (scene.is_kept, scene.wire.reads) == (True, True)
    assert len(await scene.response.read()) == size


async def test_small_pieces_are_given_as_one() -> None:
    scene = await answered([OK + b"Content-Length: 6\r\n\r\n", b"ab", b"cd", b"ef"])
    assert [await scene.response.read() for _ in range(2)] == [b"abcdef", b""]


async def test_a_reader_is_woken_by_each_piece_and_by_the_end() -> None:
    scene = Scene()
    reading = asyncio.create_task(scene.read())
    for piece in cut(OK + CHUNKED + END + BODY_IN_CHUNKS, range(100)):
        await asyncio.sleep(0)
        scene.wire.receive(piece)
    assert await reading == Told(200, b"{}")


async def test_writing_waits_while_the_other_end_does_not_read() -> None:
    scene = Scene()
    scene.connection.pause_writing()
    writing = asyncio.create_task(scene.connection.write_more(b"more"))
    await asyncio.sleep(0)
    assert not writing.done()
    scene.connection.resume_writing()
    await writing
    scene.connection.pause_writing()
    writing = asyncio.create_task(scene.connection.write_more(b"more"))
    await asyncio.sleep(0)
    scene.wire.end(ConnectionResetError())
    await writing
    with pytest.raises(AnswerBroken):
        await scene.connection.write_more(b"more")
