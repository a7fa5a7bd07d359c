"""A page in a real browser, on another origin than the gateway's, asks for models and images."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import (
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    configuration,
    image_model,
    running_gateway,
)
from tests.support.processes import running
from tests.support.requirements import program

PAGE = """<!doctype html>
<script type="module">
const gateway = "GATEWAY", key = "KEY";
const headers = {"Authorization": `Bearer ${key}`, "Content-Type": "application/json", "x-stainless-lang": "js"};
const body = {model: "acme/image-1", prompt: "a cube"};
const post = (more, changed = {}) => fetch(`${gateway}/v1/images/generations`, {
  method: "POST", headers: {...headers, ...changed}, body: JSON.stringify({...body, ...more})
});
const seen = async (name, asking) => {
  try {
    const answer = await asking;
    const id = answer.headers.get("x-request-id");
    return [name, {status: answer.status, id, text: await answer.text()}];
  } catch (error) {
    return [name, {failed: String(error)}];
  }
};
const found = Object.fromEntries(await Promise.all([
  seen("models", fetch(`${gateway}/v1/models`, {headers})),
  seen("image", post({response_format: "b64_json", size: "64x64"})),
  seen("stream", post({stream: true, size: "64x64"})),
  seen("bad field", post({n: 0})),
  seen("bad key", post({}, {"Authorization": "Bearer lm_typo"})),
  seen("key header", fetch(`${gateway}/v1/key`, {headers: {"x-api-key": key}})),
  seen("nowhere", fetch(`${gateway}/v1/nowhere`, {headers})),
  seen("with cookies", fetch(`${gateway}/v1/models`, {headers, credentials: "include"})),
]));
await fetch("/found", {method: "POST", body: JSON.stringify(found)});
</script>
"""


class PageServer(ThreadingHTTPServer):
    """Serves one page, and takes what the page has found."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = ""
        self.found: queue.Queue[dict[str, Any]] = queue.Queue()

    @property
    def origin(self) -> str:
        """The page's."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self._answer(self.server.page.encode())

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.found.put(json.loads(self.rfile.read(length)))
        self._answer(b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name for it
        """Nothing is written."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def page() -> Iterator[PageServer]:
    with PageServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def gateway_for(origins: list[str], provider: SampleProvider, folder: Path) -> Iterator[RunningGateway]:
    model = image_model(parameters=[*ALL_PARAMETERS, "stream"])
    server = {"cors_origins": origins}
    toml = configuration(f"embedded:{folder}/data", provider.url, models=[model], server=server)
    with running_gateway(folder, toml) as gateway:
        yield gateway


def browse(page: PageServer, gateway: RunningGateway, folder: Path) -> tuple[dict[str, Any], str]:
    """What the page finds in a browser, and the key that it used."""
    chromium = program("chromium", "chromium")
    key = gateway.make_key(100_000)
    page.page = PAGE.replace("GATEWAY", gateway.url).replace("KEY", key)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    command = [chromium, *flags, f"--user-data-dir={folder}/profile", f"{page.origin}/"]
    with running(command, folder / "chromium.log"):
        return page.found.get(timeout=50), key


def test_a_page_on_a_listed_origin(page: PageServer, provider: SampleProvider, tmp_path: Path) -> None:
    with gateway_for([page.origin], provider, tmp_path) as gateway:
        found, key = browse(page, gateway, tmp_path)
        statuses = {name: answer.get("status") for name, answer in found.items()}
        assert statuses == {
            "models": 200,
            "image": 200,
            "stream": 200,
            "bad field": 400,
            "bad key": 401,
            "key header": 200,
            "nowhere": 404,
            # Nothing here goes by cookies, and a page that insists on them is not let in.
            "with cookies": None,
        }, found
        assert all(answer["id"].startswith("req_") for answer in found.values() if "id" in answer)
        assert json.loads(found["models"]["text"])["data"][0]["id"] == "acme/image-1"
        assert json.loads(found["image"]["text"])["data"][0]["b64_json"]
        assert "image_generation.completed" in found["stream"]["text"]
        assert json.loads(found["bad field"]["text"])["error"]["param"] == "n"
        assert gateway.quota(key)["posted"] == 10_000


@pytest.mark.parametrize("origins", [[], ["https://studio.example"]])
def test_a_page_on_another_origin_reads_nothing_and_costs_nothing(
    page: PageServer, provider: SampleProvider, tmp_path: Path, origins: list[str]
) -> None:
    with gateway_for(origins, provider, tmp_path) as gateway:
        found, key = browse(page, gateway, tmp_path)
        assert {name for name, answer in found.items() if "failed" in answer} == set(found)
        assert gateway.quota(key)["posted"] == 0
