"""``lightmeter audit``: who changed what."""

from __future__ import annotations

from typing import Any

import click

from proxy.cli.support.output import json_option, show_json, show_table
from proxy.cli.support.paging import Paging, check_whose_list, paged, show_more

SHOWN = ("name", "limits", "granted_units", "expires_at", "revoked_at", "deleted_at")
"""What of a key or a team changes by what an operator does. Its counters change all the time."""


@click.group("audit")
def audit_log() -> None:
    """See who changed what."""


@audit_log.command("list")
@click.option("--team", help="Only this team's.")
@click.option("--since", help="Only from this time on, like 2026-11-23T00:00:00Z.")
@paged
@json_option
def list_audit(team: str | None, since: str | None, paging: Paging, as_json: bool) -> None:
    """List changes, each with the name of the admin token that made it.

    The order is that of the teams' ids, and oldest first within a team.
    """
    answer = paging.read("/admin/v1/audit", {"team": team, "since": since})
    check_whose_list(answer["data"], team=team)
    if as_json:
        return show_json(answer)
    rows = [(each["at"], each["by"], each["action"], each["target"], _changes(each)) for each in answer["data"]]
    show_table(("AT", "BY", "ACTION", "TARGET", "CHANGES"), rows)
    return show_more(answer)


def _changes(entry: dict[str, Any]) -> str:
    before, after = _flat(entry["before"]), _flat(entry["after"])
    changes = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old == new or (not before and new in (None, "", 0)):
            continue
        changes.append(f"{name}: {_text(new)}" if not before else f"{name}: {_text(old)} -> {_text(new)}")
    return "; ".join(changes)


def _flat(record: dict[str, Any] | None) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in SHOWN:
        value = (record or {}).get(name)
        flat.update(value if isinstance(value, dict) else {name: value} if record and name in record else {})
    return flat


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
