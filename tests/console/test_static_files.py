"""The console's files: few, of known types, and nothing in them that a policy would have to allow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.web.console.static_files import FOLDER, TYPES, read_files
from tests.support.gateways import RunningGateway, ask

FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_inline_and_nothing_comes_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert path.suffix in TYPES
    outside = set(re.findall(r"""(?:src|href|from|url|import)[\s=(]*["'`(]?(?:https?:)?//[^"'`\s]*""", text))
    assert outside == set()
    markup = r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=\"|innerHTML|outerHTML|insertAdjacentHTML|eval\("
    assert not re.search(markup, text)
    # The one name that looks like an address is that of SVG, which nobody asks.
    assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org", "http://GATEWAY"}


def test_every_file_is_sent_with_a_policy_and_once(gateway: RunningGateway) -> None:
    for name in ("console/base.css", "console/app.js", "pages/overview.js", "parts/chart.js", "console/icon.svg"):
        url = f"{gateway.admin_url}/console/{name}"
        first = ask("GET", url)
        assert first.status == 200
        assert first.headers["Content-Type"] == TYPES[f".{name.rpartition('.')[2]}"]
        assert first.headers["X-Content-Type-Options"] == "nosniff"
        policy = first.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        again = ask("GET", url, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["Content-Security-Policy"] == policy
    for url in (f"{gateway.admin_url}/console/teams/acme", f"{gateway.url}/"):
        page = ask("GET", url)
        assert (page.status, page.headers["X-Frame-Options"]) == (200, "DENY")
    for path in ("/console/nothing", "/console/console/../../sessions.py", "/console/console/base.css/x"):
        assert ask("GET", gateway.admin_url + path).status == 404


def test_the_public_listener_has_the_page_of_a_keys_owner_only(gateway: RunningGateway) -> None:
    for path in ("/console/", "/console/session", "/console/pages/overview.js", "/admin/v1/teams"):
        assert ask("GET", gateway.url + path).status == 404
    assert len(read_files(FOLDER)) == len(FILES)
