from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.redis.connection import (
    Call,
    ConnectError,
    ScriptConnection,
    Sent,
    Wait,
    begin_packed,
    pack,
    pack_call,
    packed_words,
    unpack,
)
from proxy.metering.redis.scripts import Script
from tests.support.virtual_time import run

SCRIPT = Script("test", "return {ARGV[1]}", "0" * 40)


class FakeTransport:
    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


class Seen:
    """A connection, its transport, and all that it has told."""

    def __init__(self) -> None:
        self.replies: list[tuple[Sent, Any]] = []
        self.lost: list[Sent] = []
        self.transport = FakeTransport()
        self.connection = ScriptConnection(
            lambda sent, reply: self.replies.append((sent, reply)), lambda _connection, lost: self.lost.extend(lost)
        )
        self.connection.connection_made(cast("asyncio.BaseTransport", self.transport))


def call(name: str) -> Call:
    return Call(SCRIPT, name.encode(), pack_call(SCRIPT, (), (name,)), asyncio.get_running_loop().create_future())


def resp(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_replies_go_to_their_calls_in_order_however_they_are_cut(sizes: list[int]) -> None:
    async def ask() -> None:
        seen = Seen()
        sent: list[Sent] = [call("a"), Wait(1, 100), call("b")]
        seen.connection.send(sent, now=7.0)
        assert seen.connection.oldest_sent == 7.0
        text, at = resp("a", "1") + b":2\r\n" + resp("b", "3"), 0
        for number in range(len(text)):
            size = sizes[number % len(sizes)]
            seen.connection.data_received(text[at : at + size])
            at += size
        assert seen.replies == [(sent[0], [b"a", b"1"]), (sent[1], 2), (sent[2], [b"b", b"3"])]
        assert seen.connection.oldest_sent is None

    run(ask())


def test_all_calls_are_one_write_and_can_be_made_again() -> None:
    async def ask() -> None:
        seen = Seen()
        calls = [call("a"), call("b")]
        seen.connection.send(calls, now=0.0)
        assert seen.transport.written == pack("EVALSHA", "0" * 40, 0, "a") + pack("EVALSHA", "0" * 40, 0, "b")
        assert unpack(calls[0].command) == [b"EVALSHA", b"0" * 40, b"0", b"a"]

    run(ask())


def test_a_script_that_redis_does_not_know_is_sent_with_its_text() -> None:
    async def ask() -> None:
        one = call("a")
        one.with_text = True
        assert one.packed() == pack("EVAL", SCRIPT.text, 0, "a")

    run(ask())


def test_a_command_is_put_together_of_two() -> None:
    both = begin_packed(23, pack("a", 1)) + packed_words(pack(*range(20), ""))
    assert both == pack("a", 1, *range(20), "")


@pytest.mark.parametrize(
    "bytes_of_nobody", [b":1\r\n", b"!no RESP\r\n"], ids=["a reply that nobody waits for", "no RESP"]
)
def test_what_nobody_asked_for_ends_the_connection(bytes_of_nobody: bytes) -> None:
    async def ask() -> None:
        seen = Seen()
        seen.connection.data_received(bytes_of_nobody)
        assert seen.transport.aborted
        assert seen.replies == []

    run(ask())


def test_calls_without_a_reply_are_given_back_once() -> None:
    async def ask() -> None:
        seen = Seen()
        calls = [call("a"), call("b")]
        seen.connection.send(calls, now=0.0)
        seen.connection.data_received(resp("a") + b"*1\r\n$1\r\n")
        seen.connection.connection_lost(None)
        assert [each for each, _ in seen.replies] == calls[:1]
        assert seen.lost == calls[1:]

    run(ask())


def test_an_error_is_a_reply_too() -> None:
    async def ask() -> None:
        seen = Seen()
        seen.connection.send([call("a")], now=0.0)
        seen.connection.data_received(b"-NOSCRIPT no such script\r\n")
        assert isinstance(seen.replies[0][1], hiredis.ReplyError)

    run(ask())


@pytest.mark.parametrize(
    ("answers", "refusal"),
    [
        (b"+OK\r\n+OK\r\n", None),
        (b"+OK\r\n-NOPERM may not name itself\r\n", None),
        (b"-WRONGPASS invalid\r\n", "WRONGPASS"),
        (b"+OK\r\n-ERR unknown\r\n", "ERR unknown"),
        (b"-NOPERM may not log in\r\n", "NOPERM"),
    ],
)
def test_a_greeting_is_refused_by_anything_but_the_right_to_a_name(answers: bytes, refusal: str | None) -> None:
    async def greet() -> None:
        seen = Seen()
        greeting = asyncio.ensure_future(seen.connection.greet([pack("AUTH", "x"), pack("CLIENT", "SETNAME", "x")]))
        await asyncio.sleep(0)
        seen.connection.data_received(answers)
        if refusal is None:
            await greeting
        else:
            with pytest.raises(ConnectError, match=refusal):
                await greeting

    run(greet())


def test_a_connection_that_is_lost_while_it_greets_says_so() -> None:
    async def greet() -> None:
        seen = Seen()
        greeting = asyncio.ensure_future(seen.connection.greet([pack("PING")]))
        await asyncio.sleep(0)
        seen.connection.connection_lost(OSError("reset"))
        with pytest.raises(ConnectError, match="reset"):
            await greeting

    run(greet())
