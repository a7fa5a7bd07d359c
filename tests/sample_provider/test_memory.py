from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from proxy.sample_provider import memory
from proxy.sample_provider.memory import Pictures, ReceivedRequest, RecentlyUsed, RequestLog


def received(body: bytes) -> ReceivedRequest:
    return ReceivedRequest("POST", "/v1/images/generations", ((b"X-A", b"1"), (b"x-a", b"2")), body)


def test_the_item_not_used_for_longest_goes_first() -> None:
    cache: RecentlyUsed[str, int] = RecentlyUsed(2, 100)
    cache.put("a", 1, 1)
    cache.put("b", 2, 1)
    assert cache.get("a") == 1
    cache.put("c", 3, 1)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2


def test_items_go_until_the_bytes_fit() -> None:
    cache: RecentlyUsed[str, int] = RecentlyUsed(10, 100)
    for name in "abc":
        cache.put(name, 0, 40)
    assert (cache.get("a"), len(cache)) == (None, 2)
    cache.put("b", 1, 10)
    cache.put("d", 0, 50)
    assert len(cache) == 3
    cache.put("whale", 0, 101)
    assert len(cache) == 0


def test_a_request_is_described_as_it_came() -> None:
    log = RequestLog()
    log.add(received(b'{ "prompt": "x" }'))
    log.add(received(b"{\xff"))
    first, second = log.described()
    assert first == {
        "method": "POST",
        "path": "/v1/images/generations",
        "headers": [["x-a", "1"], ["x-a", "2"]],
        "body": {"prompt": "x"},
        "raw_body": '{ "prompt": "x" }',
    }
    assert (second["body"], second["raw_body"]) == (None, "{\ufffd")
    log.clear()
    assert log.described() == []


def test_the_log_keeps_the_last_thousand() -> None:
    log = RequestLog()
    for number in range(1003):
        log.add(received(b"%d" % number))
    bodies = [request["body"] for request in log.described()]
    assert bodies == list(range(3, 1003))


def test_the_log_keeps_only_so_many_bytes_but_always_the_newest() -> None:
    log = RequestLog()
    body = b"x" * 33 * 1024 * 1024
    log.add(received(body))
    log.add(received(body))
    assert len(log.described()) == 1


async def test_those_who_ask_together_wait_for_one_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, may_end = [], threading.Event()

    def draw(prompt: str, *_form: object) -> bytes:
        drawn.append(prompt)
        may_end.wait()
        return b"png"

    monkeypatch.setattr(memory, "draw_picture", draw)
    pictures = Pictures()
    leaver = asyncio.create_task(pictures.get("a", 1, 1))
    stayers = [asyncio.create_task(pictures.get("a", 1, 1)) for _ in range(3)]
    await asyncio.sleep(0)
    leaver.cancel()
    may_end.set()
    assert [picture.file for picture in await asyncio.gather(*stayers)] == [b"png"] * 3
    assert (await pictures.get("a", 1, 1)).base64 == b"cG5n"
    assert drawn == ["a"]
    await pictures.close()


async def test_a_drawing_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[bytes | Exception] = iter([RuntimeError("no ink"), b"png"])

    def draw(*_key: object) -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(memory, "draw_picture", draw)
    pictures = Pictures()
    with pytest.raises(RuntimeError, match="no ink"):
        await pictures.get("a", 1, 1)
    assert (await pictures.get("a", 1, 1)).file == b"png"
