"""An answer whose HTTP is odd is delivered and charged, and no SDK has an image drawn twice for it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import openai
import orjson
import pytest

from tests.support.dialects import CHAT, DIALECTS, DRAWN, IMAGES, PNG, Stage, stage
from tests.support.scripted_provider import Reply


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway for all."""
    with stage(tmp_path_factory.mktemp("odd-http"), max_response=2_000_000) as made:
        yield made


def raw(body: bytes, *lines: str | bytes, status: int = 200, length: bool = True) -> Reply:
    given = [line if isinstance(line, bytes) else line.encode() for line in lines]
    if length:
        given.append(b"Content-Length: %d" % len(body))
    if not any(line.lower().startswith(b"content-type:") for line in given):
        given.append(b"Content-Type: application/json")
    head = b"\r\n".join([b"HTTP/1.1 %d Odd" % status, *given])
    return Reply(raw=head + b"\r\n\r\n" + body)


def check_delivered(play: Stage, dialect: str, path: str, reply: Reply) -> None:
    play.reply(reply)
    key = play.gateway.make_key(100_000)
    answer = play.ask(dialect, path, key=key)
    assert answer.status == 200, answer.body
    assert PNG.encode() in answer.body
    assert play.provider.received == 1
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", 1, 5_000)
    play.gateway.check_books(key)


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


HEADS: dict[str, list[str | bytes]] = {
    "one of 9 KB": ["Content-Security-Policy: " + "x" * 9_000],
    "one of 64 KB": ["Link: " + "x" * 65_500],
    "200 of them": [f"X-Header-{number}: value" for number in range(200)],
    "200 of 300 bytes": [f"X-Header-{number}: " + "v" * 290 for number in range(200)],
    "two equal types": ["Content-Type: application/json", "Content-Type: application/json"],
    "two equal types in two spellings": [
        "content-type: application/json; charset=utf-8",
        "CONTENT-TYPE: application/json",
    ],
    "other headers twice": ["Date: x", "Date: y", "Server: a", "Server: b", "Vary: a", "Vary: b", "ETag: a", "ETag: a"],
    "a blank before a colon": ["X-Odd : value"],
    "no value": ["X-Odd:"],
    "Latin letters": [b"X-Odd: caf\xe9"],
    "an early hint before it": [],
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize("name", HEADS)
def test_headers_of_any_size_and_number(play: Stage, dialect: str, path: str, name: str) -> None:
    body = DRAWN["openrouter"] if path == CHAT and dialect == "openai" else DRAWN[dialect]
    reply = raw(body, *HEADS[name])
    if name == "an early hint before it":
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        reply = Reply(raw=hint + reply.raw)
    check_delivered(play, dialect, path, reply)


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: {}"] * 2,
        ["content-length:{}", "X: y", "Content-Length: {}", "CONTENT-LENGTH: {}"],
        ["Content-Length: {}, {}"],
    ],
)
def test_a_length_that_is_repeated_is_one(play: Stage, lines: list[str]) -> None:
    body = DRAWN["openai"]
    given = [line.replace("{}", str(len(body))) for line in lines]
    check_delivered(play, "openai", IMAGES, raw(body, *given, length=False))


def test_chunks_count_where_a_length_stands_beside_them(play: Stage) -> None:
    body = chunked(DRAWN["openai"])
    check_delivered(play, "openai", IMAGES, raw(body, "Transfer-Encoding: chunked", "Content-Length: 7", length=False))
    twice = ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]
    check_delivered(play, "openai", IMAGES, raw(body, *twice, length=False))


def test_lengths_that_differ_are_no_answer_and_no_sdk_asks_again(play: Stage) -> None:
    play.reply(raw(DRAWN["openai"], "Content-Length: 5"))
    check_asked_once(play, "The provider's answer is no HTTP that can be read.")


def check_asked_once(play: Stage, message: str, *, dialect: str = "openai") -> None:
    key = play.gateway.make_key(100_000)
    with (
        openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=key) as sdk,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        sdk.images.generate(model=dialect, prompt="x")
    assert message in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert play.provider.received == 1
    (entry,) = play.gateway.ledger(key)
    assert entry["charged"] == 0
    play.gateway.check_books(key)


# --- Compressed though it was asked not to be -------------------------------------------------------------------------

ENCODINGS: dict[str, tuple[list[str], Callable[[bytes], bytes]]] = {
    "gzip": (["Content-Encoding: gzip"], gzip.compress),
    "x-gzip": (["Content-Encoding: x-gzip"], gzip.compress),
    "deflate": (["Content-Encoding: deflate"], zlib.compress),
    "not labelled": ([], gzip.compress),
    "labelled as identity": (["Content-Encoding: identity"], gzip.compress),
    "labelled and not compressed": (["Content-Encoding: gzip"], bytes),
    "in two members": (["Content-Encoding: gzip"], lambda body: gzip.compress(body[:40]) + gzip.compress(body[40:])),
    "twice labelled": (["Content-Encoding: gzip", "Content-Encoding: gzip"], gzip.compress),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize("name", ENCODINGS)
def test_what_is_compressed_is_delivered(play: Stage, dialect: str, path: str, name: str) -> None:
    lines, compress = ENCODINGS[name]
    body = DRAWN["openrouter"] if path == CHAT and dialect == "openai" else DRAWN[dialect]
    check_delivered(play, dialect, path, raw(compress(body), *lines))


def test_a_compressed_answer_in_small_chunks(play: Stage) -> None:
    body = gzip.compress(DRAWN["openai"])
    pieces = b"".join(b"1\r\n%b\r\n" % body[at : at + 1] for at in range(len(body)))
    lines = ["Transfer-Encoding: chunked", "Content-Encoding: gzip"]
    check_delivered(play, "openai", IMAGES, raw(pieces + b"0\r\n\r\n", *lines, length=False))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_stream(play: Stage, encoding: str) -> None:
    event = {"type": "image_generation.completed", "b64_json": PNG, "created_at": 1}
    events = b"event: image_generation.completed\ndata: " + orjson.dumps(event) + b"\n\n"
    body = gzip.compress(events) if encoding == "gzip" else zlib.compress(events)
    play.reply(raw(body, f"Content-Encoding: {encoding}", "Content-Type: text/event-stream"))
    key = play.gateway.make_key(100_000)
    answer = play.ask("openai", key=key, stream=True)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert PNG.encode() in answer.body
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("delivered", 5_000)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_compressed_refusal_is_told(play: Stage, dialect: str) -> None:
    error = {"error": {"message": "not this", "code": "moderation_blocked", "param": "prompt"}}
    play.reply(raw(gzip.compress(orjson.dumps(error)), "Content-Encoding: gzip", status=400))
    answer = play.ask(dialect)
    assert answer.status == 400
    told = answer.json["error"]
    assert (told["message"], told["code"], told["param"]) == ("not this", "moderation_blocked", "prompt")


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (gzip.compress(DRAWN["openai"])[:40], "gzip", "The provider's answer broke off."),
        (b"\x1b\x00\xf8\x25", "br", "The provider's answer is compressed (br)"),
        (b"\x28\xb5\x2f\xfd", "zstd", "The provider's answer is compressed (zstd)"),
        (b"\xff" * 100, "deflate", "The provider's answer cannot be decompressed."),
    ],
    ids=["truncated", "br", "zstd", "broken"],
)
def test_what_cannot_be_decompressed_is_not_asked_for_again(
    play: Stage, body: bytes, encoding: str, message: str
) -> None:
    play.reply(raw(body, f"Content-Encoding: {encoding}"))
    check_asked_once(play, message)


def test_a_bomb_ends_at_max_response(play: Stage) -> None:
    before = play.gateway.memory_bytes()
    bomb = gzip.compress(b'{"created":1,"data":[],"x":"' + b"x" * 200_000_000)
    play.reply(raw(bomb, "Content-Encoding: gzip"))
    check_asked_once(play, "The provider's answer is longer than 2,000,000 bytes.")
    assert play.gateway.memory_bytes() - before < 50_000_000
