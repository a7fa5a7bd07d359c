"""The section ``[admin.oidc]``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_settings
from proxy.web.admin.roles import Role

GOOD: dict[str, Any] = {
    "issuer": "https://login.example.com/realms/main",
    "client_id": "lightmeter",
    "client_secret_env": "OIDC_SECRET",
    "roles": {"operators": "admin", "leads": "team_admin"},
    "teams": {"research-leads": ["research"]},
    "allowed_domains": ["Acme.example"],
}
MODELS: dict[str, Any] = {
    "providers": [{"name": "acme", "base_url": "https://api.acme.example/v1"}],
    "models": [{"id": "a", "provider": "acme", "upstream_model": "a", "token_multiplier": 1}],
}
ENVIRONMENT = {"OIDC_SECRET": "a-secret-of-the-client", "LIGHTMETER_OIDC": "x"}


def read(admin: Mapping[str, Any] | None = None, environment: Mapping[str, str] = ENVIRONMENT, **oidc: Any) -> Settings:
    given = {name: value for name, value in {**GOOD, **oidc}.items() if value is not None}
    section = {"public_url": "https://meter.example", **(admin or {}), "oidc": given}
    section = {name: value for name, value in section.items() if value is not None}
    return read_settings({"admin": section, **MODELS}, "lightmeter.toml", environment)


def test_it_says_who_is_asked_and_who_gets_in() -> None:
    settings = read()
    oidc = settings.admin.oidc
    assert oidc is not None
    client = oidc.client("https://meter.example", ENVIRONMENT)
    assert client.redirect_uri == "https://meter.example/console/oidc/callback"
    assert (client.client_secret, client.scopes) == ("a-secret-of-the-client", ("openid", "profile", "email"))
    assert "a-secret" not in repr(client)
    rules = oidc.rules()
    assert (rules.roles, rules.teams) == (
        {"operators": Role.ADMIN, "leads": Role.TEAM_ADMIN},
        {"research-leads": ("research",)},
    )
    assert (rules.roles_claim, rules.teams_claim, rules.name_claim) == ("groups", "groups", "email")
    assert rules.allowed_domains == {"acme.example"}
    assert oidc.shown_name == "login.example.com"
    assert "a-secret-of-the-client" in settings.secret_texts(ENVIRONMENT)


def test_its_variable_is_known_and_none_is_the_section() -> None:
    settings = read(client_secret_env="LIGHTMETER_CLIENT", environment={"LIGHTMETER_CLIENT": "secret"})
    assert settings.unknown_variables({"LIGHTMETER_CLIENT": "secret"}) == []
    (told,) = settings.unknown_variables({"LIGHTMETER_ADMIN_OIDC": "x"})
    assert "LIGHTMETER_ADMIN_OIDC: is not a setting" in told


def test_a_public_client_has_no_secret_and_this_machine_needs_no_tls() -> None:
    oidc = read(
        {"public_url": "http://127.0.0.1:8081"}, issuer="http://localhost:9/", client_secret_env=None
    ).admin.oidc
    assert oidc is not None
    assert oidc.client("http://127.0.0.1:8081", {}).client_secret == ""


@pytest.mark.parametrize(
    ("admin", "oidc", "told"),
    [
        ({}, {"issuer": None}, "admin.oidc.issuer: is missing"),
        ({}, {"issuer": "http://login.example.com"}, "should be the issuer's address, like https://"),
        ({}, {"issuer": "https://login.example.com?x=1"}, "should be the issuer's address"),
        ({}, {"issuer": "https://me:secret@login.example.com"}, "should be the issuer's address"),
        ({}, {"client_id": None}, "admin.oidc.client_id: is missing"),
        ({}, {"scopes": ["email"]}, "should hold 'openid'"),
        ({}, {"roles": {"x": "owner"}}, "admin.oidc.roles.x: is 'owner'"),
        ({}, {"roles": None, "teams": None}, "admin.oidc.roles: is missing, and nobody could sign in"),
        ({}, {"teams": None}, 'admin.oidc.teams: is missing: a "team_admin" has teams'),
        ({}, {"roles": {"x": "viewer"}}, 'admin.oidc.teams: goes with the role "team_admin" only'),
        ({}, {"teams": {"x": ["No team!"]}}, "admin.oidc.teams.x[0]"),
        ({}, {"client_secret_env": "NOT_THERE"}, "the environment has no NOT_THERE: export it"),
        ({}, {"client_secret": "x"}, "admin.oidc.client_secret: is not a setting"),
        ({"public_url": None}, {}, "admin.public_url: is missing: [admin.oidc] needs it"),
        ({"public_url": "http://meter.example"}, {}, "admin.public_url: should begin with https://"),
        ({"console": False}, {}, "admin.oidc: signs people in to the console, and admin.console is false"),
    ],
)
def test_a_mistake_says_what_would_be_right(admin: dict[str, Any], oidc: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        read(admin, **oidc)
    (line,) = str(wrong.value).splitlines()
    assert line.startswith("lightmeter.toml: admin.")
    assert told in line
    assert "me:secret" not in line


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("proxy.settings.people.oidc.find_spec", lambda name: None if name == "joserfc" else found(name))
    with pytest.raises(ConfigurationError, match=r"joserfc is not installed: .*install 'lightmeter\[oidc\]'"):
        read()
