"""``lightmeter keys`` and ``usage``: managing a gateway that runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from proxy.cli.support.admin_client import call_admin
from proxy.cli.support.limit_options import limit_options, limits_given
from proxy.cli.support.output import show_facts, show_json, show_table
from proxy.cli.support.paging import Paging, paged, show_more

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")


# --- Keys -------------------------------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """Make, look at and change API keys."""


@keys.command("create")
@click.option("--team", required=True, help="The team that owns the key; made if it is new.")
@click.option("--name", default="", help="What the key is for.")
@limit_options
@click.option("--expires-at", help="When it stops working, like 2027-01-31T00:00:00Z.")
@json_option
def create_key(team: str, name: str, expires_at: str | None, as_json: bool, **given: Any) -> None:
    """Make a key. Its text is shown now and never again."""
    body = {"team": team, "name": name, "limits": limits_given(given), "expires_at": expires_at}
    _show_key(call_admin("POST", "/admin/v1/keys", body=body), as_json)


@keys.command("list")
@click.option("--team", help="Only this team's.")
@paged
@json_option
def list_keys(team: str | None, paging: Paging, as_json: bool) -> None:
    """List keys."""
    answer = paging.read("/admin/v1/keys", {"team": team})
    if as_json:
        return show_json(answer)
    rows = [
        (key["id"], key["name"], *_quota(key), key["images"], key["expires_at"], key["revoked_at"])
        for key in answer["data"]
    ]
    show_table(("KEY", "NAME", "LIMIT", "USED", "HELD", "LEFT", "IMAGES", "EXPIRES", "REVOKED"), rows)
    return show_more(answer)


@keys.command("show")
@click.argument("key_id")
@json_option
def show_key(key_id: str, as_json: bool) -> None:
    """Show one key."""
    _show_key(call_admin("GET", _key_path(key_id)), as_json)


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
    limits = limits_given(given)
    body: dict[str, Any] = {"limits": limits} if limits else {}
    if given["name"] is not None:
        body["name"] = given["name"]
    if given["expires_at"] is not None or given["no_expiry"]:
        body["expires_at"] = given["expires_at"]
    if not body:
        raise click.UsageError("Nothing to change: give --name, a limit or --expires-at.")
    _show_key(call_admin("PATCH", _key_path(key_id), body=body), as_json)


@keys.command("revoke")
@click.argument("key_id")
@json_option
def revoke_key(key_id: str, as_json: bool) -> None:
    """Refuse a key from the next request on. Its ledger stays."""
    _show_key(call_admin("DELETE", _key_path(key_id)), as_json)


@keys.command("rotate")
@click.argument("key_id")
@click.option("--overlap", type=click.IntRange(min=0), default=0, help="Seconds for which the old text stays good.")
@json_option
def rotate_key(key_id: str, overlap: int, as_json: bool) -> None:
    """Give a key a new text, shown now and never again."""
    body = {"overlap_seconds": overlap}
    _show_key(call_admin("POST", f"{_key_path(key_id)}/rotate", body=body), as_json)


@keys.command("grant")
@click.argument("key_id")
@click.argument("quota_units", type=int)
@click.option("--reason", required=True, help="Why; it goes into the ledger.")
@json_option
def grant(key_id: str, quota_units: int, reason: str, as_json: bool) -> None:
    """Top up a key's quota. To take back of it, put -- before a negative number."""
    body = {"quota_units": quota_units, "reason": reason}
    _show_key(call_admin("POST", f"{_key_path(key_id)}/grants", body=body), as_json)


# --- Usage -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("account", metavar="KEY_ID|TEAM")
@json_option
def usage(account: str, as_json: bool) -> None:
    """What a key or a team has used: of its limits, by model and by day."""
    kind = "keys" if "_" in account else "teams"
    answer = call_admin("GET", f"/admin/v1/{kind}/{quote(account, safe='')}/usage")
    if as_json:
        return show_json(answer)
    show_usage(answer["limits"])
    for heading, name in (("MODEL", "by_model"), ("DAY", "by_day")):
        click.echo()
        rows = [(one, each["images"], each["quota_units"]) for one, each in answer[name].items()]
        show_table((heading, "IMAGES", "UNITS"), rows)
    return None


def show_usage(limits: dict[str, Any]) -> None:
    """A line for each limit, and for the quota in total also where there is none."""
    rows = []
    for name, one in limits.items():
        if one["limit"] is not None or name == "quota_units":
            used = one.get("posted", one.get("in_progress"))
            rows.append((name, one.get("window"), one["limit"], used, one.get("reserved"), one["remaining"]))
    show_table(("LIMIT", "OF", "AT MOST", "USED", "HELD", "LEFT"), rows)


def _key_path(key_id: str) -> str:
    return f"/admin/v1/keys/{quote(key_id, safe='')}"


def _quota(key: dict[str, Any]) -> tuple[int | None, ...]:
    quota = key["usage"]["quota_units"]
    return quota["limit"], quota["posted"], quota["reserved"], quota["remaining"]


def _show_key(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return show_json(key)
    facts = {"id": key["id"], "team": key["team"], "name": key["name"], "models": key["limits"]["models"]}
    facts |= {"granted": key["granted_units"], "images": key["images"], "created": key["created_at"]}
    show_facts({**facts, "expires": key["expires_at"], "revoked": key["revoked_at"]})
    click.echo()
    show_usage(key["usage"])
    if "key" in key:
        click.echo(f"\n{key['key']}\n\nThat is the key. It is not kept anywhere and cannot be shown again.")
    return None
