"""``lightmeter statement``: what a team's ledger adds up to by month, for those who pay."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from proxy.cli.support.admin_client import call_admin
from proxy.cli.support.output import json_option, show_facts, show_json, show_table
from proxy.web.admin.statement_pages import LISTED, as_csv, as_page

LATE = "late, of "


@click.command()
@click.option("--team", required=True, help="Whose.")
@click.option("--month", help="Which UTC month, like 2026-11; left out, all months are listed with their totals.")
@click.option("--format", "form", type=click.Choice(["text", "html", "csv"]), default="text", show_default=True)
@click.option(
    "--output", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="A file for HTML or CSV."
)
@json_option
def statement(team: str, month: str | None, form: str, output: Any, as_json: bool) -> None:
    """What TEAM is charged for a month: units, US dollars, by model and key, refunds and overage.

    A month that has ended is stated once, and never changes: what is written later goes into a later month, and is
    marked as late there. Each statement says which range of the ledger it adds up from; all of them are the ledger.
    """
    path = f"/admin/v1/teams/{quote(team, safe='')}/statements"
    if month is None:
        return _list(path, form, as_json)
    top = f"?top={LISTED}" if form == "html" and not as_json else ""
    answer = call_admin("GET", f"{path}/{quote(month, safe='')}{top}")
    if as_json:
        return show_json(answer)
    if form != "text":
        output.write(as_page(answer) if form == "html" else as_csv(answer))
        return None
    return _show(answer)


def _list(path: str, form: str, as_json: bool) -> None:
    if form != "text":
        raise click.UsageError("--format html and csv are of one month: say which with --month.")
    answer = call_admin("GET", path)
    if as_json:
        return show_json(answer)
    has_usd = any(each["units_per_usd"] is not None for each in answer["data"])
    rows = [
        (
            *(each[name] for name in ("month", "state", "requests", "images", "quota_units", "refunded", "overage")),
            *([each.get("quota_units_usd")] if has_usd else []),
        )
        for each in answer["data"]
    ]
    headings = ("MONTH", "STATE", "REQUESTS", "IMAGES", "UNITS", "REFUNDED", "OVERAGE", "USD")
    return show_table(headings if has_usd else headings[:-1], rows)


def _show(answer: dict[str, Any]) -> None:
    ledger = answer["ledger"]
    names = ("team", "month", "state", "requests", "images", "charged", "refunded", "overage", "granted")
    facts = {name: answer[name] for name in names}
    facts |= {"total units": answer["quota_units"]}
    if answer["units_per_usd"] is not None:
        facts |= {"total USD": answer["quota_units_usd"]}
    facts |= {"entries": answer["entries"], "behind entry": ledger["after"], "up to entry": ledger["to"]}
    show_facts(facts)
    has_usd = answer["units_per_usd"] is not None
    headings = ("", "IMAGES", "UNITS", "USD")
    for heading, section, prefix in (
        ("MODEL", "by_model", ""),
        ("KEY", "by_key", ""),
        ("USER", "by_user", ""),
        ("TAG", "by_tag", ""),
        ("LATE", "late", LATE),
    ):
        rows = [
            (
                f"{prefix}{name}" or "not itemised",
                each["images"],
                each["quota_units"],
                *([each["quota_units_usd"]] if has_usd else []),
            )
            for name, each in answer[section].items()
        ]
        if rows:
            click.echo()
            show_table((heading, *headings[1 : 4 if has_usd else 3]), rows)
