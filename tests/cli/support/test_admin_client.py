"""How the commands reach a running gateway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import click
import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.cli.support.admin_client import call_admin

PAGES = 5


class Pages(BaseHTTPRequestHandler):
    """Answers with a list of ``PAGES`` pages, and remembers who asked."""

    protocol_version = "HTTP/1.1"
    connections: list[object]
    tokens: list[str | None]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address)

    def do_GET(self) -> None:
        self.tokens.append(self.headers["Authorization"])
        page = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        following = str(page + 1) if page + 1 < PAGES else None
        body = json.dumps({"data": [{"id": page}], "next_cursor": following}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Pages]]:
    """A server of pages that the environment names as the gateway."""
    handler = type("Seen", (Pages,), {"connections": [], "tokens": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("LIGHTMETER_ADMIN_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("LIGHTMETER_ADMIN_TOKEN", "the-token-of-the-tests")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_pages_of_a_list_come_over_one_connection(pages: type[Pages]) -> None:
    for _ in range(2):
        done = CliRunner().invoke(main, ["ledger", "list", "--all", "--json"])
        assert done.exit_code == 0, done.output
        assert [entry["id"] for entry in json.loads(done.stdout)["data"]] == list(range(PAGES))
    assert len(pages.connections) == 2
    assert pages.tokens == ["Bearer the-token-of-the-tests"] * 2 * PAGES


def test_what_is_no_command_may_ask_as_well(pages: type[Pages]) -> None:
    assert call_admin("GET", "/admin/v1/keys", query={"cursor": None, "team": "acme"})["data"] == [{"id": 0}]
    assert len(pages.connections) == 1


def test_without_a_token_nothing_is_asked(pages: type[Pages], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTMETER_ADMIN_TOKEN")
    done = CliRunner().invoke(main, ["keys", "list"])
    assert (done.exit_code, "set LIGHTMETER_ADMIN_TOKEN" in done.output) == (1, True)
    assert pages.connections == []


def test_a_gateway_that_has_moved_is_asked_where_it_is_now(pages: type[Pages], monkeypatch: pytest.MonkeyPatch) -> None:
    with click.Context(main):
        for token in ("the-token-of-the-tests", "the-token-of-the-tests", "another-token-of-the-tests"):
            monkeypatch.setenv("LIGHTMETER_ADMIN_TOKEN", token)
            assert call_admin("GET", "/x")["data"] == [{"id": 0}]
        monkeypatch.setenv("LIGHTMETER_ADMIN_URL", "http://127.0.0.1:9")
        with pytest.raises(click.ClickException, match="no gateway answers at"):
            call_admin("GET", "/x")
    assert len(set(pages.connections)) == 2
