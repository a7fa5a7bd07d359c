"""Statements as people get them: on the command line, on the admin API, as a page and as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.end_to_end.test_command_line import lightmeter, run
from tests.support.gateways import (
    ADMIN_TOKEN,
    RunningGateway,
    SampleProvider,
    ask,
    configuration,
    image_model,
    key_id,
    running_gateway,
)

PAST_MS = 1_761_955_200_000
"""2025-11-01."""

MODEL = "acme/image-1"
KEYS = 2_000


@pytest.fixture
def billed(provider: SampleProvider, store_url: str, tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway that says what a unit is worth, on a store of its own."""
    toml = configuration(
        store_url,
        provider.url,
        models=[image_model(), image_model("acme/<b>&c")],
        accounting={"units_per_usd": 100_000},
    )
    with running_gateway(tmp_path, toml) as running:
        yield running


@pytest.fixture
def admin(billed: RunningGateway) -> dict[str, str]:
    return {"LIGHTMETER_ADMIN_URL": billed.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}


def spend(gateway: RunningGateway, store_url: str) -> str:
    """A key with an entry of November 2025, one that is late, some of now, and a refund."""
    key = gateway.make_key(1_000_000, team="research")
    with Redis.from_url(store_url) as store:
        for at_ms, charged in ((PAST_MS, 20_000), (PAST_MS + 1, 10_000)):
            facts = json.dumps({"model": MODEL, "admitted_ms": PAST_MS - 1})
            about: Any = {"kind": "request", "key": key_id(key), "request": f"req_{at_ms}", "outcome": "delivered"}
            about |= {"images": 2, "charged": charged, "overage": 5_000, "facts": facts}
            store.xadd("lm:{research}:ledger", about, id=f"{at_ms}-0")
    assert gateway.generate(key, n=2).status == 200
    assert gateway.generate(key, model="acme/<b>&c").status == 200
    entry = gateway.ledger(key)[-1]["id"]
    assert gateway.admin("POST", f"/admin/v1/ledger/{entry}/refund", body={"reason": "black"}).status == 201
    return key


def test_a_month_is_stated_in_json_text_html_and_csv(
    billed: RunningGateway, admin: dict[str, str], store_url: str, tmp_path: Path
) -> None:
    key = spend(billed, store_url)
    path = "/admin/v1/teams/research/statements"
    past = billed.admin("GET", f"{path}/2025-11").json
    assert past == {
        "team": "research",
        "month": "2025-11",
        "state": "stated",
        "stated_at": past["stated_at"],
        "entries": 2,
        "ledger": {"after": None, "to": f"research_{PAST_MS + 1}-0"},
        "requests": 2,
        "images": 4,
        "charged": 30_000,
        "charged_usd": "0.30",
        "refunded": 0,
        "refunded_usd": "0.00",
        "quota_units": 30_000,
        "quota_units_usd": "0.30",
        "overage": 10_000,
        "overage_usd": "0.10",
        "granted": 0,
        "granted_usd": "0.00",
        "by_model": {MODEL: {"images": 4, "quota_units": 30_000, "quota_units_usd": "0.30"}},
        "by_key": {key_id(key): {"images": 4, "quota_units": 30_000, "quota_units_usd": "0.30"}},
        "by_user": {},
        "by_tag": {},
        "headings_omitted": {"by_model": 0, "by_key": 0, "by_user": 0, "by_tag": 0},
        "late": {"2025-10": {"entries": 2, "images": 4, "quota_units": 30_000, "quota_units_usd": "0.30"}},
        "late_entries": [f"research_{PAST_MS}-0", f"research_{PAST_MS + 1}-0"],
        "late_entries_omitted": 0,
        "brought_forward": None,
        "units_per_usd": "100000",
    }
    listed = billed.admin("GET", path).json["data"]
    assert [listed[0]["month"], listed[-1]["state"]] == ["2025-11", "open"]
    assert listed[0] == past
    entries = billed.ledger(key, whole_team=True)
    assert sum(each["quota_units"] for each in listed) == sum(each["charged"] for each in entries)
    month = listed[-1]["month"]

    command = ("statement", "--team", "research")
    assert json.loads(lightmeter(*command, "--month", "2025-11", "--json", environment=admin)) == past
    table = lightmeter(*command, environment=admin).splitlines()
    assert table[1].split() == ["2025-11", "stated", "2", "4", "30,000", "0", "10,000", "0.30"]
    text = lightmeter(*command, "--month", month, environment=admin)
    assert re.search(r"^total units +10,000$", text, re.MULTILINE)
    assert re.search(r"^refunded +5,000$", text, re.MULTILINE)
    page = lightmeter(*command, "--month", "2025-11", "--format", "html", environment=admin)
    answer = ask("GET", f"{billed.admin_url}{path}/2025-11/page", key=ADMIN_TOKEN)
    assert (answer.body.decode(), answer.headers["Content-Type"]) == (page, "text/html; charset=utf-8")
    file = tmp_path / "statement.csv"
    lightmeter(*command, "--month", month, "--format", "csv", "--output", str(file), environment=admin)
    answer = ask("GET", f"{billed.admin_url}{path}/{month}/csv", key=ADMIN_TOKEN)
    assert answer.body.decode() == file.read_text()
    rows = {(row["section"], row["name"]): row for row in csv.DictReader(io.StringIO(file.read_text()))}
    assert rows["total", "quota_units"]["quota_units"] == "10000"
    assert rows["by_model", "acme/<b>&c"]["images"] == "1"


def test_a_statement_that_there_is_not_is_a_404(billed: RunningGateway, admin: dict[str, str]) -> None:
    billed.make_key(team="research")
    for path, message in (
        ("research/statements/2020-01", "There is no statement of 'research' for 2020-01"),
        ("research/statements/2020-13", "'2020-13' is no month"),
        ("nobody/statements", "There is no team 'nobody'"),
        ("NoTeam/statements/2020-01", "There is no team 'NoTeam'"),
    ):
        answer = billed.admin("GET", f"/admin/v1/teams/{path}")
        assert (answer.status, message in answer.json["error"]["message"]) == (404, True), answer.body
    done = run("statement", "--team", "research", "--format", "html", environment=admin)
    assert (done.returncode, "--month" in done.stderr) == (2, True)
    done = run("statement", "--team", "nobody", environment=admin)
    assert (done.returncode, "There is no team 'nobody'" in done.stderr) == (1, True)


def test_a_statement_of_very_many_keys_is_bounded_where_people_read_it(
    billed: RunningGateway, admin: dict[str, str], store_url: str
) -> None:
    billed.make_key(team="research")
    with Redis.from_url(store_url) as store, store.pipeline(transaction=False) as pipe:
        for at in range(KEYS):
            facts = json.dumps({"model": MODEL, "admitted_ms": PAST_MS})
            about: Any = {"kind": "request", "key": f"research_{at:010d}", "request": f"req_{at}", "facts": facts}
            about |= {"outcome": "delivered", "images": 1, "charged": 10 * at, "overage": 0}
            pipe.xadd("lm:{research}:ledger", about, id=f"{PAST_MS}-{at}")
        pipe.execute()
    total = sum(10 * at for at in range(KEYS))
    path = "/admin/v1/teams/research/statements"
    whole = billed.admin("GET", f"{path}/2025-11").json
    assert (len(whole["by_key"]), whole["headings_omitted"]["by_key"], whole["quota_units"]) == (KEYS, 0, total)
    short = billed.admin("GET", f"{path}/2025-11?top=2").json
    dearest = sum(10 * at for at in (KEYS - 1, KEYS - 2))
    assert {name: sums["quota_units"] for name, sums in short["by_key"].items()} == {
        f"research_{KEYS - 1:010d}": 10 * (KEYS - 1),
        f"research_{KEYS - 2:010d}": 10 * (KEYS - 2),
        "(others)": total - dearest,
    }
    assert short["headings_omitted"] == {"by_model": 0, "by_key": KEYS - 2, "by_user": 0, "by_tag": 0}
    assert short["by_key"]["(others)"]["images"] == KEYS - 2
    assert list(billed.admin("GET", f"{path}/2025-11?top=0").json["by_key"]) == ["(others)"]
    assert billed.admin("GET", f"{path}/2025-11?top=1001").status == 400
    listed = billed.admin("GET", path).json["data"][0]
    assert (len(listed["by_key"]), listed["headings_omitted"]["by_key"]) == (101, KEYS - 100)

    page = ask("GET", f"{billed.admin_url}{path}/2025-11/page", key=ADMIN_TOKEN).body.decode()
    assert page.count("research_0000") == 100
    assert f"{KEYS - 100:,} others are one line" in page
    command = ("statement", "--team", "research", "--month", "2025-11", "--format", "html")
    assert lightmeter(*command, environment=admin) == page
    answer = ask("GET", f"{billed.admin_url}{path}/2025-11/csv", key=ADMIN_TOKEN)
    rows = [row for row in csv.DictReader(io.StringIO(answer.body.decode())) if row["section"] == "by_key"]
    assert (len(rows), sum(int(row["quota_units"]) for row in rows)) == (KEYS, total)


class Page(HTMLParser):
    """What a page says, and what it would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href", "style") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_one_document_that_loads_and_runs_nothing(billed: RunningGateway, store_url: str) -> None:
    spend(billed, store_url)
    month = billed.admin("GET", "/admin/v1/teams/research/statements").json["data"][-1]["month"]
    answer = ask("GET", f"{billed.admin_url}/admin/v1/teams/research/statements/{month}/page", key=ADMIN_TOKEN)
    page = Page(answer.body.decode())
    assert page.loads == []
    assert not {"script", "img", "link", "b"} & set(page.tags)
    assert f"Statement of research, {month}" in page.words
    assert "acme/<b>&c" in page.words
    assert "Preliminary" in page.words
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "sha256-" in answer.headers["Content-Security-Policy"]
    assert "@media print" in answer.body.decode()
