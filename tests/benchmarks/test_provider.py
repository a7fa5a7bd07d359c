"""The provider of the benchmarks says again what the sample provider has said."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.benchmarks import servers
from tests.benchmarks.provider import CHUNK_BYTES, WAIT_PATH, length_of, write_answer
from tests.benchmarks.servers import PATH, call


def test_it_says_the_same_again_and_waits_where_it_is_asked_to(tmp_path: Path) -> None:
    with ExitStack() as stack:
        port = servers.start_provider(stack, tmp_path).port
        body = json.dumps({"model": "image-1", "prompt": "a cube", "n": 2}).encode()
        first = call(port, "POST", PATH, "any", body)
        assert first[0] == 200
        assert [call(port, "POST", PATH, "any", body) for _ in range(3)] == [first] * 3
        assert len(json.loads(first[1])["data"]) == 2
        assert call(port, "POST", WAIT_PATH, "any", b"300")[0] == 200
        began_s = time.monotonic()
        assert call(port, "POST", PATH, "any", body) == first
        assert time.monotonic() - began_s > 0.25
        call(port, "POST", WAIT_PATH, "any", b"0")
        events = json.dumps({"model": "image-1", "prompt": "[sample image_bytes=500000] a cube", "stream": True})
        assert call(port, "POST", PATH, "any", events.encode())[1].count(b"b64_json") == 1
        assert len(json.loads(_send_form(port))["data"]) == 1


def _send_form(port: int) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/v1/images/edits", b"--x\r\n" + b"\0" * 2_000_000 + b"--x--\r\n", headers)
        return connection.getresponse().read()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
def test_an_answer_says_where_it_ends(size: int) -> None:
    whole = write_answer(200, "application/json", b"x" * size)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert length_of(head) == len(body) == size
    head, _, body = write_answer(200, "text/event-stream", b"x" * size).partition(b"\r\n\r\n")
    assert length_of(head) is None
    assert body.endswith(b"0\r\n\r\n")
    assert body.count(b"x") == size
