"""However a client's bytes are cut into segments, they are the same requests."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.observation import request_ids
from proxy.web.intake.request_body import accept_body
from proxy.web.middleware.errors import errors
from proxy.web.middleware.observe import number
from proxy.web.server.lifecycle import Lifecycle
from tests.support.examples import examples
from tests.web.wire import on_a_wire


async def echo(request: web.Request) -> web.Response:
    accept_body(request)
    return web.Response(text=f"{request.path} {len(await request.read())}")


async def serve(segments: list[bytes]) -> tuple[bytes, bool]:
    """What is answered to ``segments``, and whether the connection is closed then."""
    app = web.Application(middlewares=[number(request_ids()), errors(Lifecycle())])
    app.router.add_route("*", "/{tail:.*}", echo)
    async with on_a_wire(app) as (connection, wire):
        for segment in segments:
            if wire.closed:
                break
            connection.data_received(segment)
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        return wire.written, wire.closed


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


bodies = st.binary(max_size=200) | st.sampled_from([b"POST /x HTTP/1.1\r\n\r\n", b"GET  /y RTSP/1.0\r\n", b"\r\n\r\n"])


@st.composite
def good_requests(draw: st.DrawFn) -> tuple[bytes, str]:
    """A request, and what is answered to it."""
    path = draw(st.sampled_from(["/", "/a", "/a?b=c", "/" + "x" * 200]))
    body = draw(bodies)
    headers = draw(st.sampled_from([b"", b"X-A: POST /x HTTP/1.1\r\n", b"X-A: GET  / RTSP/1.0\r\nB:\r\n"]))
    before = draw(st.sampled_from([b"", b"\r\n"]))
    kind = draw(st.sampled_from(["none", "length", "chunks"]))
    if kind == "none":
        head, framed, body = b"GET %b HTTP/1.1\r\n", b"", b""
    elif kind == "length":
        head, framed = b"POST %%b HTTP/1.1\r\nContent-Length: %d\r\n" % len(body), body
    else:
        head, framed = b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", chunked(body, draw(st.integers(1, 50)))
    request = before + head % path.encode() + b"Host: h\r\n" + headers + b"\r\n" + framed
    return request, f"{path.partition('?')[0]} {len(body)}"


bad_requests = st.sampled_from(
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
        b"\0",
        b"GET / HTTP/2.0\r\n\r\n",
    ]
)
STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")


def cut(sent: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(sent), *(place % (len(sent) + 1) for place in places)})
    return [sent[start:end] for start, end in pairwise(edges)]


def run(segments: list[bytes]) -> tuple[bytes, bool]:
    with asyncio.Runner() as runner:
        return runner.run(serve(segments))


@examples(150, deadline=2_000)
@given(st.lists(good_requests(), min_size=1, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_good_requests_are_answered_in_their_order_however_they_are_cut(
    requests: list[tuple[bytes, str]], places: list[int]
) -> None:
    answered, closed = run(cut(b"".join(request for request, _ in requests), places))
    assert STATUS.findall(answered) == [b"200"] * len(requests), answered
    assert [line.decode() for line in re.findall(rb"\r\n\r\n(/[^ ]* \d+)", answered)] == [told for _, told in requests]
    assert not closed


@pytest.mark.parametrize(("values", "status"), [(4, b"200"), (5, b"431")])
@pytest.mark.parametrize(
    "places", [[], [1], [70_000], [131_000], [131_071, 131_072, 131_073], [*range(0, 150_000, 999)]]
)
def test_all_headers_together_have_a_limit_however_they_are_cut(values: int, status: bytes, places: list[int]) -> None:
    lines = [b"GET /a HTTP/1.1", b"Host: h", *(b"X-%d: " % number + b"a" * 32_000 for number in range(values))]
    sent = b"\r\n".join([*lines, b"", b""])
    answered, closed = run(cut(sent, places))
    assert (STATUS.findall(answered), closed) == ([status], status == b"431")


def test_a_limit_of_headers_is_not_for_what_is_before_them() -> None:
    body = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n", b"a" * 200_000
    behind = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    for pieces in ([*body, behind], [body[0], body[1] + behind], [b"".join(body) + behind]):
        assert set(STATUS.findall(run(pieces)[0])) == {b"200"}


def test_a_head_that_came_in_pieces_is_read_again_whole() -> None:
    # Without its middle, this would be a request that nobody has sent.
    start = b"GET /a HTTP/1.1\r\nHost: h\r\nX-A: " + b"a" * 7_000 + b"\r\nX-B: " + b"b" * 7_000
    whole = [start, b"\r\nX-C: c", b"\r\n\r\n", b"\0"]
    answered, closed = run(whole)
    assert (STATUS.findall(answered), closed) == ([b"200", b"400"], True)
    answered, closed = run([start, b"\r\nTransfer-Encoding: chunked", b"\r\n\r\nZ\r\n"])
    assert (STATUS.findall(answered), closed) == ([b"400"], True)


@examples(150, deadline=2_000)
@given(
    st.lists(good_requests(), max_size=4), bad_requests, good_requests(), st.lists(st.integers(0, 10_000), max_size=8)
)
def test_nothing_is_run_behind_a_bad_one_however_they_are_cut(
    requests: list[tuple[bytes, str]], bad: bytes, behind: tuple[bytes, str], places: list[int]
) -> None:
    sent = b"".join(request for request, _ in requests) + bad
    answered, closed = run(cut(sent + behind[0], places))
    statuses = STATUS.findall(answered)
    assert statuses[-1] == b"400"
    assert set(statuses[:-1]) <= {b"200"}
    assert len(statuses) <= len(requests) + 1
    assert closed


fragments = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"Host: h\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"Expect: x\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"5;a=b\r\n",
        b"hello",
        b"X-A: b\r\n",
    ]
)


@examples(300, deadline=2_000)
@given(st.lists(fragments | st.binary(max_size=20), max_size=25), st.lists(st.integers(0, 10_000), max_size=5))
def test_whatever_is_sent_is_answered_in_one_form_or_not_at_all(sent: list[bytes], places: list[int]) -> None:
    answered, closed = run(cut(b"".join(sent), places))
    statuses = [int(status) for status in STATUS.findall(answered)]
    assert set(statuses) <= {100, 200, 400, 404, 417, 431}
    final = [status for status in statuses if status != 100]
    assert answered.count(b"\r\nx-request-id: req_") == len(final)
    if closed:
        assert b"\r\nConnection: close\r\n" in answered
    assert answered.count(b'{"error":{') == sum(status >= 400 for status in final)
