"""What a file of teams and keys asks for, and how a running gateway differs from it."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from proxy.domain.limits import QUOTAS
from proxy.domain.money import NO_MONEY, Money
from proxy.telemetry.program import PROGRAM
from proxy.web.admin.bodies import LimitsBody, TeamId, Timestamp, milliseconds
from proxy.web.times import iso_time


class ProvisioningError(Exception):
    """The file cannot be made so; the message reports every mistake, one a line."""


# --- The file ---------------------------------------------------------------------------------------------------------


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class KeyEntry(_Entry):
    """One ``[[teams.keys]]``, known by its name."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    limits: LimitsBody = LimitsBody()
    expires_at: Timestamp | None = None


class TeamEntry(_Entry):
    """One ``[[teams]]``."""

    id: TeamId
    name: Annotated[str, Field(max_length=200)] = ""
    limits: LimitsBody = LimitsBody()
    keys: list[KeyEntry] = []


class Provisions(_Entry):
    """The whole file."""

    teams: Annotated[list[TeamEntry], Field(min_length=1)]


def read_provisions(path: Path, ask_money: Callable[[], Money] = Money) -> Provisions:
    """The file at ``path``, its quotas in units; ``ask_money`` is called where some are in US dollars.

    Raises ProvisioningError.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProvisioningError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ProvisioningError(f"{path}: is not valid TOML: {error}") from None
    try:
        money = ask_money() if _has_usd(content) else NO_MONEY
        provisions = Provisions.model_validate(content, context={"money": money})
    except ValidationError as invalid:
        mistakes = [_describe(error) for error in invalid.errors()]
    else:
        mistakes = list(_doubles(provisions))
    if mistakes:
        raise ProvisioningError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return provisions


def _has_usd(content: Mapping[str, Any]) -> bool:
    teams = [team for team in _list(content.get("teams")) if isinstance(team, dict)]
    keys = [key for team in teams for key in _list(team.get("keys")) if isinstance(key, dict)]
    limits = [each["limits"] for each in (*teams, *keys) if isinstance(each.get("limits"), dict)]
    per_user = [each["limits_per_user"] for each in limits if isinstance(each.get("limits_per_user"), dict)]
    users = [user for each in per_user if isinstance(each.get("users"), dict) for user in each["users"].values()]
    own = [user for user in users if isinstance(user, dict)]
    return any(isinstance(each.get(name), str) for each in (*limits, *per_user, *own) for name in QUOTAS)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _describe(error: ErrorDetails) -> str:
    key = ""
    for part in error["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    wrong = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key}: is not a setting; '{PROGRAM.command('config example teams')}' prints all that there are"
    if error["type"] == "missing":
        return f"{key}: is missing" + (", add [[teams]] with an id" if key == "teams" else "")
    if error["type"] in ("model_type", "list_type"):
        return f"{key}: should be {'a section' if error['type'] == 'model_type' else 'a list'} with settings of its own"
    if isinstance(error["input"], str | int | float | datetime):
        wrong = f"is {str(error['input'])!r}: {wrong[0].lower()}{wrong[1:]}"
    return f"{key}: {wrong}"


def _doubles(provisions: Provisions) -> Iterator[str]:
    teams = [team.id for team in provisions.teams]
    for index, team in enumerate(provisions.teams):
        if team.id in teams[:index]:
            yield f"teams[{index}].id: there is another team {team.id!r}; put all its keys below one [[teams]]"
        names = [key.name for key in team.keys]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield f"teams[{index}].keys[{number}].name: the team {team.id!r} has another key {name!r}; rename one"


# --- The difference ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One call of the admin API. ``fields`` are what it changes, each with what it is and what it should be."""

    action: str
    kind: str
    team: str
    name: str
    method: str
    path: str
    body: dict[str, Any]
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def makes_a_key(self) -> bool:
        """Whether a secret comes of it."""
        return self.kind == "key" and self.action == "create"

    def view(self) -> dict[str, Any]:
        """For scripts."""
        fields = {name: {"is": old, "should_be": new} for name, (old, new) in self.fields.items()}
        return {"action": self.action, "kind": self.kind, "team": self.team, "name": self.name, "fields": fields}


@dataclass(frozen=True)
class Standing:
    """A team as the gateway has it, None where there is none, and its keys that are not revoked."""

    team: Mapping[str, Any] | None
    keys: list[Mapping[str, Any]]


def compare(path: Path, provisions: Provisions, standing: Mapping[str, Standing], now: datetime) -> list[Change]:
    """What has to be changed, in the order in which it can be. Raises ProvisioningError for what cannot be."""
    mistakes: list[str] = []
    changes: list[Change] = []
    for index, team in enumerate(provisions.teams):
        there = standing[team.id]
        if there.team is not None and there.team["deleted_at"] is not None:
            mistakes.append(f"teams[{index}].id: the team {team.id!r} has been deleted; take another id")
            continue
        changes += _team_changes(team, there)
        mistakes += _key_mistakes(index, team, there, now)
        named = {key["name"]: key for key in there.keys}
        for key in team.keys:
            changes += _key_changes(team.id, key, named.get(key.name))
    if mistakes:
        raise ProvisioningError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return changes


def _key_mistakes(index: int, team: TeamEntry, there: Standing, now: datetime) -> Iterator[str]:
    counted = Counter(key["name"] for key in there.keys)
    for number, key in enumerate(team.keys):
        place = f"teams[{index}].keys[{number}]"
        if counted[key.name] > 1:
            ids = ", ".join(each["id"] for each in there.keys if each["name"] == key.name)
            yield f"{place}.name: the gateway has several keys of this name ({ids}); rename or revoke all but one"
        elif not counted[key.name] and key.expires_at is not None and key.expires_at <= now.astimezone(UTC):
            yield f"{place}.expires_at: a new key should expire in the future"


def _team_changes(team: TeamEntry, there: Standing) -> Iterator[Change]:
    wanted: dict[str, Any] = {"name": team.name, "limits": team.limits.model_dump()}
    if there.team is None:
        fields = _differences(_nothing(wanted), _flat(wanted))
        yield Change(
            *("create", "team", team.id, team.name, "POST", "/admin/v1/teams", {"id": team.id, **wanted}, fields)
        )
        return
    fields = _differences(_flat({"name": there.team["name"], "limits": there.team["limits"]}), _flat(wanted))
    if fields:
        path = f"/admin/v1/teams/{team.id}"
        yield Change("update", "team", team.id, team.name, "PATCH", path, _only(wanted, fields), fields)


def _key_changes(team: str, key: KeyEntry, there: Mapping[str, Any] | None) -> Iterator[Change]:
    wanted: dict[str, Any] = {
        "limits": key.limits.model_dump(),
        "expires_at": iso_time(milliseconds(key.expires_at)),
    }
    if there is None:
        body = {"team": team, "name": key.name, **wanted}
        fields = _differences(_nothing(wanted), _flat(wanted))
        yield Change("create", "key", team, key.name, "POST", "/admin/v1/keys", body, fields)
        return
    fields = _differences(_flat({"limits": there["limits"], "expires_at": there["expires_at"]}), _flat(wanted))
    if fields:
        path = f"/admin/v1/keys/{there['id']}"
        yield Change("update", "key", team, key.name, "PATCH", path, _only(wanted, fields), fields)


def _flat(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Limits beside the rest: their names are known well enough without their section's."""
    return {**{name: value for name, value in wanted.items() if name != "limits"}, **wanted["limits"]}


def _nothing(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "" if name == "name" else None for name in _flat(wanted)}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (old.get(name), value) for name, value in new.items() if old.get(name) != value}


def _only(wanted: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {name: value for name, value in wanted.items() if name in fields}
    limits = {name: value for name, value in wanted["limits"].items() if name in fields}
    return {**body, "limits": limits} if limits else body
