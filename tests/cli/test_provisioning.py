from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.provisioning import Change, ProvisioningError, Standing, compare, read_provisions
from proxy.domain.money import Money

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NO_LIMITS = {
    "quota_units": None,
    "quota_units_per_day": None,
    "quota_units_per_month": None,
    "requests_per_minute": None,
    "images_per_minute": None,
    "concurrent_requests": None,
    "models": ["*"],
    "limits_per_user": None,
}
FILE = """\
[[teams]]
id = "research"
name = "Research"
[teams.limits]
requests_per_minute = 60

[[teams.keys]]
name = "nightly"
expires_at = 2099-01-31T00:00:00Z
[teams.keys.limits]
quota_units = 1000
models = ["acme/*"]
"""
TEAM = {"id": "research", "name": "Research", "limits": {**NO_LIMITS, "requests_per_minute": 60}, "deleted_at": None}
KEY = {
    "id": "research_0123456789",
    "name": "nightly",
    "limits": {**NO_LIMITS, "quota_units": 1_000, "models": ["acme/*"]},
    "expires_at": "2099-01-31T00:00:00.000Z",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "teams.toml"


def changes(path: Path, text: str, standing: Standing) -> list[Change]:
    path.write_text(text)
    return compare(path, read_provisions(path), {"research": standing}, NOW)


def mistakes(path: Path, text: str | bytes) -> list[str]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ProvisioningError) as caught:
        read_provisions(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


# --- The difference ---------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_made_the_team_first(path: Path) -> None:
    team, key = changes(path, FILE, Standing(None, []))
    assert (team.method, team.path) == ("POST", "/admin/v1/teams")
    assert team.body == {"id": "research", "name": "Research", "limits": TEAM["limits"]}
    assert (key.method, key.path, key.makes_a_key) == ("POST", "/admin/v1/keys", True)
    assert key.body == {
        "team": "research",
        "name": "nightly",
        "limits": KEY["limits"],
        "expires_at": "2099-01-31T00:00:00.000Z",
    }


def test_what_is_as_it_should_be_is_left_alone(path: Path) -> None:
    assert changes(path, FILE, Standing(TEAM, [KEY])) == []


def test_only_what_differs_is_changed(path: Path) -> None:
    team = {**TEAM, "name": "Old", "limits": {**NO_LIMITS, "requests_per_minute": 30, "images_per_minute": 5}}
    key = {**KEY, "limits": {**KEY["limits"], "quota_units": 5}, "expires_at": None}  # type: ignore[dict-item]
    first, second = changes(path, FILE, Standing(team, [key]))
    assert (first.method, first.path) == ("PATCH", "/admin/v1/teams/research")
    assert first.body == {"name": "Research", "limits": {"requests_per_minute": 60, "images_per_minute": None}}
    assert first.fields == {
        "name": ("Old", "Research"),
        "requests_per_minute": (30, 60),
        "images_per_minute": (5, None),
    }
    assert (second.method, second.path) == ("PATCH", "/admin/v1/keys/research_0123456789")
    assert second.body == {"limits": {"quota_units": 1_000}, "expires_at": "2099-01-31T00:00:00.000Z"}
    assert not second.makes_a_key


def test_keys_that_the_file_does_not_name_are_left_alone(path: Path) -> None:
    other = {**KEY, "id": "research_other00000", "name": "other"}
    assert changes(path, FILE, Standing(TEAM, [KEY, other])) == []


@pytest.mark.parametrize(
    ("standing", "text", "mistake"),
    [
        (Standing({**TEAM, "deleted_at": "2026"}, []), FILE, "teams[0].id: the team 'research' has been deleted"),
        (Standing(TEAM, [KEY, KEY]), FILE, "teams[0].keys[0].name: the gateway has several keys of this name"),
        (
            Standing(TEAM, []),
            FILE.replace("2099", "2020"),
            "teams[0].keys[0].expires_at: a new key should expire in the future",
        ),
    ],
)
def test_what_cannot_be_made_so_is_told_before_anything_is(
    path: Path, standing: Standing, text: str, mistake: str
) -> None:
    with pytest.raises(ProvisioningError) as caught:
        changes(path, text, standing)
    assert str(caught.value).startswith(f"{path}: {mistake}")


def test_a_key_that_has_expired_as_it_should_is_as_it_should_be(path: Path) -> None:
    expired = {**KEY, "expires_at": "2020-01-31T00:00:00.000Z"}
    assert changes(path, FILE.replace("2099", "2020"), Standing(TEAM, [expired])) == []


# --- The file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ('id = "research"', 'id = "No Such"', "teams[0].id: is 'No Such': should be 1 to 40 of a-z, 0-9 and '-'"),
        ('id = "research"\n', "", "teams[0].id: is missing"),
        ("requests_per_minute = 60", "requests_per_minute = 0", "teams[0].limits.requests_per_minute: is '0': input"),
        ("requests_per_minute", "request_per_minute", "teams[0].limits.request_per_minute: is not a setting; '"),
        (
            "quota_units = 1000",
            'quota_units = "1000"',
            "teams[0].keys[0].limits.quota_units: is '1000': should be a whole number of quota units",
        ),
        ('["acme/*"]', '["a*b"]', "teams[0].keys[0].limits.models[0]: is 'a*b': should be a model's id, 'prefix/*'"),
        ("2099-01-31T00:00:00Z", "2099-01-31T00:00:00", "teams[0].keys[0].expires_at: is '2099-01-31 00:00:00': input"),
        ('name = "nightly"', 'name = ""', "teams[0].keys[0].name: is '': string should have at least 1 character"),
        ("[teams.limits]", "[team.limits]", "team: is not a setting"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(path: Path, old: str, new: str, mistake: str) -> None:
    assert FILE.count(old) == 1
    assert mistakes(path, FILE.replace(old, new))[0].startswith(mistake)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (FILE + FILE, "teams[1].id: there is another team 'research'"),
        (FILE + '[[teams.keys]]\nname = "nightly"', "teams[0].keys[1].name: the team 'research' has another key"),
        ("", "teams: is missing, add [[teams]] with an id"),
        ("teams = 5", "teams: should be a list with settings of its own"),
        ("teams = [5]", "teams[0]: should be a section with settings of its own"),
        ("[[teams", "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_none_is_told(path: Path, text: Any, mistake: str) -> None:
    assert mistakes(path, text)[0].startswith(mistake)


def test_all_mistakes_are_told_at_once(path: Path) -> None:
    text = FILE.replace('"research"', '"R"').replace("= 1000", "= -1")
    assert len(mistakes(path, text)) == 2


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(ProvisioningError, match="cannot be read: No such file"):
        read_provisions(path)


def test_the_example_is_good() -> None:
    example = Path(__file__).parents[2] / "config" / "teams.toml"
    assert [team.id for team in read_provisions(example).teams] == ["research", "marketing"]


NO_USER_LIMITS = {
    "quota_units_per_day": None,
    "quota_units_per_month": None,
    "images_per_minute": None,
    "concurrent_requests": None,
}
PER_USER = """
[teams.limits.limits_per_user]
quota_units_per_day = "$2"
[teams.limits.limits_per_user.users]
"ann@example.com" = { concurrent_requests = 3 }
"" = { quota_units_per_month = "$0" }
"""


def test_limits_of_each_user_are_compared_whole(path: Path) -> None:
    path.write_text(FILE.replace("requests_per_minute = 60\n", f"requests_per_minute = 60\n{PER_USER}"))
    provisions = read_provisions(path, lambda: Money(Decimal(1_000)))
    users = {
        "ann@example.com": {**NO_USER_LIMITS, "concurrent_requests": 3},
        "": {**NO_USER_LIMITS, "quota_units_per_month": 0},
    }
    per_user = {**NO_USER_LIMITS, "quota_units_per_day": 2_000, "users": users}
    (change,) = compare(path, provisions, {"research": Standing(TEAM, [KEY])}, NOW)
    assert change.fields == {"limits_per_user": (None, per_user)}
    assert change.body == {"limits": {"limits_per_user": per_user}}
    as_it_is = {**TEAM, "limits": {**NO_LIMITS, "requests_per_minute": 60, "limits_per_user": per_user}}
    assert compare(path, provisions, {"research": Standing(as_it_is, [KEY])}, NOW) == []
