"""``lightmeter keys``, ``teams`` and ``usage``: managing the keys and teams of a gateway that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import click

from proxy.cli.support.admin_client import AdminRefusal, call_admin
from proxy.cli.support.limit_options import Units, changes_users, limit_options, limits_given
from proxy.cli.support.output import json_option, show_facts, show_json, show_table
from proxy.cli.support.paging import Paging, check_whose_list, paged, show_more
from proxy.domain.api_key import is_team_id

PERIODS = {"quota_units": "total", "quota_units_per_day": "day", "quota_units_per_month": "month"}
"""What the quota of each name is of."""

COLUMNS = 3
"""Of a table of charges, without US dollars."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the commands of keys and those of teams differ in.

    ``argument`` is what the help calls an account's id, ``end`` the command that ends one, ``moments`` those that only
    this kind has, by the names that are shown.
    """

    name: str
    argument: str
    path: str
    end: str
    end_help: str
    moments: Mapping[str, str]

    def path_of(self, account_id: str) -> str:
        """Where the admin API has an account."""
        return f"{self.path}/{quote(account_id, safe='')}"


_KEY = _Kind(
    name="key",
    argument="KEY_ID",
    path="/admin/v1/keys",
    end="revoke",
    end_help="Refuse a key from the next request on. Its ledger stays.",
    moments={"expires": "expires_at", "revoked": "revoked_at"},
)
_TEAM = _Kind(
    name="team",
    argument="TEAM",
    path="/admin/v1/teams",
    end="delete",
    end_help="Refuse all keys of a team from the next request on. Its ledger stays.",
    moments={"deleted": "deleted_at"},
)


# --- Keys -------------------------------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """Make, look at and change API keys."""


@keys.command("create")
@click.option("--team", required=True, help="The team that owns the key.")
@click.option("--new-team", is_flag=True, help="Make the team, if there is none of this id.")
@click.option("--name", default="", help="What the key is for.")
@limit_options
@click.option("--expires-at", help="When it stops working, like 2027-01-31T00:00:00Z.")
@json_option
def create_key(team: str, name: str, expires_at: str | None, *, new_team: bool, as_json: bool, **given: Any) -> None:
    """Make a key. Its text is shown now and never again."""
    if not new_team:
        _check_team(team)
    body = {"team": team, "name": name, "limits": limits_given(given), "expires_at": expires_at}
    _show(_KEY, call_admin("POST", _KEY.path, body=body), as_json)


@keys.command("list")
@click.option("--team", help="Only this team's.")
@paged
@json_option
def list_keys(team: str | None, paging: Paging, as_json: bool) -> None:
    """List keys, each with the quota that has least left."""
    answer = paging.read(_KEY.path, {"team": team})
    check_whose_list(answer["data"], team=team)
    _show_page(_KEY, answer, as_json)


@keys.command("update")
@click.argument("key_id")
@click.option("--name", help="What the key is for.")
@limit_options
@click.option("--expires-at", help="When it stops working, like 2027-01-31T00:00:00Z.")
@click.option("--no-expiry", is_flag=True, help="It works until it is revoked.")
@json_option
def update_key(key_id: str, as_json: bool, **given: Any) -> None:
    """Change a key; what is left out stays as it is."""
    if given["expires_at"] is not None and given["no_expiry"]:
        raise click.UsageError("--expires-at and --no-expiry exclude each other.")
    body = _changes(_KEY, key_id, given)
    if given["expires_at"] is not None or given["no_expiry"]:
        body["expires_at"] = given["expires_at"]
    if not body:
        raise click.UsageError("Nothing to change: give --name, a limit or --expires-at.")
    _show(_KEY, call_admin("PATCH", _KEY.path_of(key_id), body=body), as_json)


@keys.command("rotate")
@click.argument("key_id")
@click.option("--overlap", type=click.IntRange(min=0), default=0, help="Seconds for which the old text stays good.")
@json_option
def rotate_key(key_id: str, overlap: int, as_json: bool) -> None:
    """Give a key a new text, shown now and never again."""
    body = {"overlap_seconds": overlap}
    _show(_KEY, call_admin("POST", f"{_KEY.path_of(key_id)}/rotate", body=body), as_json)


# --- Teams ------------------------------------------------------------------------------------------------------------


@click.group()
def teams() -> None:
    """Make, look at and change teams, whose limits hold over all their keys together."""


@teams.command("create")
@click.argument("team")
@click.option("--name", default="", help="What the team is called.")
@limit_options
@json_option
def create_team(team: str, name: str, as_json: bool, **given: Any) -> None:
    """Make a team."""
    body = {"id": team, "name": name, "limits": limits_given(given)}
    _show(_TEAM, call_admin("POST", _TEAM.path, body=body), as_json)


@teams.command("list")
@paged
@json_option
def list_teams(paging: Paging, as_json: bool) -> None:
    """List teams, each with the quota that has least left."""
    _show_page(_TEAM, paging.read(_TEAM.path, {}), as_json)


@teams.command("update")
@click.argument("team")
@click.option("--name", help="What the team is called.")
@limit_options
@json_option
def update_team(team: str, as_json: bool, **given: Any) -> None:
    """Change a team; what is left out stays as it is."""
    body = _changes(_TEAM, team, given)
    if not body:
        raise click.UsageError("Nothing to change: give --name or a limit.")
    _show(_TEAM, call_admin("PATCH", _TEAM.path_of(team), body=body), as_json)


# --- Both -------------------------------------------------------------------------------------------------------------


def _add_shared_commands(group: click.Group, kind: _Kind) -> None:
    """Give ``group`` the commands that keys and teams have alike."""
    account = click.argument("account_id", metavar=kind.argument)

    @group.command("show", help=f"Show one {kind.name}.")
    @account
    @json_option
    def show(account_id: str, as_json: bool) -> None:
        _show(kind, call_admin("GET", kind.path_of(account_id)), as_json)

    @group.command(kind.end, help=kind.end_help)
    @account
    @json_option
    def end(account_id: str, as_json: bool) -> None:
        _show(kind, call_admin("DELETE", kind.path_of(account_id)), as_json)

    @group.command("grant", help=f"Top up a {kind.name}'s quota. To take back of it, put -- before a negative number.")
    @account
    @click.argument("quota_units", type=Units())
    @click.option("--reason", required=True, help="Why; it goes into the ledger.")
    @json_option
    def grant(account_id: str, quota_units: int | str, reason: str, as_json: bool) -> None:
        body = {"quota_units": quota_units, "reason": reason}
        _show(kind, call_admin("POST", f"{kind.path_of(account_id)}/grants", body=body), as_json)


_add_shared_commands(keys, _KEY)
_add_shared_commands(teams, _TEAM)


@click.command()
@click.argument("account", metavar="KEY_ID|TEAM")
@click.option("--user", help="Only what this end user has used of it, where each user has limits.")
@click.option("--by", type=click.Choice(["user", "tag"]), help="What each end user, or tag, was charged instead.")
@click.option("--window", help="With --by: a UTC day or month, like 2026-11-26 or 2026-11; this month by default.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, help="With --by: how many are listed.")
@json_option
def usage(account: str, user: str | None, by: str | None, window: str | None, limit: int, as_json: bool) -> None:
    """What a key or a team has used: of its limits, by model and by day."""
    if user is not None and (by or window):
        raise click.UsageError("--user excludes --by and --window.")
    if by is not None:
        return _show_people(account, by, window, limit, as_json)
    if window is not None:
        raise click.UsageError("--window goes with --by.")
    kind = _KEY if "_" in account else _TEAM
    query = "" if user is None else f"?user={quote(user, safe='')}"
    answer = call_admin("GET", f"{kind.path_of(account)}/usage{query}")
    if as_json:
        return show_json(answer)
    if user is not None:
        return _show_usage(answer["user"]["limits"])
    _show_usage(answer["limits"])
    for heading, name in (("MODEL", "by_model"), ("DAY", "by_day")):
        click.echo()
        rows = [(one, each["images"], each["quota_units"], *_usd(each)) for one, each in answer[name].items()]
        show_table((heading, "IMAGES", "UNITS", *(["USD"] if rows and len(rows[0]) > COLUMNS else [])), rows)
    return None


def _show_people(account: str, by: str, window: str | None, limit: int, as_json: bool) -> None:
    """What end users or tags of a team, or of one key, were charged, the largest first."""
    team, _, is_key = account.partition("_")
    given = {"by": by, "window": window or datetime.now(UTC).strftime("%Y-%m"), "limit": limit}
    query = urlencode({**given, **({"key": account} if is_key else {})})
    answer = call_admin("GET", f"{_TEAM.path_of(team)}/usage/people?{query}")
    if as_json:
        return show_json(answer)
    listed = [(each["name"] or "(none named)", each) for each in answer["data"]]
    if answer["others"] is not None:
        listed.append((f"({answer['others']['names']:,} others)", answer["others"]))
    rows = [(name, each["requests"], each["images"], each["quota_units"], *_usd(each)) for name, each in listed]
    usd = ["USD"] if "quota_units_usd" in answer["total"] else []
    show_table((by.upper(), "REQUESTS", "IMAGES", "UNITS", *usd), rows)
    if not answer["complete"]:
        click.echo("The ledger was trimmed since this window began: what was taken out is not in it.", err=True)
    return None


def _usd(charges: Mapping[str, Any]) -> tuple[str, ...]:
    """A cell where the gateway tells what a unit is worth."""
    return (charges["quota_units_usd"],) if "quota_units_usd" in charges else ()


def _check_team(team: str) -> None:
    """The gateway makes a team where a key is made in a new one: a slip of the pen would be one."""
    try:
        call_admin("GET", _TEAM.path_of(team))
    except AdminRefusal as error:
        if error.status != HTTPStatus.NOT_FOUND or not is_team_id(team):
            # What is no team's id is refused by the gateway, which says what one is.
            return
        raise click.ClickException(f"There is no team '{team}'. To make it with this key, add --new-team.") from None


def _changes(kind: _Kind, account_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The name and the limits that a command was given, as the admin API takes them."""
    per_user = None
    if changes_users(given):
        per_user = call_admin("GET", kind.path_of(account_id))["limits"]["limits_per_user"]
    limits = limits_given(given, per_user)
    body: dict[str, Any] = {"limits": limits} if limits else {}
    if given["name"] is not None:
        body["name"] = given["name"]
    return body


def _show_page(kind: _Kind, answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return show_json(answer)
    rows = []
    for account in answer["data"]:
        period, quota = _tightest(account["usage"])
        counters = (quota["limit"], period, quota["posted"], quota["reserved"], quota["remaining"], account["images"])
        rows.append((account["id"], account["name"], *counters, *(account[name] for name in kind.moments.values())))
    moments = (heading.upper() for heading in kind.moments)
    show_table((kind.name.upper(), "NAME", "LIMIT", "OF", "USED", "HELD", "LEFT", "IMAGES", *moments), rows)
    return show_more(answer)


def _tightest(usage: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """The quota with least left, and what it is of; where there is none, what was used in total."""
    limited = [(period, usage[name]) for name, period in PERIODS.items() if usage[name]["limit"] is not None]
    return min(limited, key=lambda each: each[1]["remaining"], default=(None, usage["quota_units"]))


def _show(kind: _Kind, account: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return show_json(account)
    facts: dict[str, Any] = {name: account[name] for name in ("id", "team", "name") if name in account}
    facts |= {"models": account["limits"]["models"], "granted": account["granted_units"]}
    facts |= {"images": account["images"], "created": account["created_at"]}
    facts |= {heading: account[name] for heading, name in kind.moments.items()}
    if account["limits"]["limits_per_user"] is not None:
        facts["each user"] = _of_each_user(account["limits"]["limits_per_user"])
    show_facts(facts)
    click.echo()
    _show_usage(account["usage"])
    if "key" in account:
        click.echo(f"\n{account['key']}\n\nThat is the key. It is not kept anywhere and cannot be shown again.")
    return None


def _of_each_user(limits: Mapping[str, Any]) -> str:
    """Limits of each end user, in a line."""
    found = [f"{name} {limit:,}" for name, limit in limits.items() if name != "users" and limit is not None]
    return ", ".join(found or ["no limit"]) + (f"; others of {len(limits['users'])} users" if limits["users"] else "")


def _show_usage(limits: dict[str, Any]) -> None:
    """A line for each limit, and for the quota in total also where there is none."""
    rows = []
    for name, one in limits.items():
        if one["limit"] is not None or name == "quota_units":
            used = one.get("posted", one.get("in_progress"))
            rows.append((name, one.get("window"), one["limit"], used, one.get("reserved"), one["remaining"]))
            if "posted_usd" in one:
                dollars = (one[f"{counter}_usd"] for counter in ("limit", "posted", "reserved", "remaining"))
                rows.append(("  in US dollars", None, *dollars))
    show_table(("LIMIT", "OF", "AT MOST", "USED", "HELD", "LEFT"), rows)
