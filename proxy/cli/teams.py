"""``lightmeter teams``: managing the teams of a gateway that runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from proxy.cli.manage import json_option, show_usage
from proxy.cli.support.admin_client import call_admin
from proxy.cli.support.limit_options import limit_options, limits_given
from proxy.cli.support.output import show_facts, show_json, show_table
from proxy.cli.support.paging import Paging, paged, show_more


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
    _show_team(call_admin("POST", "/admin/v1/teams", body=body), as_json)


@teams.command("list")
@paged
@json_option
def list_teams(paging: Paging, as_json: bool) -> None:
    """List teams."""
    answer = paging.read("/admin/v1/teams", {})
    if as_json:
        return show_json(answer)
    rows = []
    for team in answer["data"]:
        quota = team["usage"]["quota_units"]
        counters = (quota["limit"], quota["posted"], quota["reserved"], quota["remaining"])
        rows.append((team["id"], team["name"], *counters, team["images"], team["deleted_at"]))
    show_table(("TEAM", "NAME", "LIMIT", "USED", "HELD", "LEFT", "IMAGES", "DELETED"), rows)
    return show_more(answer)


@teams.command("show")
@click.argument("team")
@json_option
def show_team(team: str, as_json: bool) -> None:
    """Show one team."""
    _show_team(call_admin("GET", _path(team)), as_json)


@teams.command("update")
@click.argument("team")
@click.option("--name", help="What the team is called.")
@limit_options
@json_option
def update_team(team: str, name: str | None, as_json: bool, **given: Any) -> None:
    """Change a team; what is left out stays as it is."""
    limits = limits_given(given)
    body: dict[str, Any] = {"limits": limits} if limits else {}
    if name is not None:
        body["name"] = name
    if not body:
        raise click.UsageError("Nothing to change: give --name or a limit.")
    _show_team(call_admin("PATCH", _path(team), body=body), as_json)


@teams.command("delete")
@click.argument("team")
@json_option
def delete_team(team: str, as_json: bool) -> None:
    """Refuse all keys of a team from the next request on. Its ledger stays."""
    _show_team(call_admin("DELETE", _path(team)), as_json)


@teams.command("grant")
@click.argument("team")
@click.argument("quota_units", type=int)
@click.option("--reason", required=True, help="Why; it goes into the ledger.")
@json_option
def grant(team: str, quota_units: int, reason: str, as_json: bool) -> None:
    """Top up a team's quota. To take back of it, put -- before a negative number."""
    body = {"quota_units": quota_units, "reason": reason}
    _show_team(call_admin("POST", f"{_path(team)}/grants", body=body), as_json)


def _path(team: str) -> str:
    return f"/admin/v1/teams/{quote(team, safe='')}"


def _show_team(team: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return show_json(team)
    facts = {"id": team["id"], "name": team["name"], "models": team["limits"]["models"]}
    facts |= {"granted": team["granted_units"], "images": team["images"], "created": team["created_at"]}
    show_facts({**facts, "deleted": team["deleted_at"]})
    click.echo()
    return show_usage(team["usage"])
