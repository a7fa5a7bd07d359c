"""How long what is sent to a client may stay unread, by the connection's own clock."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.support.virtual_time import virtually
from tests.web.wire import on_a_wire

TIMEOUT_S = 0.3
GET = b"GET / HTTP/1.1\r\nHost: h\r\n"


async def answer(_request: web.Request) -> web.Response:
    return web.Response(text="answer")


def app() -> web.Application:
    made = web.Application()
    made.router.add_get("/", answer)
    return made


@virtually
async def test_what_is_left_when_a_connection_closes_has_the_same_time() -> None:
    async with on_a_wire(app(), TIMEOUT_S) as (connection, wire):
        wire.unread_bytes = 100
        connection.data_received(GET + b"Connection: close\r\n\r\n")
        await asyncio.sleep(TIMEOUT_S / 2)
        assert (wire.closed, wire.aborted) == (True, False)
        await asyncio.sleep(TIMEOUT_S)
        assert wire.aborted


@virtually
async def test_a_connection_that_closes_with_nothing_left_is_left_alone() -> None:
    async with on_a_wire(app(), TIMEOUT_S) as (connection, wire):
        connection.data_received(GET + b"Connection: close\r\n\r\n")
        await asyncio.sleep(2 * TIMEOUT_S)
        assert (wire.closed, wire.aborted) == (True, False)


@virtually
async def test_the_time_begins_anew_with_each_64_kib_that_are_read() -> None:
    async with on_a_wire(app(), TIMEOUT_S) as (connection, wire):
        wire.unread_bytes = 10 * 65_536
        connection.pause_writing()
        for _ in range(8):
            await asyncio.sleep(0.7 * TIMEOUT_S)
            wire.unread_bytes -= 65_536
        assert not wire.aborted
        # Less than that is no progress.
        for _ in range(4):
            await asyncio.sleep(0.7 * TIMEOUT_S)
            wire.unread_bytes -= 1_000
        assert wire.aborted


@pytest.mark.parametrize("times", [1, 5])
@virtually
async def test_a_client_that_has_read_all_has_no_time_to_keep(times: int) -> None:
    async with on_a_wire(app(), TIMEOUT_S) as (connection, wire):
        for _ in range(times):
            wire.unread_bytes = 100_000
            connection.pause_writing()
            await asyncio.sleep(0.7 * TIMEOUT_S)
            wire.unread_bytes = 10_000
            connection.resume_writing()
        await asyncio.sleep(3 * TIMEOUT_S)
        assert not wire.aborted
