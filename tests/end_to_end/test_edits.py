"""Edits and variations with real uploads: refused by name, spooled, sent on without being held, and charged once."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.support.forms import BOUNDARY, FORM, PNG, Part, form, form_of, part
from tests.support.gateways import (
    ALL_PARAMETERS,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)
from tests.support.processes import free_port, wait_for
from tests.support.stores import store_server

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
TEXTS: list[Part] = [("model", "acme/image-1"), ("prompt", "a cube")]
SMALL: list[Part] = [*TEXTS, ("image", PNG)]
LARGE = b"\x89PNG" + b"made up " * 2**18
"""Two MiB: past what is held in memory."""

MIB = 2**20


def send(gateway: RunningGateway, key: str, body: bytes, path: str = EDITS, **headers: str) -> Answer:
    return ask("POST", gateway.url + path, key=key, body=body, headers={"Content-Type": FORM, **headers})


def uploads_open(gateway: RunningGateway) -> int:
    """How many files the gateway has open in its folder for uploads; they have no names."""
    links = (Path(f"/proc/{gateway.server.process.pid}/fd")).iterdir()
    return sum("/uploads/" in str(link.readlink()) for link in links if link.is_symlink())


def check_nothing_is_left(gateway: RunningGateway) -> None:
    wait_for(lambda: uploads_open(gateway) == 0, "the uploads to be gone")


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "status", "param"),
    [
        (TEXTS, 400, "image"),
        ([*SMALL, ("seed", "1")], 400, "seed"),
        ([*SMALL, ("n", "0")], 400, "n"),
        ([*SMALL, ("n", "11")], 400, "n"),
        ([*SMALL, ("n", "1"), ("n", "10")], 400, "n"),
        ([*SMALL, ("image_config[size]", "4K")], 400, "image_config.size"),
        ([("image", PNG), ("model", "acme/image-1")], 400, "prompt"),
        ([("image", PNG), ("prompt", "x")], 400, "model"),
        ([("image", PNG), ("prompt", "x"), ("model", "nobody/none")], 404, "model"),
        ([*TEXTS, ("image", "a text")], 400, "image"),
        ([*TEXTS, ("image", b"")], 400, "image"),
        ([*TEXTS, ("prompt", b"a file"), ("image", PNG)], 400, "prompt"),
        ([*TEXTS, *[("image[]", PNG)] * 17], 400, "image"),
        ([*TEXTS, *[("image[]", PNG)] * 19], 413, "image[]"),
        ([*SMALL, ("mask", PNG), ("mask", PNG)], 400, "mask"),
        ([*SMALL, ("user", "x" * 1_100_000)], 413, "user"),
    ],
)
def test_a_bad_form_is_refused_by_field_and_costs_nothing(
    gateway: RunningGateway, quiet_provider: SampleProvider, parts: list[Any], status: int, param: str
) -> None:
    key = gateway.make_key(100_000)
    answer = send(gateway, key, form_of(parts))
    assert (answer.status, answer.json["error"]["param"]) == (status, param), answer.body
    check_untouched(gateway, key, quiet_provider)


def check_untouched(gateway: RunningGateway, key: str, provider: SampleProvider) -> None:
    assert gateway.quota(key) == {"limit": 100_000, "posted": 0, "reserved": 0, "remaining": 100_000}
    assert gateway.ledger(key) == []
    assert provider.requests() == []


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (EDITS, "text/plain", 415),
        (EDITS, "application/x-www-form-urlencoded", 415),
        (EDITS, "multipart/form-data", 400),
        (EDITS, "multipart/mixed; boundary=x", 415),
        (VARIATIONS, "application/json", 415),
        ("/v1/images/generations", FORM, 415),
    ],
)
def test_the_kind_of_body_matters(
    gateway: RunningGateway, quiet_provider: SampleProvider, path: str, kind: str, status: int
) -> None:
    key = gateway.make_key(100_000)
    answer = send(gateway, key, form_of(SMALL), path, **{"Content-Type": kind})
    assert answer.status == status
    assert "Content-Type" in answer.json["error"]["message"]
    check_untouched(gateway, key, quiet_provider)


def test_what_is_too_large_is_refused_before_or_while_it_comes(tmp_path: Path, quiet_provider: SampleProvider) -> None:
    limits = {"max_upload": 3 * MIB, "max_upload_file": 2 * MIB}
    toml = configuration(f"embedded:{tmp_path}/data", quiet_provider.url, server=limits)
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key(100_000)
        for image in (b"x" * 2 * MIB + b"x", b"x" * 4 * MIB):
            answer = send(gateway, key, form_of([*TEXTS, ("image", image)]))
            assert (answer.status, answer.json["error"]["code"]) == (413, "payload_too_large")
        # Nor does it help to say nothing of the length.
        body = form_of([*TEXTS, ("image[]", b"x" * 2 * MIB), ("image[]", b"x" * MIB)])
        chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:MIB], body[MIB:])) + b"0\r\n\r\n"
        with connection_to(gateway, key, "Transfer-Encoding: chunked") as connection:
            connection.sendall(chunked)
            assert status_of(connection) == 413
        check_untouched(gateway, key, quiet_provider)
        assert send(gateway, key, form_of([*TEXTS, ("image", b"x" * 2 * MIB)])).status == 200


# --- A client on the socket itself ------------------------------------------------------------------------------------


def connection_to(gateway: RunningGateway, key: str, *headers: str) -> socket.socket:
    """A connection on which the headers of an edit have been sent."""
    address = urlsplit(gateway.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=20)
    lines = (f"POST {EDITS} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", f"Content-Type: {FORM}", *headers)
    connection.sendall("\r\n".join((*lines, "", "")).encode())
    return connection


def status_of(connection: socket.socket) -> int:
    return int(connection.makefile("rb").readline().split()[1])


def test_a_bad_key_is_refused_before_anything_is_uploaded(gateway: RunningGateway) -> None:
    stranger = gateway.make_key()
    gateway.admin("DELETE", f"/admin/v1/keys/{stranger[3:].rpartition('_')[0]}")
    for key in (stranger, "lm_nobody"):
        for headers in (("Content-Length: 1000000000", "Expect: 100-continue"), ("Content-Length: 1000000000",)):
            with connection_to(gateway, key, *headers) as connection:
                assert status_of(connection) == 401


def test_who_cannot_pay_for_any_image_uploads_nothing(sdk_gateway: RunningGateway) -> None:
    gateway = sdk_gateway
    poor = gateway.make_key(4_999)
    with connection_to(gateway, poor, "Content-Length: 1000000000", "Expect: 100-continue") as connection:
        assert status_of(connection) == 429
    assert gateway.ledger(poor) == []
    # An answer that was given before is given again all the same.
    spent, call = gateway.make_key(5_000), {"Idempotency-Key": "last-one"}
    assert send(gateway, spent, form_of(SMALL), **call).status == 200
    assert send(gateway, spent, form_of(SMALL)).json["error"]["code"] == "insufficient_quota"
    assert send(gateway, spent, form_of(SMALL), **call).headers["Idempotency-Replayed"] == "true"


def test_a_good_key_is_told_to_go_on(gateway: RunningGateway) -> None:
    key, body = gateway.make_key(), form_of(SMALL)
    with connection_to(gateway, key, f"Content-Length: {len(body)}", "Expect: 100-continue") as connection:
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert status_of(connection) == 200
    gateway.check_books(key)


def test_a_client_that_leaves_in_the_middle_of_its_upload_costs_nothing(
    gateway: RunningGateway, quiet_provider: SampleProvider
) -> None:
    key, body = gateway.make_key(100_000), form_of([*TEXTS, ("image", LARGE)])
    with connection_to(gateway, key, f"Content-Length: {len(body)}") as connection:
        connection.sendall(body[:-100])
        wait_for(lambda: uploads_open(gateway) == 1, "the upload to be on the disk")
    check_nothing_is_left(gateway)
    check_untouched(gateway, key, quiet_provider)


def test_a_form_that_ends_before_its_last_boundary_is_not_whole(
    gateway: RunningGateway, quiet_provider: SampleProvider
) -> None:
    key = gateway.make_key(100_000)
    answer = send(gateway, key, form_of(SMALL).removesuffix(f"--{BOUNDARY}--\r\n".encode()))
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
    check_untouched(gateway, key, quiet_provider)


def test_an_upload_that_stands_still_or_takes_too_long_is_ended(tmp_path: Path, quiet_provider: SampleProvider) -> None:
    for limits in ({"body_timeout": 0.3}, {"upload_timeout": 0.3}):
        folder = tmp_path / next(iter(limits))
        toml = configuration(f"embedded:{folder}/data", quiet_provider.url, server=limits)
        with running_gateway(folder, toml) as gateway:
            key = gateway.make_key(100_000)
            with connection_to(gateway, key, "Content-Length: 10000") as connection:
                connection.sendall(f"--{BOUNDARY}\r\n".encode())
                assert status_of(connection) == 408
            check_untouched(gateway, key, quiet_provider)


# --- What is passed on ------------------------------------------------------------------------------------------------


def test_nothing_of_the_clients_framing_is_passed_on(gateway: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = gateway.make_key()
    evil = part("image", PNG, file_name="../../etc/a b\u00e4.png", kind="text/html", more="X-Evil: 1\r\n")
    answer = send(gateway, key, form(evil, part("prompt", "a cube"), part("model", "acme/image-1"), part("stream", "")))
    assert answer.status == 200
    [request] = quiet_provider.requests()
    assert BOUNDARY not in json.dumps(request)
    image = request["parts"][-1]
    assert (image["filename"], image["content_type"]) == ("a_b_.png", "image/png")
    headers = dict(request["headers"])
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert "transfer-encoding" not in headers
    assert key not in json.dumps(request)


def test_what_the_model_does_not_list_is_left_out(gateway: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = gateway.make_key()
    answer = send(gateway, key, form_of([*SMALL, ("input_fidelity", "high"), ("quality", "high")]))
    assert answer.status == 200
    assert [given["name"] for given in quiet_provider.requests()[0]["parts"]] == ["model", "prompt", "quality", "image"]


def test_a_provider_that_fails_is_charged_nothing_and_leaves_nothing(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    for behaviour, status in (("status=500", 502), ("drop_connection", 502), ("status=400", 400), ("malformed", 502)):
        texts: list[Part] = [("model", "acme/image-1"), ("prompt", f"[sample {behaviour}] x")]
        assert send(gateway, key, form_of([*texts, ("image", LARGE)])).status == status
    assert gateway.quota(key)["posted"] == 0
    gateway.check_books(key)
    check_nothing_is_left(gateway)


class Hasty(socketserver.StreamRequestHandler):
    """A provider that refuses as soon as it has seen the headers, and leaves the connection open."""

    status: ClassVar[bytes] = b"400 Bad Request"
    lines: ClassVar[list[str]] = []

    def handle(self) -> None:
        while line := self.rfile.readline():
            self.lines.append(line.decode(errors="replace").strip())
            length = 0
            while (header := self.rfile.readline()).strip():
                name, _, value = header.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            body = b'{"error":{"message":"no","code":"no"}}'
            head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body))
            self.wfile.write(head + body)
            while length and (piece := self.rfile.read1(min(length, 65_536))):
                length -= len(piece)


@contextmanager
def hasty(status: str) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the first lines of the requests that it gets."""
    lines: list[str] = []
    handler = type("Handler", (Hasty,), {"status": status.encode(), "lines": lines})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", lines
        server.shutdown()


def test_what_is_left_of_a_refused_upload_is_never_taken_for_the_next_request(tmp_path: Path) -> None:
    with (
        hasty("400 Bad Request") as (url, lines),
        running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", url)) as gateway,
    ):
        key = gateway.make_key()
        for _ in range(5):
            assert send(gateway, key, form_of([*TEXTS, ("image", LARGE * 8)])).status == 400
            assert gateway.generate(key).json["error"]["message"] == "no"
        check_nothing_is_left(gateway)
        assert lines == ["POST /v1/images/edits HTTP/1.1", "POST /v1/images/generations HTTP/1.1"] * 5


def deployed_at(folder: Path, *urls: str) -> str:
    """A model that is made at the first of these, or where that refuses, at the next ones."""
    model = {name: value for name, value in image_model().items() if name not in ("provider", "upstream_model")}
    toml = configuration(f"embedded:{folder}/data", "http://127.0.0.1:1", models=[model])
    for index, url in enumerate(urls):
        toml += (
            f'\n[[models.deployments]]\nprovider = "p{index}"\nupstream_model = "image-1"\npriority = {index}\n'
            f'[[providers]]\nname = "p{index}"\nbase_url = "{url}/v1"\napi_key_env = "SAMPLE_PROVIDER_KEY"\n'
        )
    return toml


def test_an_upload_that_was_refused_before_it_was_read_is_sent_whole_to_the_next_deployment(
    quiet_provider: SampleProvider, tmp_path: Path
) -> None:
    with (
        hasty("503 Service Unavailable") as (url, lines),
        running_gateway(tmp_path, deployed_at(tmp_path, url, quiet_provider.url)) as gateway,
    ):
        key = gateway.make_key()
        answer = send(gateway, key, form_of([*TEXTS, ("image", LARGE * 8)]))
        assert (answer.status, answer.headers["x-lightmeter-attempts"], len(lines)) == (200, "2", 1)
        [request] = quiet_provider.requests()
        assert request["parts"][-1]["sha256"] == sha256(LARGE * 8).hexdigest()
        gateway.check_books(key)
        check_nothing_is_left(gateway)


def test_a_deployment_that_refuses_leaves_the_whole_upload_to_the_next_one(
    quiet_provider: SampleProvider, tmp_path: Path
) -> None:
    (tmp_path / "busy").mkdir()
    with sample_provider(tmp_path / "busy", "--status", "503") as busy:
        toml = deployed_at(tmp_path, busy.url, f"http://127.0.0.1:{free_port()}", quiet_provider.url)
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key()
            answer = send(gateway, key, form_of([*TEXTS, ("image", LARGE), ("mask", PNG)]))
            assert (answer.status, answer.headers["x-lightmeter-attempts"]) == (200, "3")
            gateway.check_books(key)
            assert gateway.quota(key)["posted"] == 5_000
            seen = [provider.requests()[-1]["parts"] for provider in (busy, quiet_provider)]
            assert seen[0] == seen[1]
            assert [given["size_bytes"] for given in seen[0]][2:] == [len(LARGE), len(PNG)]


def test_the_same_form_twice_under_one_key_runs_once(gateway: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = gateway.make_key()
    call = {"Idempotency-Key": "edit-1"}
    first = send(gateway, key, form_of(SMALL), **call)
    # Another boundary and another order: the same request.
    again = form_of([("image", PNG), *reversed(TEXTS)]).replace(BOUNDARY.encode(), b"another")
    second = send(gateway, key, again, **call, **{"Content-Type": FORM.replace(BOUNDARY, "another")})
    assert (second.status, second.body) == (200, first.body)
    assert second.headers["Idempotency-Replayed"] == "true"
    other = send(gateway, key, form_of([*TEXTS, ("image", PNG + b"x")]), **call)
    assert (other.status, other.json["error"]["code"]) == (422, "idempotency_mismatch")
    assert gateway.quota(key)["posted"] == 5_000
    assert len(quiet_provider.requests()) == 1


def test_edits_in_parallel_never_pass_the_limit(gateway: RunningGateway) -> None:
    key = gateway.make_key(50_000)
    body = form_of([*TEXTS, ("image", LARGE), ("n", "2")])
    with ThreadPoolExecutor(12) as threads:
        statuses = [answer.status for answer in threads.map(lambda _: send(gateway, key, body), range(24))]
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(200) == 5
    gateway.check_books(key)
    assert gateway.quota(key)["posted"] == 50_000
    check_nothing_is_left(gateway)


def test_a_disk_without_room_is_a_503_that_costs_nothing(tmp_path: Path, quiet_provider: SampleProvider) -> None:
    places = {"upload_folder": str(tmp_path / "uploads")}
    toml = configuration(f"embedded:{tmp_path}/data", quiet_provider.url, server=places)
    with running_gateway(tmp_path, toml) as gateway:
        (tmp_path / "uploads").rmdir()
        (tmp_path / "uploads").write_text("no folder any more")
        key = gateway.make_key(100_000)
        answer = send(gateway, key, form_of([*TEXTS, ("image", LARGE)]))
        assert (answer.status, answer.json["error"]["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"] == "10"
        check_untouched(gateway, key, quiet_provider)
        gateway.server.wait_to_say("server.upload_folder")
        # What is small needs no disk.
        assert send(gateway, key, form_of(SMALL)).status == 200


# --- Many large ones --------------------------------------------------------------------------------------------------

FIFTY_MB = 50_000_000
PIECE = b"\x89PNG" + b"0" * 99_996


@pytest.fixture(name="roomy")
def _roomy(provider: SampleProvider, tmp_path: Path) -> Iterator[RunningGateway]:
    model = image_model(parameters=[*ALL_PARAMETERS, "stream"])
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url, models=[model])) as running:
        yield running


async def upload(gateway: RunningGateway, key: str, files: int) -> int:
    """One edit of so many files of 50 MB each; its status."""

    async def body() -> AsyncIterator[bytes]:
        for name, text in TEXTS:
            yield part(name, text)
        head, _, tail = part("image[]", b"|").partition(b"|")
        for _ in range(files):
            yield head
            for _ in range(FIFTY_MB // len(PIECE)):
                yield PIECE
            yield tail
        yield form()

    headers = {"Authorization": f"Bearer {key}", "Content-Type": FORM}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=100)) as session,
        session.post(gateway.url + EDITS, data=body(), headers=headers) as response,
    ):
        return response.status


async def test_sixteen_uploads_of_50_mb_keep_memory_flat(roomy: RunningGateway, provider: SampleProvider) -> None:
    key = roomy.make_key()
    assert await upload(roomy, key, 1) == 200
    before = peak = roomy.memory_bytes()
    task = asyncio.gather(upload(roomy, key, 8), *(upload(roomy, key, 1) for _ in range(8)))
    while not task.done():
        peak = max(peak, roomy.memory_bytes())
        await asyncio.sleep(0.01)
    assert await task == [200] * 9
    assert peak - before < 30_000_000
    received = [given for request in provider.requests()[-9:] for given in request["parts"] if given["filename"]]
    assert [given["size_bytes"] for given in received] == [FIFTY_MB] * 16
    assert len({given["sha256"] for given in received}) == 1
    roomy.check_books(key)
    check_nothing_is_left(roomy)


def test_a_gateway_that_is_killed_leaves_no_upload_behind(tmp_path: Path, quiet_provider: SampleProvider) -> None:
    # An embedded store would outlive its gateway.
    with (
        store_server("valkey", tmp_path) as (store_url, _store),
        running_gateway(tmp_path / "gateway", configuration(store_url, quiet_provider.url)) as gateway,
    ):
        key, body = gateway.make_key(), form_of([*TEXTS, ("image", LARGE)])
        with connection_to(gateway, key, f"Content-Length: {len(body)}") as connection:
            connection.sendall(body[:-1])
            wait_for(lambda: uploads_open(gateway) == 1, "the upload to be on the disk")
            gateway.server.process.kill()
            gateway.server.process.wait(10)
        assert list((tmp_path / "gateway" / "data" / "uploads").iterdir()) == []
