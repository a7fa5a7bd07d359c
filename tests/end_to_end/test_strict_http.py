"""What is no HTTP/1.1, on both listeners: refused in OpenAI's form, told to nobody, and the end of its connection."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass

import openai
import pytest
from openai import OpenAI

from tests.support.gateways import ADMIN_TOKEN, RunningGateway
from tests.support.raw_http import Exchange, exchange

BODY = json.dumps({"model": "acme/image-1", "prompt": "a cube"}).encode()
CANARY = "canary-7391"
"""Stands in everything that is malformed, and must come back in no answer."""

PUBLIC, ADMIN = "public", "admin"


@dataclass(frozen=True)
class Target:
    """A listener, and a good request to it."""

    url: str
    path: bytes
    secret: str

    def head(self, *headers: bytes, line: bytes | None = None, host: bytes | None = b"Host: lightmeter") -> bytes:
        """The head of a POST; ``host`` is its Host header, None for none."""
        first = line or b"POST " + self.path + b" HTTP/1.1"
        common = (b"Authorization: Bearer " + self.secret.encode(), b"Content-Type: application/json")
        return b"\r\n".join((first, *((host,) if host is not None else ()), *common, *headers, b"", b""))


@pytest.fixture(params=[PUBLIC, ADMIN])
def target(request: pytest.FixtureRequest, gateway: RunningGateway) -> Target:
    if request.param == ADMIN:
        return Target(gateway.admin_url, b"/admin/v1/keys", ADMIN_TOKEN)
    return Target(gateway.url, b"/v1/images/generations", gateway.make_key())


def length(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d" % len(body)


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
AUTHORITIES = [
    b"", b"a b", b"user@lightmeter", b"lightmeter/path", b"lightmeter,other", b"lightmeter:port", b"lightmeter:99999",
    b"[::1", b"[::g]", b"[1.2.3.4]", b"::1", b"lightm\xc3\xa4ter", b"light\xfcmeter", b"lightmeter?x", b"lightmeter#x",
    b"a" * 300,
]  # fmt: skip

# A case is the pieces that are sent, made for a target, and the status that comes back.
LINES = {
    "RTSP": b"POST %b RTSP/1.0",
    "RTSP, as 1.1": b"POST %b RTSP/1.1",
    "HTTP/0.9": b"POST %b HTTP/0.9",
    "HTTP/2.0": b"POST %b HTTP/2.0",
    "HTTP/3.7": b"POST %b HTTP/3.7",
    "no version": b"POST %b",
    "two blanks before the target": b"POST  %b HTTP/1.1",
    "two blanks behind the target": b"POST %b  HTTP/1.1",
    "a tab": b"POST\t%b HTTP/1.1",
    "an unknown method": b"POSTcanary-7391 %b HTTP/1.1",
    "small letters": b"post %b HTTP/1.1",
    "an absolute target": b"POST http://canary-7391%b HTTP/1.1",
    "an authority": b"POST canary-7391:80 HTTP/1.1",
    "CONNECT": b"CONNECT canary-7391:80 HTTP/1.1",
    "an asterisk": b"OPTIONS * HTTP/1.1",
    "HTTP/2's first words": b"PRI * HTTP/2.0",
}


def check_refused(answered: Exchange, status: int) -> None:
    """One answer in OpenAI's form, and then the end."""
    (answer,) = answered.answers
    assert answer.status == status, answer.body
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["Server"] == "lightmeter"
    assert answer.headers.get("Connection") == "close" or answered.received.startswith(b"HTTP/1.0 ")
    assert answered.closed
    assert CANARY.encode() not in answered.received


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_bad_request_line(target: Target, line: bytes) -> None:
    first = line.replace(b"%b", target.path)
    request = target.head(length(), line=first) + BODY
    check_refused(exchange(target.url, request), 400)


@pytest.mark.parametrize("line", [LINES["RTSP"], LINES["two blanks before the target"]])
def test_a_bad_request_line_that_comes_in_pieces(target: Target, line: bytes) -> None:
    request = target.head(length(), line=line.replace(b"%b", target.path)) + BODY
    check_refused(exchange(target.url, request[:3], request[3:9], request[9:40], request[40:]), 400)


@pytest.mark.parametrize("host", AUTHORITIES)
def test_a_bad_host(target: Target, host: bytes) -> None:
    check_refused(exchange(target.url, target.head(length(), host=b"Host: " + host) + BODY), 400)


@pytest.mark.parametrize(
    "host", [b"lightmeter", b"lightmeter:8080", b"10.0.0.1:80", b"[::1]:8080", b"[fe80::1]", b"a_b.c-d"]
)
def test_a_good_host(gateway: RunningGateway, host: bytes) -> None:
    answered = exchange(gateway.admin_url, b"GET /healthz HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)
    assert [answer.status for answer in answered.answers] == [200]


HEADERS = {
    "no host": ((), None, 400),
    "two hosts": ((b"Host: lightmeter",), b"Host: lightmeter", 400),
    "Connection: content-length": ((b"Connection: content-length",), b"Host: lightmeter", 400),
    "Connection, twice": ((b"Connection: close", b"Connection: x, Authorization"), b"Host: lightmeter", 400),
    "two codings": ((b"Content-Encoding: identity", b"Content-Encoding: gzip"), b"Host: lightmeter", 400),
    "a blank before the colon": ((b"X-Canary : canary-7391",), b"Host: lightmeter", 400),
    "a folded header": ((b"X-A: b", b" canary-7391"), b"Host: lightmeter", 400),
    "a NUL": ((b"X-A: canary-7391\0",), b"Host: lightmeter", 400),
    "a bare CR": ((b"X-A: a\rcanary-7391: b",), b"Host: lightmeter", 400),
    "no name": ((b": canary-7391",), b"Host: lightmeter", 400),
    "a header of 33 kB": ((b"X-A: canary-7391" + b"a" * 33_000,), b"Host: lightmeter", 431),
    "a header of 100 kB": ((b"Cookie: canary-7391" + b"a" * 100_000,), b"Host: lightmeter", 431),
    "a header of 3 MB": ((b"Cookie: canary-7391" + b"a" * 3_000_000,), b"Host: lightmeter", 431),
    "a header of 3 MB of blanks": ((b"Cookie:" + b" " * 3_000_000,), b"Host: lightmeter", 431),
    "a name of 33 kB": ((b"canary-7391" + b"a" * 33_000 + b": b",), b"Host: lightmeter", 431),
    "300 headers": (tuple(b"X-%d: canary-7391" % number for number in range(300)), b"Host: lightmeter", 431),
    "3,000 headers": (tuple(b"X-%d: canary-7391" % number for number in range(3_000)), b"Host: lightmeter", 431),
    "5 headers of 31 kB": (tuple(b"X-%d: canary-7391" % n + b"a" * 31_000 for n in range(5)), b"Host: lightmeter", 431),
    "another expectation": ((b"Expect: 200-ok",), b"Host: lightmeter", 417),
    "a list of expectations": ((b"Expect: 100-continue, x",), b"Host: lightmeter", 417),
    "a length with a sign": ((b"Content-Length: +5",), b"Host: lightmeter", 400),
    "two lengths": ((b"Content-Length: 1",), b"Host: lightmeter", 400),
    "length and chunks": ((b"Transfer-Encoding: chunked",), b"Host: lightmeter", 400),
}


@pytest.mark.parametrize(("headers", "host", "status"), HEADERS.values(), ids=HEADERS)
def test_bad_headers(target: Target, headers: tuple[bytes, ...], host: bytes | None, status: int) -> None:
    check_refused(exchange(target.url, target.head(*headers, length(), host=host) + BODY), status)


@pytest.mark.parametrize(
    "size", [b"abc", b"", b"+5", b"-1", b"0x5", b"1 2", b"5, 5", b"5, 6", b"5.0", b"\xd9\xa5", b"1" * 40]
)
def test_a_length_that_is_no_number(target: Target, size: bytes) -> None:
    check_refused(exchange(target.url, target.head(b"Content-Length: " + size) + BODY), 400)


LARGE_HEADERS = {
    "a header of 9 kB": (b"Cookie: sso=" + b"a" * 9_000,),
    "a header of 32 kB": (b"Cookie: sso=" + b"a" * 32_000,),
    "4 headers of 30 kB": tuple(b"X-%d: a" % number + b"a" * 30_000 for number in range(4)),
    "200 headers": tuple(b"X-%d: a" % number for number in range(200)),
    "200 headers of 500 bytes": tuple(b"X-%d: a" % number + b"a" * 500 for number in range(200)),
}


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("headers", LARGE_HEADERS.values(), ids=LARGE_HEADERS)
def test_headers_as_large_as_single_sign_on_makes_them(
    gateway: RunningGateway, headers: tuple[bytes, ...], pieces: int
) -> None:
    target = Target(gateway.url, b"/v1/images/generations", gateway.make_key())
    sent = target.head(*headers, length()) + BODY
    size = -(-len(sent) // pieces)
    answered = exchange(target.url, *(sent[at : at + size] for at in range(0, len(sent), size)), silence_s=3)
    assert [answer.status for answer in answered.answers] == [200]
    assert not answered.closed


@pytest.mark.parametrize("size", [33_000, 100_000, 1_000_000])
def test_an_sdk_shows_why_its_headers_are_refused(gateway: RunningGateway, size: int) -> None:
    headers = {"Cookie": "sso=" + "a" * size}
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.make_key(), default_headers=headers, max_retries=0) as sdk,
        pytest.raises(openai.APIStatusError, match="too long") as caught,
    ):
        sdk.images.generate(model="acme/image-1", prompt="a cube")
    assert caught.value.status_code == 431
    assert str(caught.value.request_id).startswith("req_")


def test_a_request_line_of_9_kb_is_no_reason(target: Target) -> None:
    line = b"GET /" + b"a" * 9_000 + b" HTTP/1.1"
    (answer,) = exchange(target.url, target.head(line=line)).answers
    assert answer.status == 404


def test_a_target_of_33_kb(target: Target) -> None:
    line = b"GET /" + b"a" * 33_000 + b" HTTP/1.1"
    check_refused(exchange(target.url, target.head(line=line)), 431)


def test_a_head_that_never_ends(target: Target) -> None:
    for endless in (b"\r\n" * 100_000, b"GET / HTTP/1.1\r\n" + b"".join(b"X: %d\r\n" % n for n in range(50_000))):
        check_refused(exchange(target.url, endless[:1_000], endless[1_000:]), 431)


def test_tls_on_a_plain_port(target: Target) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="lightmeter")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for pieces in ((hello,), (hello[:1], hello[1:]), (hello + b"\r\n\r\n",)):
        check_refused(exchange(target.url, *pieces), 400)


CODINGS = [
    (b"HTTP/1.0", b"chunked"), (b"HTTP/1.0", b"identity"), (b"HTTP/1.1", b"gzip, chunked"), (b"HTTP/1.1", b"gzip"),
    (b"HTTP/1.1", b"identity, chunked"), (b"HTTP/1.1", b",chunked"), (b"HTTP/1.1", b"chunked, chunked"),
    (b"HTTP/1.1", b"xchunked"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "coding"), CODINGS)
def test_after_framing_that_is_not_certain_nothing_is_run(target: Target, version: bytes, coding: bytes) -> None:
    line = b"POST " + target.path + b" " + version
    first = target.head(b"Transfer-Encoding: " + coding, b"Connection: keep-alive", line=line) + CHUNKED
    second = b"GET /v1/key HTTP/1.1\r\nHost: lightmeter\r\n\r\n"
    answered = exchange(target.url, first + second)
    check_refused(answered, 400)


CHUNKS = {
    "no number": b"canary-7391\r\n",
    "a sign": b"+5\r\nhello\r\n",
    "a prefix": b"0x5\r\nhello\r\n",
    "too long by one": b"5\r\nhelloX\r\n",
    "a bare line feed": b"5\nhello\n",
    "a blank before": b" 5\r\nhello\r\n",
    "2^64": b"10000000000000000\r\n",
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_bad_chunk_is_told_at_once(target: Target, chunk: bytes, pieces: int) -> None:
    head = target.head(b"Transfer-Encoding: chunked")
    sent = (head + b"1\r\n{\r\n" + chunk,) if pieces == 1 else (head, b"1\r\n{\r\n", chunk)
    answered = exchange(target.url, *sent, silence_s=3)
    check_refused(answered, 400)
    assert answered.took_s < 2.5


def test_endless_chunk_extensions(target: Target) -> None:
    head = target.head(b"Transfer-Encoding: chunked")
    answered = exchange(target.url, head, b"1;" + b"a" * 30_000, silence_s=3)
    check_refused(answered, 400)
    assert "framing outweighs" in answered.answers[0].json["error"]["message"]


def test_nothing_is_spoken_but_http(target: Target) -> None:
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: lightmeter\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    behind = target.head(b"Transfer-Encoding: chunked") + b"1\r\na\r\n" * 10_000
    answered = exchange(target.url, upgrade + behind, behind)
    (answer,) = answered.answers
    assert answer.headers["Connection"] == "close"
    assert answered.closed
    assert answered.took_s < 1


BEHIND = {
    "no HTTP": b"NONSENSE\r\n\r\n",
    "a body longer than its length": b"}",
    "a bad header": b"GET /nowhere HTTP/1.1\r\nHost: lightmeter\r\nX-A : b\r\n\r\n",
    "RTSP": b"GET /nowhere RTSP/1.0\r\nHost: lightmeter\r\n\r\n\0",
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_is_behind_a_good_request_does_it_no_harm(gateway: RunningGateway, behind: bytes) -> None:
    key = gateway.make_key()
    target = Target(gateway.url, b"/v1/images/generations", key)
    answered = exchange(target.url, target.head(length()) + BODY + behind, silence_s=5)
    good, bad = answered.answers
    assert (good.status, bad.status) == (200, 400)
    assert answered.closed
    assert len(gateway.ledger(key)) == 1
    # The same for chunks, and for what has no body.
    answered = exchange(target.url, target.head(b"Transfer-Encoding: chunked") + CHUNKED + behind, silence_s=5)
    assert [answer.status for answer in answered.answers] == [200, 400]
    get = b"GET /healthz HTTP/1.1\r\nHost: lightmeter\r\n\r\n"
    answered = exchange(gateway.admin_url, get * 3 + behind)
    assert [answer.status for answer in answered.answers] == [200, 200, 200, 400]
    answered = exchange(gateway.admin_url, get, get * 2 + behind)
    assert [answer.status for answer in answered.answers] == [200, 200, 200, 400]


def test_chunks_of_a_sensible_size_pass(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    body = json.dumps({"model": "acme/image-1", "prompt": "a cube " * 3_000}).encode()
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[at : at + 100] for at in range(0, len(body), 100))
    )
    target = Target(gateway.url, b"/v1/images/generations", key)
    answered = exchange(target.url, target.head(b"Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n", silence_s=5)
    assert [answer.status for answer in answered.answers] == [200]
    assert not answered.closed


def test_a_json_encoder_that_writes_a_chunk_for_each_word_passes(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    words = list(json.JSONEncoder().iterencode({"model": "acme/image-1", "prompt": "a cube", "user": "x" * 20}))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(word), word.encode()) for word in words)
    target = Target(gateway.url, b"/v1/images/generations", key)
    answered = exchange(target.url, target.head(b"Transfer-Encoding: chunked"), chunks, b"0\r\n\r\n", silence_s=5)
    assert [answer.status for answer in answered.answers] == [200]


def test_a_refusal_is_logged_and_counted(gateway: RunningGateway) -> None:
    for url, endpoint in ((gateway.url, "other"), (gateway.admin_url, "admin")):
        (answer,) = exchange(url, b"NONSENSE canary-7391\r\n\r\n").answers
        gateway.server.wait_for_output(answer.headers["x-request-id"])
        (line,) = [line for line in gateway.server.output.splitlines() if answer.headers["x-request-id"] in line]
        logged = json.loads(line)
        assert (logged["endpoint"], logged["status"], logged["error"]) == (endpoint, 400, "invalid_request")
        counted = f'lightmeter_requests_total{{endpoint="{endpoint}",model="",outcome="rejected"}}'
        assert counted in gateway.metrics()
    assert CANARY not in gateway.server.output


@pytest.mark.parametrize("path", [b"/v1/images/generations", b"/v1/models", b"/nowhere"])
def test_a_stranger_is_never_told_to_go_on(gateway: RunningGateway, path: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: lightmeter\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    # Whether its body comes now or its next request, nobody can tell.
    (answer,) = exchange(gateway.url, head, b"GET /v1/k HTTP/1.1\r\nHost: lightmeter\r\n\r\n").answers
    assert answer.status in (401, 404, 405)
    assert answer.headers["Connection"] == "close"


def test_an_admin_is_told_to_go_on_once_and_a_stranger_never(gateway: RunningGateway) -> None:
    body = json.dumps({"team": "acme"}).encode()
    target = Target(gateway.admin_url, b"/admin/v1/keys", ADMIN_TOKEN)
    expecting = target.head(b"Content-Length: %d" % len(body), b"Expect: 100-continue", b"Connection: close")
    received = exchange(target.url, expecting, body, silence_s=5).received
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")
    assert received.count(b"100 Continue") == 1
    stranger = Target(gateway.admin_url, target.path, "")
    (answer,) = exchange(stranger.url, stranger.head(length(), b"Expect: 100-continue")).answers
    assert answer.status == 401


def test_request_ids_tell_nothing_of_each_other(gateway: RunningGateway) -> None:
    requests = b"GET /healthz HTTP/1.1\r\nHost: lightmeter\r\n\r\n" * 20
    ids = [
        answer.headers["x-request-id"].removeprefix("req_") for answer in exchange(gateway.admin_url, requests).answers
    ]
    assert len(set(ids)) == 20
    assert all(len(text) == 24 and int(text, 16) >= 0 for text in ids)
    # Neither a common beginning, nor one step between two of them.
    assert len({text[:8] for text in ids}) == 20
    assert len({text[-8:] for text in ids}) == 20
