from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from proxy.domain.errors import InvalidRequest, PayloadTooLarge, ProxyError, RequestTimeout, UnsupportedMediaType
from proxy.web.intake.request_body import CONTINUE, EXPECTS_CONTINUE, read_json_body
from tests.support.virtual_time import now_s, run

LIMIT = 10
TIMEOUT_S = 5.0

Send = Callable[[StreamReader], Awaitable[None]]


class Client:
    """A request, and what its client has been sent while it waits."""

    def __init__(self, *, expects_continue: bool = False, **headers: str) -> None:
        self.content = StreamReader(mock.create_autospec(BaseProtocol, instance=True), 2**16)
        self.transport = mock.create_autospec(asyncio.Transport, instance=True)
        given = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        self.request = make_mocked_request("POST", "/", given, payload=self.content, transport=self.transport)
        if expects_continue:
            self.request[EXPECTS_CONTINUE] = True

    def whole(self, body: bytes) -> Client:
        """All of it has come with the head."""
        self.content.feed_data(body)
        self.content.feed_eof()
        return self

    async def read(self) -> bytes:
        return await read_json_body(self.request, limit_bytes=LIMIT, timeout_s=TIMEOUT_S)

    @property
    def written(self) -> list[bytes]:
        return [call.args[0] for call in self.transport.write.call_args_list]


def read_while(send: Send, **client: Any) -> tuple[bytes | ProxyError, float]:
    """What is read of a body that ``send`` sends meanwhile, or why it is refused; and when, in seconds."""

    async def both() -> tuple[bytes | ProxyError, float]:
        sender = Client(**client)
        sending = asyncio.ensure_future(send(sender.content))
        try:
            return await sender.read(), now_s()
        except ProxyError as error:
            return error, now_s()
        finally:
            sending.cancel()

    return run(both())


def pieces(*body: bytes, every_s: float = 1.0, end: bool = True) -> Send:
    async def send(content: StreamReader) -> None:
        for piece in body:
            await asyncio.sleep(every_s)
            content.feed_data(piece)
        if end:
            content.feed_eof()

    return send


def breaking_off(error: Exception) -> Send:
    async def send(content: StreamReader) -> None:
        content.feed_data(b"{")
        await asyncio.sleep(1)
        content.set_exception(error)

    return send


def test_a_body_that_is_there_is_read_without_a_wait() -> None:
    async def read() -> bytes:
        # Nothing else of the event loop runs: a body that was waited for would be there too late.
        reading = Client().whole(b'{"a":1}').read()
        with pytest.raises(StopIteration) as stop:
            reading.send(None)
        body: bytes = stop.value.value
        return body

    assert run(read()) == b'{"a":1}'


def test_pieces_are_put_together_when_the_last_one_has_come() -> None:
    assert read_while(pieces(b'{"a"', b":1", b"}")) == (b'{"a":1}', 3)


@pytest.mark.parametrize("body", [(b"12345", b"67890"), (b"1234567890",)])
def test_a_body_of_just_the_limit_is_read(body: tuple[bytes, ...]) -> None:
    assert read_while(pieces(*body))[0] == b"1234567890"
    assert run(read_at_once(b"".join(body))) == b"1234567890"


async def read_at_once(body: bytes) -> bytes:
    return await Client().whole(body).read()


def test_a_body_over_the_limit_is_refused_at_the_first_byte_too_many() -> None:
    refusal, at_s = read_while(pieces(b"12345", b"678901", b"never waited for"))
    assert isinstance(refusal, PayloadTooLarge)
    assert "larger than the 10 bytes" in refusal.message
    assert at_s == 2
    with pytest.raises(PayloadTooLarge):
        run(read_at_once(b"12345678901"))


def test_a_body_that_says_that_it_is_too_large_is_not_waited_for() -> None:
    refusal, at_s = read_while(pieces(b"12345678901"), Content_Length="11")
    assert (type(refusal), at_s) == (PayloadTooLarge, 0)
    assert read_while(pieces(b"1234567890"), Content_Length="10") == (b"1234567890", 1)


@pytest.mark.parametrize("sent", [(), (b"{",), (b"{", b"}", b" ", b" ", b" ", b" ")])
def test_a_body_has_one_time_for_all_of_it(sent: tuple[bytes, ...]) -> None:
    refusal, at_s = read_while(pieces(*sent, end=False))
    assert isinstance(refusal, RequestTimeout)
    assert "within 5 seconds" in refusal.message
    assert at_s == TIMEOUT_S


@pytest.mark.parametrize(
    "kind", [web.RequestPayloadError, TransferEncodingError, ConnectionResetError, ConnectionAbortedError]
)
def test_a_body_that_breaks_off_is_the_clients_mistake(kind: type[Exception]) -> None:
    # Made here: an error in the table above would hold, by its traceback, all that was read.
    refusal, at_s = read_while(breaking_off(kind("x")))
    assert isinstance(refusal, InvalidRequest)
    assert "broke off" in refusal.message
    assert at_s == 1


def test_an_error_of_our_own_is_not_the_clients() -> None:
    with pytest.raises(RuntimeError):
        read_while(breaking_off(RuntimeError("a bug")))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": "identity, gzip"},
    ],
)
def test_what_is_no_plain_json_is_refused_before_any_of_it_is_read(headers: dict[str, str]) -> None:
    refusal, at_s = read_while(pieces(b"{}"), **headers)
    assert (type(refusal), at_s) == (UnsupportedMediaType, 0)


@pytest.mark.parametrize(
    "headers", [{"Content_Type": "application/json; charset=utf-8"}, {"Content_Encoding": "identity"}]
)
def test_json_may_say_what_it_is_in_other_words(headers: dict[str, str]) -> None:
    assert read_while(pieces(b"{}"), **headers) == (b"{}", 1)


@pytest.mark.parametrize(
    ("headers", "there", "told"),
    [
        ({}, b"", [CONTINUE]),
        # Its body has come already: there is nothing to wait for.
        ({}, b"{}", []),
        # A client that is refused must not send its body first.
        ({"Content_Length": "11"}, b"", []),
        ({"Content_Type": "text/plain"}, b"", []),
    ],
)
def test_a_client_that_asks_first_is_told_to_go_on_once_and_only_where_its_body_is_wanted(
    headers: dict[str, str], there: bytes, told: list[bytes]
) -> None:
    async def ask() -> list[bytes]:
        client = Client(expects_continue=True, **headers)
        if there:
            client.whole(there)
        for _ in range(2):
            with suppress(ProxyError):
                await client.read()
        return client.written

    assert run(ask()) == told


def test_a_client_that_does_not_ask_is_told_nothing() -> None:
    async def ask() -> list[bytes]:
        client = Client()
        with pytest.raises(RequestTimeout):
            await client.read()
        return client.written

    assert run(ask()) == []


@pytest.mark.parametrize("after_s", [0, 0.5, 1.5, 4.5])
def test_a_cancelled_read_ends_as_cancelled_wherever_it_waits(after_s: float) -> None:
    async def cancel() -> float:
        client = Client()
        sending = asyncio.ensure_future(pieces(b"{", b"1", b"2", end=False)(client.content))
        reading = asyncio.create_task(client.read())
        await asyncio.sleep(after_s)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        sending.cancel()
        return now_s()

    assert run(cancel()) == after_s


@pytest.mark.parametrize("first", ["the end of its time", "the cancellation"])
def test_a_cancellation_at_the_moment_of_the_timeout_is_not_lost(first: str) -> None:
    async def cancel() -> type[BaseException]:
        client, loop = Client(), asyncio.get_running_loop()
        reading = asyncio.create_task(client.read())
        if first == "the cancellation":
            loop.call_at(TIMEOUT_S, reading.cancel)
        await asyncio.sleep(0)
        if first == "the end of its time":
            loop.call_at(TIMEOUT_S, reading.cancel)
        with pytest.raises((asyncio.CancelledError, ProxyError)) as ended:
            await reading
        return ended.type

    assert run(cancel()) is asyncio.CancelledError
