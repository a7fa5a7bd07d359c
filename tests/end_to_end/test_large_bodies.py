"""JSON of more than 64 KiB: nothing is read for strangers, memory is shared out, and images arrive as they were."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.test_http import connect, exchange, length, post
from tests.support.gateways import RunningGateway, SampleProvider, ask, configuration, running_gateway

EDITS = "POST /v1/images/edits HTTP/1.1"
MEBIBYTE = 2**20
IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3 * 2_048).decode()
EDIT = {
    "model": "acme/image-1",
    "prompt": "put a hat on it",
    "images": [{"image_url": f"data:image/png;base64,{IMAGE}"}],
}
BODY = json.dumps(EDIT).encode()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, provider: SampleProvider) -> Iterator[RunningGateway]:
    """A gateway that holds four large bodies, two of one key, and waits a second for what is slow."""
    folder = tmp_path_factory.mktemp("narrow")
    limits = {
        "max_body": 4 * MEBIBYTE,
        "max_body_memory": 16 * MEBIBYTE,
        "body_timeout": 1,
        "min_upload_rate": 100_000,
        "upload_timeout": 60,
    }
    with running_gateway(folder, configuration(f"embedded:{folder}/data", provider.url, server=limits)) as running:
        yield running


def unknown(gateway: RunningGateway) -> str:
    """The text of a key that is revoked: of the right form, and worth nothing."""
    key = gateway.make_key()
    gateway.admin("DELETE", f"/admin/v1/keys/{key[3:].rpartition('_')[0]}")
    return key


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(65_536).split()[1])


def held_bytes(gateway: RunningGateway) -> float:
    metrics = gateway.admin("GET", "/metrics").body.decode()
    match = re.search(r"^lightmeter_body_memory_bytes (\S+)$", metrics, re.MULTILINE)
    assert match
    return float(match[1])


def test_a_stranger_is_refused_before_a_large_body_is_read(narrow: RunningGateway) -> None:
    with connect(narrow) as connection:
        connection.sendall(post(unknown(narrow), length(BODY), body=BODY[:1_000], line=EDITS))
        assert status_of(connection) == 401
    chunk = b"11000\r\n" + b" " * 0x11000 + b"\r\n"
    with connect(narrow) as connection:
        connection.sendall(post(unknown(narrow), "Transfer-Encoding: chunked", body=chunk, line=EDITS))
        assert status_of(connection) == 401


def test_who_cannot_pay_is_refused_before_a_large_body_is_read(narrow: RunningGateway) -> None:
    with connect(narrow) as connection:
        connection.sendall(post(narrow.make_key(4_999), length(BODY), line=EDITS, body=b""))
        assert status_of(connection) == 429


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_is_forwarded_whole(
    narrow: RunningGateway, quiet_provider: SampleProvider, is_chunked: bool
) -> None:
    key = narrow.make_key(100_000)
    body, framing = BODY.replace(b"/", b"\\/"), length(BODY.replace(b"/", b"\\/"))
    if is_chunked:
        parts = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        framing = "Transfer-Encoding: chunked"
    assert exchange(narrow, post(key, framing, body=body, line=EDITS)).status == 200
    (received,) = quiet_provider.requests()
    assert received["body"]["images"] == EDIT["images"]
    assert narrow.quota(key)["posted"] == 5_000


def test_a_large_body_has_its_idempotency_key(narrow: RunningGateway) -> None:
    key, headers = narrow.make_key(100_000), {"Idempotency-Key": "one"}
    url = narrow.url + "/v1/images/edits"
    assert ask("POST", url, key=key, body=BODY, headers=headers).status == 200
    again = ask("POST", url, key=key, body=BODY, headers=headers)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (200, "true")
    other = json.dumps({**EDIT, "prompt": "another"}).encode()
    assert ask("POST", url, key=key, body=other, headers=headers).status == 422
    assert narrow.quota(key)["posted"] == 5_000


def test_an_endless_chunked_body_is_cut(narrow: RunningGateway) -> None:
    key = narrow.make_key(100_000)
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = exchange(narrow, post(key, "Transfer-Encoding: chunked", body=piece * 65))
    assert (answer.status, answer.json["error"]["code"]) == (413, "payload_too_large")
    assert narrow.ledger(key) == []


def test_one_key_does_not_take_all_the_memory(narrow: RunningGateway) -> None:
    """Its second body is refused with Retry-After; another key's is read; what was held is given back."""
    hog, good = narrow.make_key(100_000), narrow.make_key(100_000)
    size = 3 * MEBIBYTE
    with connect(narrow) as holding:
        holding.sendall(post(hog, f"Content-Length: {size}", body=b"{" * 300_000, line=EDITS))
        until = time.monotonic() + 5
        while held_bytes(narrow) != size:
            assert time.monotonic() < until
        refused = exchange(narrow, post(hog, length(BODY), body=BODY, line=EDITS))
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert exchange(narrow, post(good, length(BODY), body=BODY, line=EDITS)).status == 200
        assert status_of(holding) == 408
    assert exchange(narrow, post(hog, length(BODY), body=BODY, line=EDITS)).status == 200
    assert held_bytes(narrow) == 0


def test_a_body_that_comes_a_little_at_a_time_is_not_waited_for(narrow: RunningGateway) -> None:
    key, began = narrow.make_key(100_000), time.monotonic()
    with connect(narrow) as connection:
        connection.sendall(post(key, length(BODY), body=b"", line=EDITS))
        connection.settimeout(0.1)
        answer = b""
        while not answer:
            assert time.monotonic() - began < 10
            connection.sendall(b" ")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
    assert answer.split()[1] == b"408"
    assert narrow.ledger(key) == []


FORM = "Content-Type: multipart/form-data; boundary=b"


@pytest.mark.parametrize("limits", [{"concurrent_requests": 1}, {}])
@pytest.mark.parametrize("is_form", [True, False])
def test_what_is_being_received_counts_as_in_progress(
    narrow: RunningGateway, limits: dict[str, int], is_form: bool
) -> None:
    key = narrow.make_key(100_000, team=f"slow{is_form:d}{len(limits)}", **limits)
    # It is told to go on when its key has been checked.
    unfinished = post(key, "Content-Length: 200000", "Expect: 100-continue", body=b"", line=EDITS)
    if is_form:
        unfinished = unfinished.replace(b"Content-Type: application/json", FORM.encode())
    with connect(narrow) as first, connect(narrow) as second:
        first.sendall(unfinished)
        assert status_of(first) == 100
        second.sendall(unfinished)
        assert status_of(second) == (429 if limits else 100)
        assert status_of(first) == 408
    assert exchange(narrow, post(key, length(BODY), body=BODY, line=EDITS)).status == 200
