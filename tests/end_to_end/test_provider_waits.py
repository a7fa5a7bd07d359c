"""How long a provider asks to wait, and whether to try again at all, as OpenAI's SDK is told."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from time import time
from typing import Any

import openai
import orjson
import pytest

from tests.support.dialects import CHAT, DIALECTS, IMAGES, Stage, stage
from tests.support.scripted_provider import Reply


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway for all."""
    with stage(tmp_path_factory.mktemp("waits")) as made:
        yield made


SPELLINGS: dict[str, tuple[dict[str, str], int, int]] = {
    "seconds": ({"Retry-After": "30"}, 30, 30),
    "a fraction": ({"Retry-After": "20.7"}, 21, 21),
    "a duration": ({"Retry-After": "34.07s"}, 35, 35),
    "milliseconds": ({"retry-after-ms": "25000"}, 25, 25),
    "both": ({"retry-after-ms": "1500", "Retry-After": "9"}, 2, 2),
    "nonsense in milliseconds": ({"retry-after-ms": "soon", "Retry-After": "9"}, 9, 9),
    # In ten minutes from when it is sent.
    "a date": ({"Retry-After": ""}, 500, 600),
    "a week": ({"Retry-After": "604800"}, 86_400, 86_400),
}


@pytest.mark.parametrize("status", [429, 500, 503, 529])
@pytest.mark.parametrize("name", SPELLINGS)
def test_the_wait_reaches_the_client_however_it_is_spelled(play: Stage, status: int, name: str) -> None:
    headers, least, most = SPELLINGS[name]
    if name == "a date":
        headers = {"Retry-After": formatdate(time() + 600, usegmt=True)}
    play.reply(Reply(status, headers))
    answer = play.ask("openai")
    assert answer.status == (429 if status == 429 else 502)
    assert least <= int(answer.headers["Retry-After"]) <= most
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize(("status", "within"), [(429, False), (503, False), (200, True)])
@pytest.mark.parametrize("path", [IMAGES, CHAT])
def test_googles_retry_info_reaches_the_client(play: Stage, path: str, status: int, *, within: bool) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.074824224s"}]
    error: dict[str, Any] = {"code": 429 if within else status, "message": "no", "details": details}
    play.reply(Reply(status, {}, orjson.dumps({"error": error})))
    answer = play.ask("gemini", path)
    assert (answer.status, answer.headers["Retry-After"]) == (502 if status == 503 else 429, "35")


@pytest.mark.parametrize("status", [500, 503, 529])
def test_without_a_wait_of_its_own_none_is_made_up(play: Stage, status: int) -> None:
    play.reply(Reply(status))
    assert "Retry-After" not in play.ask("openai").headers


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, CHAT])
@pytest.mark.parametrize(
    "reply",
    [
        *(Reply(status, {"Retry-After": "1"}) for status in (401, 402, 403, 404, 408, 504, 520, 521, 522, 523, 524)),
        Reply(200, {}, b"<html><title>Oh</title></html>"),
        Reply(200, {}, b'{"created":1,"data":[{"b64_'),
        Reply(200, {}, b"not JSON"),
        Reply(200, {}, b'{"status":"ok","pictures":[{"base64":"AAAA"}]}'),
        Reply(200, {}, b'{"code":0,"message":"success","result":{"pictures":["AAAA"]}}'),
        Reply(200, {"Content-Encoding": "br"}, b"\x1b\x00\xf8"),
        Reply(broken=True),
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\nContent-Type: application/json\r\n\r\n{"),
        Reply(raw=b"no HTTP at all\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000 + b"\r\n\r\n{}"),
    ],
    ids=lambda reply: f"{reply.status} {(reply.body or reply.raw)[:12].decode('latin-1')!a} {reply.broken}",
)
def test_what_may_have_been_drawn_is_not_asked_for_again(play: Stage, dialect: str, path: str, reply: Reply) -> None:
    play.reply(reply)
    key = play.gateway.make_key(100_000)
    with openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=key) as sdk:
        draw: Any = sdk.images.generate if path == IMAGES else sdk.chat.completions.create
        fields = {"prompt": "x"} if path == IMAGES else {"messages": [{"role": "user", "content": "x"}]}
        with pytest.raises(openai.InternalServerError) as caught:
            draw(model=dialect, **fields)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in caught.value.response.headers
    assert play.provider.received == 1
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("failed", 0)
    play.gateway.check_books(key)
