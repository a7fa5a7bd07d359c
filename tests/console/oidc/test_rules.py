"""Whom claims let in, and as whom."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.web.admin.roles import Administrator, Role
from proxy.web.console.oidc.refusal import NotAllowed
from proxy.web.console.oidc.rules import TEAMS_LIMIT, ClaimRules, values_of

ROLES = {"ops": Role.ADMIN, "finance": Role.VIEWER, "leads": Role.TEAM_ADMIN}
ADA: dict[str, Any] = {"sub": "u-1", "email": "ada@acme.example", "email_verified": True, "groups": ["ops"]}


def admit(claims: dict[str, Any], **rules: Any) -> Administrator:
    return ClaimRules(roles=ROLES, **rules).admit(claims)


def test_a_claim_is_found_by_its_own_name_or_by_a_path() -> None:
    claims = {
        "realm_access": {"roles": ["a", 1, "b"]},
        "https://acme.example/roles": "c",
        "projects": {"d": {}, "e": 1},
    }
    assert values_of(claims, "realm_access.roles") == ["a", "b"]
    assert values_of(claims, "https://acme.example/roles") == ["c"]
    assert values_of(claims, "projects") == ["d", "e"]
    for name in ("realm_access.roles.a", "nothing", "realm_access.nothing", "https://acme.example"):
        assert values_of(claims, name) == []


def test_a_team_admin_has_the_teams_that_its_claims_name() -> None:
    leads = {**ADA, "groups": ["leads", "a-leads", "b-leads"], "teams": ["b", "B!", "c"]}
    teams = {"a-leads": ("a", "b"), "b-leads": ("b",), "c-leads": ("c",)}
    assert admit(leads, teams=teams).teams == {"a", "b"}
    assert admit(leads, teams_claim="teams").teams == {"b", "c"}
    many = {**ADA, "groups": ["leads"], "teams": [f"t{number}" for number in range(TEAMS_LIMIT + 1)]}
    with pytest.raises(NotAllowed, match=r"The claim 'teams' names 51 teams"):
        admit(many, teams_claim="teams")
    # Whoever sees all has no teams of its own.
    assert admit(ADA, teams=teams) == Administrator("oidc:ada@acme.example", Role.ADMIN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"email": "ada@evil.example"}, "The claim 'email' is ada@evil.example, which is of none of the domains"),
        ({"email": "acme.example@evil.example"}, "of none of the domains"),
        ({"email": "ada@sub.acme.example"}, "of none of the domains"),
        ({"email": "acme.example"}, "holds no address"),
        ({"email": ["ada@acme.example"]}, "holds no address"),
        ({"email": None}, "holds no address"),
        ({"email_verified": False}, "The claim 'email_verified' does not say"),
        ({"email_verified": None}, "The claim 'email_verified' does not say"),
    ],
)
def test_only_verified_addresses_of_the_allowed_domains_get_in(changes: dict[str, Any], words: str) -> None:
    rules = {"allowed_domains": frozenset({"acme.example"})}
    assert admit({**ADA, "email": "ada@ACME.example"}, **rules).role is Role.ADMIN
    with pytest.raises(NotAllowed, match=words):
        admit({**ADA, **changes}, **rules)


def test_one_of_the_allowed_groups_is_needed_beside_a_role() -> None:
    rules = {"allowed_groups": frozenset({"staff"}), "groups_claim": "memberOf"}
    assert admit({**ADA, "memberOf": ["staff", "x"]}, **rules).role is Role.ADMIN
    with pytest.raises(NotAllowed, match=r"The claim 'memberOf' holds x\. One of admin\.oidc\.allowed"):
        admit({**ADA, "memberOf": ["x"]}, **rules)
    with pytest.raises(NotAllowed, match=r"The claim 'groups' holds staff\. None of it has a role"):
        admit({**ADA, "groups": ["staff"], "memberOf": ["staff"]}, **rules)


@pytest.mark.parametrize(
    ("claims", "name_claim", "name"),
    [
        ({}, "email", "oidc:ada@acme.example"),
        ({"email_verified": False}, "email", "oidc:u-1"),
        ({"email": None}, "email", "oidc:u-1"),
        ({"preferred_username": "admin"}, "preferred_username", "oidc:admin"),
        ({"name": "Ada 🎨"}, "name", "oidc:Ada 🎨"),
        ({}, "sub", "oidc:u-1"),
    ],
)
def test_a_name_is_none_of_a_token(claims: dict[str, Any], name_claim: str, name: str) -> None:
    assert admit({**ADA, **claims}, name_claim=name_claim).name == name


@pytest.mark.parametrize("name", ["a" * 101, "a\nb", "a\u202eb"])
def test_a_name_that_the_audit_record_cannot_show_is_refused(name: str) -> None:
    with pytest.raises(NotAllowed, match=r"is no name for the audit record"):
        admit({**ADA, "name": name}, name_claim="name")


def test_what_the_page_shows_of_a_claim_is_bounded() -> None:
    with pytest.raises(NotAllowed, match=r"holds g0, g1, .*, g19, and 480 more"):
        admit({**ADA, "groups": [f"g{number}" for number in range(500)]})
    with pytest.raises(NotAllowed, match=r"is too long for the ID token, and the provider leaves it out"):
        admit({**ADA, "groups": None, "_claim_names": {"groups": "src1"}})
    with pytest.raises(NotAllowed) as refused:
        admit({**ADA, "groups": ["x" * 5_000, "two\nlines"]})
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()
