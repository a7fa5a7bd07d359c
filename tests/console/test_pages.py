"""The console's pages in a real browser: with data, without, with errors, with very many teams, for each role."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Route, expect

from proxy.metering.redis_store.facts import utc_day
from tests.console.browsing import Visitor, chromium, visitor
from tests.console.conftest import LEAD_TOKEN, VIEWER_TOKEN
from tests.support.gateways import ADMIN_TOKEN, RunningGateway, ask, key_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAGES = {
    "overview": "Overview",
    "teams": "Teams and keys",
    "teams/studio": "studio",
    "usage?team=studio": "Usage",
    "usage?team=studio&by=user": "Usage",
    "statements": "Statements",
    "statements?team=studio": "Statements",
    "statements?team=studio&month={month}": "{month_name}",
    "ledger?team=studio": "Ledger",
    "models?model=acme%2Fimage-1&n=2": "Models and prices",
    "books?team=studio": "Books",
    "audit?team=studio": "Audit",
}
OF_ALL_TEAMS = {
    "overview": "Overview",
    "teams": "Teams and keys",
    "usage": "Usage",
    "usage?by=team": "Usage",
    "statements": "Statements",
    "ledger": "Ledger",
    "books": "Books",
    "audit": "Audit",
}
MANY = 100_000
BYTES_OF_THE_API = """
performance.getEntriesByType("resource").filter(each => each.name.includes("/admin/v1/"))
    .reduce((sum, each) => sum + each.decodedBodySize, 0)
"""
PAST_MS = 1_759_400_000_000
"""In October 2025."""


def this_month() -> str:
    return utc_day(int(time.time() * 1_000))[:7]


def month_name(month: str) -> str:
    """As people write it."""
    return f"{calendar.month_name[int(month[5:])]} {month[:4]}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    """A key of a team with a past: three images, of a person and for a project, and a grant."""
    made = gateway.make_key(1_000_000, team="studio", quota_units_per_day=20_000, requests_per_minute=60)
    url, tags = f"{gateway.url}/v1/images/generations", {"x-lightmeter-tags": "project=apollo, env=prod"}
    body = {"model": "acme/image-1", "prompt": "a poster", "n": 2, "user": "ada@example.org"}
    assert ask("POST", url, key=made, body=body, headers=tags).status == 200
    assert gateway.generate(made, n=1).status == 200
    assert gateway.generate(made, n=9).status == 429
    grant = {"quota_units": 5_000, "reason": "for the tests"}
    assert gateway.admin("POST", f"/admin/v1/keys/{key_id(made)}/grants", body=grant).status == 201
    return made


@pytest.fixture
def admin(browser: Browser, gateway: RunningGateway, key: str) -> Iterator[Visitor]:
    with visitor(browser, gateway, ADMIN_TOKEN) as person:
        yield person


def test_every_page_with_data(admin: Visitor, gateway: RunningGateway, key: str) -> None:
    month = this_month()
    (entry,) = [each["id"] for each in gateway.ledger(key) if each.get("user")]
    pages = {**PAGES, f"keys/{key_id(key)}": key_id(key), f"ledger/{entry}": entry}
    for path, heading in pages.items():
        admin.visit(path.format(month=month), heading.format(month_name=month_name(month)))
        admin.check_everywhere()
    admin.visit(f"keys/{key_id(key)}")
    expect(admin.page.get_by_text("15,000 used of 20,000")).to_be_visible()


def test_signing_in_and_out(browser: Browser, gateway: RunningGateway) -> None:
    with visitor(browser, gateway, None, scheme="dark") as person:
        page = person.page
        page.goto(f"{gateway.admin_url}/")
        expect(page).to_have_url(re.compile("/console/$"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        person.check()
        page.get_by_label("Admin token").fill("no-such-token-of-this-gateway")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("This is none of the gateway's admin tokens.")
        # An address that was shared is shown once somebody has signed in.
        page.goto(f"{gateway.admin_url}/console/models")
        page.get_by_label("Admin token").fill(VIEWER_TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Models and prices")
        assert page.evaluate("document.cookie") == ""
        assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])") == "[{},{}]"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_link_of_the_terminal_signs_in_and_leaves_no_code_in_the_address(
    browser: Browser, gateway: RunningGateway
) -> None:
    path = ask("POST", f"{gateway.admin_url}/console/codes", key=ADMIN_TOKEN).json["path"]
    with visitor(browser, gateway, None) as person:
        person.page.goto(gateway.admin_url + path)
        expect(person.page.get_by_role("heading", level=1)).to_have_text("Overview")
        assert "code" not in person.page.url
    with visitor(browser, gateway, None) as other:
        other.page.goto(gateway.admin_url + path)
        expect(other.page.get_by_role("alert")).to_contain_text("'lightmeter console' prints a new one")


def test_a_link_of_somebody_else_says_whose_it_is_first(browser: Browser, gateway: RunningGateway) -> None:
    def path() -> str:
        return gateway.admin_url + str(ask("POST", f"{gateway.admin_url}/console/codes", key=VIEWER_TOKEN).json["path"])

    with visitor(browser, gateway, ADMIN_TOKEN) as person:
        page = person.page
        page.goto(path())
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in as auditor?")
        expect(page.get_by_text("You are signed in as admin.")).to_be_visible()
        assert "code" not in page.url
        person.check_everywhere()
        page.get_by_role("button", name="Stay admin").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        expect(page.locator(".who p")).to_have_text("adminadmin")
        # In a page that is open already, a browser changes the fragment and loads nothing.
        page.goto(f"{gateway.admin_url}/console/")
        page.evaluate("address => { location.href = address; }", path().replace("/console/", "/console/overview"))
        page.get_by_role("button", name="Sign in as auditor").click()
        expect(page.locator(".who p")).to_have_text("auditorviewer")
        person.check(axe=False)


def test_the_overview_is_live(admin: Visitor, gateway: RunningGateway, key: str) -> None:
    page = admin.visit("overview", "Overview")
    images = page.locator("dt", has_text="Images, last hour").locator("xpath=../dd")
    expect(images).not_to_have_text("0")
    before = int(images.inner_text())
    fresh = gateway.make_key()
    assert gateway.generate(fresh, n=3).status == 200
    expect(images).to_have_text(str(before + 3), timeout=12_000)
    expect(page.get_by_role("img", name="Requests by minute")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


# --- What can be done ------------------------------------------------------------------------------------------------


def test_the_limits_of_each_end_user_of_a_key(admin: Visitor, gateway: RunningGateway) -> None:
    made = key_id(gateway.make_key(None))
    page = admin.visit(f"keys/{made}", made)
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Change").click()
    dialog.get_by_text("Limits of each end user").click()
    dialog.get_by_label("Daily units").fill("20 000")
    dialog.get_by_label("Users with other limits").fill("ann: 60")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("should be a JSON object")).to_be_visible()
    admin.check()
    dialog.get_by_label("Users with other limits").fill('{"ann": {"images_per_minute": 60}}')
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("daily units 20,000; 1 user with limits of their own")).to_be_visible()
    page.get_by_role("button", name="Change").click()
    expect(dialog.get_by_label("Daily units")).to_have_value("20000")
    dialog.get_by_label("Daily units").fill("")
    dialog.get_by_label("Users with other limits").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Each end user")).to_have_count(0)
    assert gateway.admin("GET", f"/admin/v1/keys/{made}").json["limits"]["limits_per_user"] is None


def test_a_key_from_its_making_to_its_end(admin: Visitor, gateway: RunningGateway) -> None:
    page = admin.visit("teams", "Teams and keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Team", exact=True).fill("workshop")
    dialog.get_by_label("Name", exact=True).fill("poster")
    dialog.get_by_text("Limits", exact=True).click()
    dialog.get_by_label("Units a day").fill("30,000")
    admin.check()
    dialog.get_by_role("button", name="Create the key").click()
    secret = page.locator(".secret").first
    expect(secret).to_contain_text("lm_workshop_")
    text = secret.inner_text()
    expect(page.locator(".secret").nth(1)).to_contain_text(f"curl {gateway.url}/v1/images/generations")
    page.get_by_role("button", name="Copy the key").click()
    assert page.evaluate("navigator.clipboard.readText()") == text
    assert gateway.generate(text).status == 200
    admin.check()
    page.get_by_role("button", name="I have it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("workshop")
    assert text not in page.content()

    page.get_by_role("link", name=key_id(text)).click()
    expect(page.get_by_text("5,000 used of 30,000")).to_be_visible()
    page.get_by_role("button", name="Change").click()
    dialog.get_by_label("Units a day").fill("$1")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("5,000 used of 100,000")).to_be_visible()

    page.get_by_role("button", name="Rotate").click()
    dialog.get_by_role("button", name="Rotate").click()
    expect(page.locator(".secret").first).not_to_have_text(text)
    renewed = page.locator(".secret").first.inner_text()
    page.get_by_role("button", name="I have it").click()
    assert gateway.generate(text).status == 401
    assert gateway.generate(renewed).status == 200

    page.get_by_role("button", name="Revoke").click()
    dialog.get_by_label("Type").fill("another")
    dialog.get_by_role("button", name="Revoke the key").click()
    expect(dialog.get_by_role("alert")).to_have_text(f"This is not {key_id(text)}.")
    dialog.get_by_label("Type").fill(key_id(text))
    dialog.get_by_role("button", name="Revoke the key").click()
    expect(page.get_by_text("This key was revoked")).to_be_visible()
    assert gateway.generate(renewed).status == 401
    assert admin.wrong == []


def test_a_grant_and_a_refund_stand_in_the_ledger(admin: Visitor, gateway: RunningGateway) -> None:
    key = gateway.make_key(100_000, team="atelier")
    assert gateway.generate(key).status == 200
    page = admin.visit(f"keys/{key_id(key)}")
    page.get_by_role("button", name="Grant").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Units").fill("25 000")
    dialog.get_by_label("Reason").fill("a larger poster")
    dialog.get_by_role("button", name="Grant").click()
    expect(page.get_by_text("120,000 ($1.20) left")).to_be_visible()
    page.get_by_role("link", name="Its ledger").click()
    rows = page.get_by_role("row")
    expect(rows).to_have_count(3)
    rows.filter(has_text="delivered").get_by_role("link").first.click()
    expect(page.get_by_text("acme/image-1")).to_be_visible()
    page.get_by_role("button", name="Refund").click()
    dialog.get_by_label("Reason").fill("it was grey")
    dialog.get_by_role("button", name="Refund").click()
    expect(page.get_by_text("Refunded by the entry")).to_be_visible()
    assert gateway.quota(key)["posted"] == 0
    page.go_back()
    expect(page.get_by_role("row")).to_have_count(4)
    assert admin.wrong == []


def test_what_a_request_would_cost_and_a_recipe(admin: Visitor) -> None:
    page = admin.visit("models", "Models and prices")
    page.get_by_label("Images", exact=True).fill("3")
    page.get_by_label("Size", exact=True).fill("4K")
    page.get_by_role("button", name="What would it cost?").click()
    expect(page.get_by_text("37,500 ($0.38) units")).to_be_visible()
    assert "size=4K" in page.url
    page.get_by_label("Images", exact=True).fill("99")
    page.get_by_role("button", name="What would it cost?").click()
    expect(page.get_by_role("alert")).to_contain_text("n")
    page.get_by_label("Provider", exact=True).select_option("gemini")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text('dialect = "gemini"')).to_be_visible()


def test_the_books_are_verified(admin: Visitor, key: str) -> None:
    page = admin.visit("books?team=studio", "Books")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("Every counter is right")).to_be_visible()
    page.get_by_label("Team").fill("nobody")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("There is no team 'nobody'.")).to_be_visible()


def test_usage_as_a_file(admin: Visitor, key: str) -> None:
    page = admin.visit("usage?team=studio", "Usage")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    heading, row = download.value.path().read_text().splitlines()
    assert heading == "day,key,images,quota_units,quota_units_usd"
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d,{key_id(key)},3,15000,0.15", row)


def test_usage_of_the_last_days_is_told_by_model(gateway: RunningGateway, key: str) -> None:
    for path in (f"keys/{key_id(key)}", "teams/studio"):
        (day,) = gateway.admin("GET", f"/admin/v1/{path}/usage?days=2").json["by_day"].values()
        sums = {"images": 3, "quota_units": 15_000, "quota_units_usd": "0.15"}
        assert day == {**sums, "by_model": {"acme/image-1": sums}}
        for days in ("0", "401", "-1", "x"):
            assert gateway.admin("GET", f"/admin/v1/{path}/usage?days={days}").status == 400


def test_usage_of_people_and_projects(admin: Visitor, key: str) -> None:
    page = admin.visit("usage?team=studio", "Usage")
    page.get_by_label("Stacked by").select_option("user")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("img", name="Units by month and end user: 10,000 ($0.10) in all")).to_be_visible()
    expect(page.get_by_role("row", name="ada@example.org 2 10,000 $0.10")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.path().read_text().splitlines() == [
        "month,user,images,quota_units,quota_units_usd",
        f"{this_month()},ada@example.org,2,10000,0.10",
    ]
    for time_, title in (("7d", "Units by day and end user"), ("3m", "Units by month and end user")):
        page.get_by_label("Time").select_option(time_)
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("img", name=f"{title}: 10,000 ($0.10) in all")).to_be_visible()
        page.get_by_label("Key").fill(key_id(key) if time_ == "7d" else "")
    page.get_by_label("Stacked by").select_option("model")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("img", name="Units by day and model: 15,000 ($0.15) in all")).to_be_visible()
    page.get_by_label("Stacked by").select_option("tag")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row", name="env=prod 2 10,000 $0.10")).to_be_visible()
    assert "by=tag" in page.url
    page.get_by_role("link", name="project=apollo").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ledger")
    expect(page.get_by_label("Tag")).to_have_value("project=apollo")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("row").nth(1).get_by_role("link", name="ada@example.org").click()
    expect(page.get_by_label("End user")).to_have_value("ada@example.org")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("row").nth(1).get_by_role("link").first.click()
    expect(page.get_by_role("link", name="env=prod")).to_be_visible()
    assert admin.wrong == []


def test_an_end_user_may_be_called_as_what_every_object_has(admin: Visitor) -> None:
    sums = {"images": 2, "quota_units": 10_000}
    people = ({"constructor": sums, "__proto__": sums}, {"ann": sums})
    data = [
        {"month": f"2026-0{at}", "by_user": by_user, "headings_omitted": {"by_user": 0}}
        for at, by_user in enumerate(people, start=1)
    ]
    admin.page.route("**/admin/v1/teams/studio/statements?*", lambda route: route.fulfill(json={"data": data}))
    page = admin.visit("usage?team=studio&by=user", "Usage")
    for name in ("ann", "constructor", "__proto__"):
        expect(page.get_by_role("row", name=f"{name} 2 10,000 $0.10")).to_be_visible()
    assert admin.wrong == []


def test_a_statement_is_found_read_and_taken_away(admin: Visitor, gateway: RunningGateway) -> None:
    key = gateway.make_key(team="finance")
    team_ledger, past = "lm:{finance}:ledger", PAST_MS
    for at in range(12):
        facts = json.dumps({"model": "acme/image-1", "admitted_ms": past - (40 * 86_400_000 if at == 3 else 0)})
        about: Any = {"kind": "request", "key": f"finance_{at:010d}", "request": f"req_{at}", "outcome": "delivered"}
        about |= {"images": "1", "charged": str(1_000 * (at + 1)), "overage": "0", "facts": facts}
        _store_of(gateway).xadd(team_ledger, about, id=f"{past + at}-0")
    assert gateway.generate(key, n=2).status == 200
    page = admin.visit("statements", "Statements")
    page.get_by_role("link", name="finance").click()
    expect(page.get_by_role("img", name="Units by month: 88,000 ($0.88) in all")).to_be_visible()
    expect(page.get_by_role("row", name=f"{month_name(this_month())} open")).to_be_visible()
    page.get_by_role("link", name="October 2025").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("October 2025")
    expect(page.get_by_text("78,000", exact=True).first).to_be_visible()
    expect(page.get_by_role("row", name="2 others 2 3,000 $0.03")).to_be_visible()
    expect(page.get_by_role("row", name="2025-08 1 1 4,000 $0.04")).to_be_visible()
    page.get_by_text("Which they are").click()
    expect(page.get_by_role("link", name=f"finance_{past + 3}-0")).to_be_visible()
    admin.check()
    for name, wanted in (("CSV", "late"), ("JSON", '"headings_omitted"')):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        text = download.value.path().read_text()
        assert (wanted in text, text.count("finance_0000") >= 12) == (True, True)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="To print").click()
    expect(popup.value.get_by_role("heading", level=1)).to_have_text("Statement of finance, 2025-10")
    popup.value.close()
    page.get_by_role("link", name=f"finance_{past + 11}-0").click()
    expect(page.get_by_text("finance_0000000011", exact=True).first).to_be_visible()
    page.goto(f"{gateway.admin_url}/console/statements?team=finance&month=2020-01")
    expect(page.get_by_role("alert")).to_have_text(
        "There is no statement of 'finance' for 2020-01: its ledger has nothing of then."
    )
    assert admin.wrong == ["Failed to load resource: the server responded with a status of 404 (Not Found)"]


def test_a_team_is_found_by_how_its_id_begins(admin: Visitor, gateway: RunningGateway, key: str) -> None:
    page = admin.visit("ledger", "Ledger")
    page.get_by_label("Team").press_sequentially("stu")
    expect(page.locator("datalist option").first).to_have_attribute("value", "studio")
    expect(page.locator("datalist option")).to_have_count(1)


# --- Who sees what ---------------------------------------------------------------------------------------------------


def test_a_viewer_is_offered_no_change(browser: Browser, gateway: RunningGateway, key: str) -> None:
    with visitor(browser, gateway, VIEWER_TOKEN) as person:
        for path in ("teams", "teams/studio", f"keys/{key_id(key)}"):
            person.visit(path)
            names = person.page.get_by_role("button").all_inner_texts()
            assert set(names) <= {"Sign out", "Show", "Show more"}


def test_an_administrator_of_teams_sees_theirs(browser: Browser, gateway: RunningGateway, key: str) -> None:
    gateway.admin("POST", "/admin/v1/teams", body={"id": "acme"})
    with visitor(browser, gateway, LEAD_TOKEN) as person:
        page = person.visit("", "Teams and keys")
        expect(page.get_by_role("link", name="Overview")).to_have_count(0)
        expect(page.get_by_role("link", name="acme")).to_be_visible()
        expect(page.get_by_text("studio")).to_have_count(0)
        for name in ("ledger", "statements", "audit"):
            person.visit(name)
            expect(page.get_by_text("Choose one of yours: acme, ghost.")).to_be_visible()
        person.visit("statements?team=acme", "Statements")
        expect(page.get_by_label("Team")).to_have_value("acme")
        person.visit("teams/acme", "acme")
        assert page.get_by_role("button").all_inner_texts()[1:] == ["New key"]
        person.check(axe=False)
        page.goto(f"{gateway.admin_url}/console/teams/studio")
        expect(page.get_by_role("alert")).to_contain_text("'lead' is a team_admin of acme, ghost only.")


# --- Without data, with errors, with very much ------------------------------------------------------------------------


def test_pages_without_data_say_what_to_do(admin: Visitor, gateway: RunningGateway) -> None:
    gateway.admin("POST", "/admin/v1/teams", body={"id": "idle"})

    def nothing(route: Route) -> None:
        answer = route.fetch()
        content = answer.json()
        content = (
            {**content, "data": [], "next_cursor": None}
            if "data" in content
            else {**content, "minutes": [], "days": []}
        )
        route.fulfill(response=answer, json=content)

    admin.page.route(re.compile(r"/admin/v1/(teams|keys|ledger|audit|models|overview)(\?|$)"), nothing)
    silence = {"body": "retry: 600000\n\n", "content_type": "text/event-stream"}
    admin.page.route(re.compile("/admin/v1/overview/events"), lambda route: route.fulfill(**silence))
    told = {
        "overview": "No request yet",
        "teams": "No team yet",
        "ledger": "No entry yet",
        "audit": "No change yet",
        "models": "No model is configured",
        "usage": "Nothing was used in these days",
        "teams?prefix=zzz": "Nothing begins so",
        "teams/idle": "No key yet",
        "statements": "No team yet",
        "statements?team=idle": "Nothing to state yet",
        "usage?team=idle&by=user": "No end user yet",
        "usage?team=idle&by=tag": "No tag yet",
    }
    for path, text in told.items():
        page = admin.visit(path)
        expect(page.get_by_text(text)).to_be_visible()
        admin.check_everywhere()


def test_errors_are_told_in_the_gateways_words(admin: Visitor, gateway: RunningGateway) -> None:
    page = admin.visit("teams/no-such-team")
    expect(page.get_by_role("alert")).to_have_text("There is no team 'no-such-team'.")
    admin.wrong.clear()
    admin.check_everywhere()
    page.goto(f"{gateway.admin_url}/console/ledger?team=Nonsense")
    expect(page.get_by_role("alert")).to_contain_text("'team' should be a team's id.")
    away = {"error": {"message": "The store is away.", "type": "x", "param": None, "code": "store_unavailable"}}
    page.route("**/admin/v1/teams?*", lambda route: route.fulfill(status=503, json=away))
    page.goto(f"{gateway.admin_url}/console/teams")
    expect(page.get_by_role("alert")).to_have_text("The store is away.")
    admin.wrong.clear()
    admin.check_everywhere()
    page.unroute("**/admin/v1/teams?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("link", name="studio")).to_be_visible()


def test_a_session_that_ended_asks_to_sign_in(admin: Visitor, gateway: RunningGateway) -> None:
    admin.visit("models")
    admin.context.clear_cookies()
    admin.page.get_by_role("link", name="Audit").click()
    expect(admin.page.get_by_text("Your session has ended: sign in again.")).to_be_visible()


def test_a_hundred_thousand_teams(admin: Visitor, gateway: RunningGateway) -> None:
    store = _store_of(gateway)
    fill = (
        "for at = 1, tonumber(ARGV[1]) do local id = string.format('zz-%06d', at) "
        "redis.call('ZADD', 'lm:teams', 0, id) "
        "redis.call('HSET', 'lm:{' .. id .. '}:team', 'created_ms', '1790000000000', 'name', 'Team ' .. at) end"
    )
    store.eval(fill, 0, MANY)
    try:
        page = admin.visit("teams?prefix=zz-0999", "Teams and keys")
        expect(page.get_by_role("row")).to_have_count(51)
        # What one page needs, and not what there is.
        assert 0 < page.evaluate(BYTES_OF_THE_API) < 100_000
        admin.check_everywhere()
        page.get_by_role("button", name="Show more").click()
        expect(page.get_by_role("row")).to_have_count(101)
        expect(page.get_by_role("button", name="Show more")).to_have_count(0)
        for path, heading in OF_ALL_TEAMS.items():
            admin.visit(path, heading)
            admin.check_everywhere()
    finally:
        store.eval(
            "for at = 1, tonumber(ARGV[1]) do local id = string.format('zz-%06d', at) "
            "redis.call('ZREM', 'lm:teams', id) redis.call('UNLINK', 'lm:{' .. id .. '}:team') end",
            *(0, MANY),
        )


# --- The page of a key's owner ---------------------------------------------------------------------------------------


def test_the_owner_of_a_key_sees_what_is_left(browser: Browser, gateway: RunningGateway, key: str) -> None:
    person = Visitor(browser, gateway.url)
    page = person.page
    page.goto(f"{gateway.url}/")
    page.get_by_label("Your key").fill("lm_nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    person.check_everywhere()
    page.get_by_label("Your key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_text("15,000 used of 20,000")).to_be_visible()
    expect(page.get_by_role("img", name="Images by day: 3 in all")).to_be_visible()
    expect(page.get_by_role("heading", name="acme/image-1")).to_be_visible()
    person.check_everywhere()
    assert key not in page.content()
    assert page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])") == '["",{},{}]'
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("Your key")).to_have_value("")
    person.context.close()


def _store_of(gateway: RunningGateway) -> redis.Redis:
    """The gateway's own embedded store."""
    folder = gateway.server.log.parent / "data"
    (socket,) = [path for path in folder.rglob("*") if path.is_socket()]
    return redis.Redis(unix_socket_path=str(socket))
