"""What providers say when they fail, on its way to the client and into the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.support.dialects import CHAT, DIALECTS, DRAWN, IMAGES, Stage, stage
from tests.support.scripted_provider import Reply


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway for all: no failure leaves anything behind."""
    with stage(tmp_path_factory.mktemp("reports")) as made:
        yield made


def failing(status: int, body: Any, **headers: str) -> Reply:
    return Reply(status, headers, body if isinstance(body, bytes) else orjson.dumps(body))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, {"error": {"message": "bad", "code": "invalid_value", "param": "image[0]"}},
         ("bad", "image[0]", "invalid_value")),
        (400, {"error": {"message": "bad", "param": "messages[0].content"}},
         ("bad", "messages[0].content", "provider_refusal")),
        (400, [{"error": {"message": "bad"}}], ("bad", None, "provider_refusal")),
        (400, {"detail": "Invalid size"}, ("Invalid size", None, "provider_refusal")),
        (422, {"detail": [{"loc": ["body", "size"], "msg": "no such size", "type": "enum"}]},
         ("size: no such size", "size", "provider_refusal")),
        (400, {"message": "size not supported"}, ("size not supported", None, "provider_refusal")),
        (400, {"errors": [{"message": "moderation"}]}, ("moderation", None, "provider_refusal")),
        (400, {"error": {"error": {"message": "bad", "code": "x"}}}, ("bad", None, "x")),
        (400, b"Bad prompt", ("Bad prompt", None, "provider_refusal")),
        (413, b"<html><head><title>413 Too Large</title></head><body>nginx</body></html>",
         ("413 Too Large", None, "provider_refusal")),
        (400, b'\xef\xbb\xbf{"error":{"message":"bad"}}', ("bad", None, "provider_refusal")),
    ],
)  # fmt: skip
def test_a_refusal_is_told_however_it_is_written(
    play: Stage, dialect: str, path: str, status: int, body: Any, told: tuple[str, str | None, str]
) -> None:
    play.reply(failing(status, body))
    answer = play.ask(dialect, path)
    error = answer.json["error"]
    assert (answer.status, (error["message"], error["param"], error["code"])) == (status, told)
    assert play.provider.received == 1


@pytest.mark.parametrize("path", [IMAGES, CHAT])
def test_googles_reasons_and_the_fields_at_fault_are_told(play: Stage, path: str) -> None:
    google = "type.googleapis.com/google.rpc."
    details = [
        {"@type": f"{google}ErrorInfo", "reason": "SIZE_UNKNOWN"},
        {"@type": f"{google}BadRequest", "fieldViolations": [{"field": "size", "description": "not one of them"}]},
    ]
    error = {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT"}
    play.reply(failing(400, {"error": {**error, "details": details}}))
    told = play.ask("gemini", path).json["error"]
    assert told["message"] == "Request contains an invalid argument.; size: not one of them (SIZE_UNKNOWN)"
    assert told["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("code", "status", "error_code"),
    [
        (429, 429, "upstream_rate_limit"),
        ("429", 429, "upstream_rate_limit"),
        (403, 400, "provider_refusal"),
        (408, 504, "upstream_timeout"),
        (400, 400, "provider_refusal"),
        (401, 502, "upstream_error"),
        (502, 502, "upstream_error"),
    ],
)
def test_an_error_in_a_200_is_answered_as_its_status_would_be(
    play: Stage, dialect: str, path: str, kind: str, code: int | str, status: int, error_code: str, *, stream: bool
) -> None:
    body = orjson.dumps({"error": {"code": code, "message": "Provider returned error"}})
    written = b"data: %b\n\n" % body if kind == "text/event-stream" else body
    play.reply(Reply(200, {"Content-Type": kind}, written))
    key = play.gateway.make_key(100_000)
    answer = play.ask(dialect, path, key=key, **({"stream": True} if stream else {}))
    assert (answer.status, answer.json["error"]["code"]) == (status, error_code)
    (entry,) = play.gateway.ledger(key)
    assert (entry["charged"], entry["images"]) == (0, 0)
    play.gateway.check_books(key)


def test_the_log_has_the_providers_own_word(play: Stage) -> None:
    for dialect, status in zip(DIALECTS, (400, 200, 500), strict=True):
        word = f"word_of_{dialect}_{status}"
        play.reply(failing(status, {"error": {"code": word, "message": "no"}}))
        play.ask(dialect, CHAT)
        line = play.gateway.server.wait_for_output(rf'.*"provider_error":"{word}".*')[0]
        assert orjson.loads(line[line.index("{") :])["provider"] == dialect
    play.reply(failing(200, DRAWN["openai"]))
    answer = play.ask("openai")
    assert answer.status == 200
    line = play.gateway.server.wait_for_output(rf'.*"request_id":"{answer.headers["x-request-id"]}".*')[0]
    assert '"provider_error":""' in line
