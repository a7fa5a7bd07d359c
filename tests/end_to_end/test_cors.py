"""Pages on other origins: what is said to browsers, and to which, in every answer of the public API."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from multidict import CIMultiDict

from proxy.web.middleware.common_headers import ATTEMPTS
from proxy.web.server.openapi import HEADERS
from tests.support.gateways import (
    ADMIN_TOKEN,
    ALL_PARAMETERS,
    Answer,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    running_gateway,
)
from tests.support.raw_http import exchange

ORIGIN, OTHER = "https://studio.example", "https://elsewhere.example"
ORIGINS = [ORIGIN, "http://localhost:5173", "tauri://localhost"]
GENERATIONS = "/v1/images/generations"
ROUTES = (
    ("POST", GENERATIONS), ("POST", "/v1/images/edits"), ("POST", "/v1/images/variations"),
    ("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/acme/image-1"), ("GET", "/v1/key"),
    ("GET", "/v1/nowhere"), ("POST", "/"),
)  # fmt: skip
# As a page with OpenAI's SDK asks.
ASKED = "authorization,content-type,idempotency-key,x-stainless-arch,x-stainless-lang,x-stainless-retry-count"
BODY = {"model": "acme/image-1", "prompt": "a cube"}


@pytest.fixture(scope="module")
def open_gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that pages on some origins may call."""
    yield from _running("listed", ORIGINS, provider, tmp_path_factory)


@pytest.fixture(scope="module")
def open_to_all(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that pages on any origin may call."""
    yield from _running("any", ["*"], provider, tmp_path_factory)


def _running(
    name: str, origins: list[str], provider: SampleProvider, folders: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    folder: Path = folders.mktemp(name)
    model = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    store = f"embedded:{folder}/data"
    toml = configuration(store, provider.url, models=[model], server={"cors_origins": origins})
    with running_gateway(folder, toml) as running:
        yield running


def send(url: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
    """One request with exactly these headers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, CIMultiDict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def preflight(url: str, path: str, method: str = "POST", origin: str = ORIGIN, asked: str = ASKED) -> Answer:
    headers = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": asked}
    return send(url, "OPTIONS", path, headers)


def told(answer: Answer) -> set[str]:
    """What it says to browsers."""
    return {name.lower() for name in answer.headers if name.lower().startswith("access-control-")}


def words(answer: Answer, name: str) -> set[str]:
    """The words in a header that lists some, in small letters."""
    return {word.strip().lower() for word in answer.headers[name].split(",")}


def check_readable(answer: Answer, origin: str = ORIGIN) -> None:
    """A page on ``origin`` can read it, with every header that the API has."""
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    api = {*HEADERS, ATTEMPTS, "retry-after", "x-request-id", "x-ratelimit-remaining-requests"}
    assert words(answer, "Access-Control-Expose-Headers") >= {name.lower() for name in api}
    assert "origin" in words(answer, "Vary")
    assert "access-control-allow-credentials" not in told(answer)
    assert answer.headers["x-request-id"].startswith("req_")


# --- Preflights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_preflight_needs_no_key(open_gateway: RunningGateway, method: str, path: str, origin: str) -> None:
    answer = preflight(open_gateway.url, path, method, origin)
    assert (answer.status, answer.body) == (204, b"")
    assert "Content-Type" not in answer.headers
    check_readable(answer, origin)
    assert method.lower() in words(answer, "Access-Control-Allow-Methods")
    assert words(answer, "Access-Control-Allow-Headers") == set(ASKED.split(","))
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    open_gateway.server.wait_for_output(answer.headers["x-request-id"])


@pytest.mark.parametrize("asked", ["", ",", "a b", "x\u00e9", "x" * 5_000, "authorization;x"])
def test_a_preflight_that_asks_for_odd_headers_is_given_the_plain_ones(
    open_gateway: RunningGateway, asked: str
) -> None:
    answer = preflight(open_gateway.url, GENERATIONS, asked=asked)
    assert answer.status == 204
    assert words(answer, "Access-Control-Allow-Headers") == {"authorization", "content-type"}


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "", "*", f"{ORIGIN}:8443", f"{ORIGIN}.evil.example", "http://studio.example", ORIGIN.upper()],
)
def test_other_origins_are_told_nothing(open_gateway: RunningGateway, origin: str) -> None:
    refused = preflight(open_gateway.url, GENERATIONS, origin=origin)
    assert refused.status == 405
    answered = send(open_gateway.url, "GET", "/v1/models", {"Origin": origin})
    assert answered.status == 401
    for answer in (refused, answered):
        assert told(answer) == set()
        assert answer.headers["Vary"] == "Origin"


def test_what_is_no_preflight_is_no_preflight(open_gateway: RunningGateway) -> None:
    answer = send(open_gateway.url, "OPTIONS", GENERATIONS, {"Origin": ORIGIN})
    assert answer.status == 405
    check_readable(answer)
    asked = {"Access-Control-Request-Method": "POST"}
    assert send(open_gateway.url, "OPTIONS", GENERATIONS, asked).status == 405
    # And one of which nobody knows where it ends is refused as any other.
    lines = ("OPTIONS /v1/models HTTP/1.0", f"Origin: {ORIGIN}", "Access-Control-Request-Method: GET")
    ambiguous = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
    (refused,) = exchange(open_gateway.url, ambiguous).answers
    assert refused.status == 400


# --- Answers ----------------------------------------------------------------------------------------------------------


def test_every_answer_can_be_read(open_gateway: RunningGateway) -> None:
    key = open_gateway.make_key(1_000_000)
    poor = open_gateway.make_key(1)
    good = {"Origin": ORIGIN, "Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    failing = {**BODY, "prompt": "[sample status=500] a cube"}
    for method, path, headers, body, status in (
        ("GET", "/v1/models", {}, None, 200),
        ("GET", "/v1/key", {}, None, 200),
        ("HEAD", "/v1/models", {}, None, 200),
        ("POST", GENERATIONS, {}, BODY, 200),
        ("POST", GENERATIONS, {"Idempotency-Key": "page"}, BODY, 200),
        ("POST", GENERATIONS, {"Idempotency-Key": "page"}, BODY, 200),
        ("POST", GENERATIONS, {}, {**BODY, "n": 0}, 400),
        ("POST", GENERATIONS, {"Authorization": "Bearer lm_typo"}, BODY, 401),
        ("POST", GENERATIONS, {"Authorization": f"Bearer {poor}"}, BODY, 429),
        ("POST", GENERATIONS, {}, {**BODY, "model": "nobody/none"}, 404),
        ("POST", GENERATIONS, {}, failing, 502),
        ("POST", GENERATIONS, {"Content-Type": "text/plain"}, BODY, 415),
        ("POST", GENERATIONS, {"Host": "a b"}, BODY, 400),
        ("PUT", GENERATIONS, {}, BODY, 405),
        ("GET", "/v1/nowhere", {}, None, 404),
        ("GET", "/%76", {}, None, 404),
    ):
        sent = None if body is None else json.dumps(body).encode()
        answer = send(open_gateway.url, method, path, {**good, **headers}, sent)
        assert answer.status == status, answer.body
        check_readable(answer)


def test_a_stream_can_be_read(open_gateway: RunningGateway) -> None:
    key = open_gateway.make_key(100_000)
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps({**BODY, "stream": True}).encode()
    answer = send(open_gateway.url, "POST", GENERATIONS, headers, body)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    check_readable(answer)
    assert b"image_generation.completed" in answer.body


def test_a_client_that_is_no_page_notices_nothing(open_gateway: RunningGateway) -> None:
    answer = ask("GET", f"{open_gateway.url}/v1/models", key=open_gateway.make_key())
    assert answer.status == 200
    assert told(answer) == set()
    # But a cache may not give this answer to a page.
    assert answer.headers["Vary"] == "Origin"


# --- Any origin, and none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [ORIGIN, "null", "chrome-extension://abcdefghijklmnop"])
def test_any_origin_may_be_let_in(open_to_all: RunningGateway, origin: str) -> None:
    answer = preflight(open_to_all.url, GENERATIONS, origin=origin)
    assert answer.status == 204
    check_readable(answer, "*")
    key = open_to_all.make_key(100_000)
    headers = {"Origin": origin, "Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = send(open_to_all.url, "POST", GENERATIONS, headers, json.dumps(BODY).encode())
    assert answer.status == 200
    check_readable(answer, "*")


def test_by_default_no_page_may_call(gateway: RunningGateway) -> None:
    assert preflight(gateway.url, GENERATIONS).status == 405
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {gateway.make_key()}"}
    answer = send(gateway.url, "GET", "/v1/models", headers)
    assert answer.status == 200
    assert told(answer) == set()
    assert "Vary" not in answer.headers


def test_the_admin_api_is_for_no_page(open_to_all: RunningGateway) -> None:
    assert told(preflight(open_to_all.admin_url, "/admin/v1/keys")) == set()
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {ADMIN_TOKEN}"}
    answer = send(open_to_all.admin_url, "GET", "/admin/v1/keys", headers)
    assert answer.status == 200
    assert told(answer) == set()
