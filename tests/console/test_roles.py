"""Which role may use which route of the admin API: every route, every role."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.console.conftest import LEAD_TOKEN, VIEWER_TOKEN
from tests.support.gateways import ADMIN_TOKEN, RunningGateway, ask

YES, NO = True, False
TABLE = {
    # method, path: the viewer, an administrator of the team, one of another team
    ("POST", "/admin/v1/teams"): (NO, NO, NO),
    ("GET", "/admin/v1/teams"): (YES, YES, YES),
    ("GET", "/admin/v1/teams/{id}"): (YES, YES, NO),
    ("PATCH", "/admin/v1/teams/{id}"): (NO, NO, NO),
    ("DELETE", "/admin/v1/teams/{id}"): (NO, NO, NO),
    ("POST", "/admin/v1/teams/{id}/grants"): (NO, NO, NO),
    ("GET", "/admin/v1/teams/{id}/usage"): (YES, YES, NO),
    ("POST", "/admin/v1/keys"): (NO, YES, NO),
    ("GET", "/admin/v1/keys"): (YES, YES, NO),
    ("GET", "/admin/v1/keys/{id}"): (YES, YES, NO),
    ("PATCH", "/admin/v1/keys/{id}"): (NO, YES, NO),
    ("DELETE", "/admin/v1/keys/{id}"): (NO, YES, NO),
    ("POST", "/admin/v1/keys/{id}/rotate"): (NO, YES, NO),
    ("POST", "/admin/v1/keys/{id}/grants"): (NO, YES, NO),
    ("GET", "/admin/v1/keys/{id}/usage"): (YES, YES, NO),
    ("GET", "/admin/v1/ledger"): (YES, YES, NO),
    ("POST", "/admin/v1/ledger/{entry}/refund"): (NO, NO, NO),
    ("GET", "/admin/v1/money"): (YES, YES, YES),
    ("GET", "/admin/v1/ledger/books"): (YES, NO, NO),
    ("GET", "/admin/v1/ledger/books/{team}"): (YES, YES, NO),
    ("GET", "/admin/v1/ledger/books/{team}/users"): (YES, YES, NO),
    ("GET", "/admin/v1/ledger/heads"): (YES, NO, NO),
    ("POST", "/admin/v1/ledger/shipped"): (NO, NO, NO),
    ("GET", "/admin/v1/teams/{id}/usage/people"): (YES, YES, NO),
    ("GET", "/admin/v1/teams/{id}/statements"): (YES, YES, NO),
    ("GET", "/admin/v1/teams/{id}/statements/{month}"): (YES, YES, NO),
    ("GET", "/admin/v1/teams/{id}/statements/{month}/page"): (YES, YES, NO),
    ("GET", "/admin/v1/teams/{id}/statements/{month}/csv"): (YES, YES, NO),
    ("GET", "/admin/v1/audit"): (YES, YES, NO),
    ("GET", "/admin/v1/ledger/verify"): (YES, YES, NO),
    ("GET", "/admin/v1/overview"): (YES, NO, NO),
    ("GET", "/admin/v1/overview/events"): (YES, NO, NO),
    ("GET", "/admin/v1/models"): (YES, YES, YES),
    ("GET", "/admin/v1/price"): (YES, YES, YES),
    ("GET", "/admin/v1/recipes"): (YES, YES, YES),
}
NAMED_BY_QUERY = {"/admin/v1/keys", "/admin/v1/ledger", "/admin/v1/audit", "/admin/v1/ledger/verify"}
STREAMS = "/admin/v1/overview/events"


@pytest.fixture(scope="module")
def ids(gateway: RunningGateway) -> dict[str, dict[str, str]]:
    """Of two teams, what stands in the paths."""
    found = {}
    for team in ("acme", "other"):
        key = gateway.admin("POST", "/admin/v1/keys", body={"team": team}).json["id"]
        entry = gateway.admin("POST", f"/admin/v1/keys/{key}/grants", body={"quota_units": 0, "reason": "x"})
        assert entry.status in (201, 409), entry.body
        found[team] = {"keys": key, "teams": team, "entry": f"{team}_1-1", "team": team}
    return found


def may(gateway: RunningGateway, token: str, method: str, path: str, ids: dict[str, str]) -> bool:
    kind = "keys" if path.startswith("/admin/v1/keys") else "teams"
    place = path.replace("{id}", ids[kind]).replace("{entry}", ids["entry"]).replace("{team}", ids["team"])
    place = place.replace("{month}", "2026-11")
    if path in NAMED_BY_QUERY and method == "GET":
        place += f"?team={ids['team']}"
    # Who may is told what is wrong with this body; only keys are made, to see whose they would be.
    body = {"team": ids["team"]} if path == "/admin/v1/keys" else {"nobody knows": "this"}
    if path == STREAMS:
        return _begins(gateway.admin_url + place, token)
    answer = ask(method, gateway.admin_url + place, key=token, body=None if method in ("GET", "DELETE") else body)
    assert answer.status in (200, 201, 400, 403, 404), (method, place, answer.body)
    if answer.status == 403:
        assert answer.json["error"]["code"] == "role_not_allowed"
    return answer.status != 403


def _begins(url: str, token: str) -> bool:
    """Whether a stream that has no end is begun."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - the gateway's
    try:
        with urllib.request.urlopen(request, timeout=10) as stream:  # noqa: S310
            return bool(stream.readline().startswith(b"data: {"))
    except urllib.error.HTTPError as error:
        with error:
            return error.code != 403


def test_the_table_names_every_route(gateway: RunningGateway) -> None:
    paths = ask("GET", f"{gateway.admin_url}/openapi.json").json["paths"]
    served = {
        (method.upper(), path)
        for path, methods in paths.items()
        if path.startswith("/admin/")
        for method in methods
        if method != "servers"
    }
    assert served == set(TABLE)


@pytest.mark.parametrize(("method", "path"), [place for place in sorted(TABLE) if place[0] != "DELETE"])
def test_each_role_may_do_what_the_table_says(
    gateway: RunningGateway, ids: dict[str, dict[str, str]], method: str, path: str
) -> None:
    viewer, own, other = TABLE[method, path]
    assert may(gateway, VIEWER_TOKEN, method, path, ids["acme"]) is viewer
    assert may(gateway, LEAD_TOKEN, method, path, ids["other"]) is other
    assert may(gateway, LEAD_TOKEN, method, path, ids["acme"]) is own
    assert may(gateway, ADMIN_TOKEN, method, path, ids["other"])


def test_who_may_end_what(gateway: RunningGateway) -> None:
    for team in ("ending", "acme"):
        key = gateway.admin("POST", "/admin/v1/keys", body={"team": team}).json["id"]
        for path, kind, name in (("/admin/v1/keys/{id}", "keys", key), ("/admin/v1/teams/{id}", "teams", team)):
            viewer, own, _other = TABLE["DELETE", path]
            ids = {kind: name, "entry": "", "team": team}
            assert may(gateway, VIEWER_TOKEN, "DELETE", path, ids) is viewer
            assert may(gateway, LEAD_TOKEN, "DELETE", path, ids) is (own and team == "acme")
    assert may(gateway, ADMIN_TOKEN, "DELETE", "/admin/v1/teams/{id}", {"teams": "ending", "entry": "", "team": ""})


def test_an_administrator_of_teams_sees_those_only_and_makes_none(gateway: RunningGateway) -> None:
    for team in ("acme", "acme-two"):
        gateway.admin("POST", "/admin/v1/teams", body={"id": team})
    seen = ask("GET", f"{gateway.admin_url}/admin/v1/teams", key=LEAD_TOKEN).json
    assert ([team["id"] for team in seen["data"]], seen["next_cursor"]) == (["acme"], None)
    assert ask("GET", f"{gateway.admin_url}/admin/v1/teams?prefix=b", key=LEAD_TOKEN).json["data"] == []
    for path in sorted(NAMED_BY_QUERY):
        answer = ask("GET", gateway.admin_url + path, key=LEAD_TOKEN)
        assert (answer.status, "name one of its teams" in answer.json["error"]["message"]) == (403, True)
    both = ask("GET", f"{gateway.admin_url}/admin/v1/ledger?team=acme&team=other", key=LEAD_TOKEN)
    assert both.status == 403
    # It is theirs by the configuration, and nobody has made it yet.
    ghost = ask("POST", f"{gateway.admin_url}/admin/v1/keys", key=LEAD_TOKEN, body={"team": "ghost"})
    assert (ghost.status, ghost.json["error"]["message"]) == (404, "There is no team 'ghost'.")


def test_teams_and_keys_are_found_by_how_their_ids_begin(gateway: RunningGateway) -> None:
    for team in ("find-a", "find-b", "find"):
        gateway.admin("POST", "/admin/v1/keys", body={"team": team})

    def found(path: str) -> list[str]:
        ids: list[str] = []
        cursor = ""
        while True:
            page = gateway.admin("GET", f"/admin/v1/{path}&limit=1{cursor}").json
            ids += [each["id"] for each in page["data"]]
            if page["next_cursor"] is None:
                return ids
            cursor = f"&cursor={page['next_cursor']}"

    assert found("teams?prefix=find") == ["find", "find-a", "find-b"]
    assert found("teams?prefix=find-") == ["find-a", "find-b"]
    assert found("teams?prefix=g") == [team for team in ("ghost",) if team in found("teams?")]
    keys = found("keys?prefix=find")
    assert [key.rpartition("_")[0] for key in keys] == ["find", "find-a", "find-b"]
    assert found(f"keys?prefix={keys[1][:9]}") == [keys[1]]
    assert found(f"keys?prefix={keys[1]}") == [keys[1]]
    assert found("keys?prefix=find_") == [keys[0]]
    assert found(f"keys?team=find&prefix={keys[1]}") == []
    assert gateway.admin("GET", "/admin/v1/teams?prefix=%5B").status == 400


def test_no_odd_way_of_naming_another_team_shows_anything_of_it(gateway: RunningGateway) -> None:
    acme, other = (
        gateway.admin("POST", "/admin/v1/keys", body={"team": team}).json["id"] for team in ("acme", "other")
    )
    for path in (
        f"teams/{acme}",
        "keys/acme",
        f"keys/acme_{other.rpartition('_')[2]}",
        f"keys?team=acme&cursor={other}",
        f"keys?team=acme&prefix={other}",
        "keys?team=acme&team=other",
        "keys?team=acme%00other",
        "ledger?team=acme&cursor=other_1-1",
        f"ledger?key={acme}&cursor=0.99999999999999.other.",
        f"ledger?key={acme}&key={other}",
        "audit?team=acme&cursor=0.",
        f"audit?key={acme}",
        f"ledger/verify?key={acme}",
        f"ledger/books/acme?cursor={other}",
        "teams/acme/statements/../../other",
        "teams/acme%2F..%2Fother",
        "teams/%6Fther",
        "../admin/v1/teams/other",
        "../../%61dmin/v1/teams/other",
    ):
        answer = ask("GET", f"{gateway.admin_url}/admin/v1/{path}", key=LEAD_TOKEN)
        assert answer.status in (400, 403, 404) or not answer.json["data"], path
        assert other not in answer.body.decode() or answer.status != 200, path
    for path in ("/%61dmin/v1/teams", "//admin/v1/teams", "/console/../admin/v1/teams", "/admin%2Fv1/teams"):
        assert ask("GET", gateway.admin_url + path).status in (401, 404), path
