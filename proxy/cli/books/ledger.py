"""``lightmeter ledger``: reading it, exporting it, reversing an entry, and seeing whether the books are right."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote

import click
import orjson

from proxy.cli import POSIX_MODULES, not_here
from proxy.cli.support.admin_client import ask_money, call_admin
from proxy.cli.support.output import json_option, leave_output, show_json, show_table
from proxy.cli.support.paging import LIMIT, Paging, check_whose_list, paged, read_pages, show_more
from proxy.domain.billing.months import FIGURES, Months
from proxy.metering.ledger.verification import Audit, VerificationError

CSV_COLUMNS = (
    "id", "at", "kind", "team", "key", "request", "outcome", "endpoint", "model", "requested_images", "images", "tier",
    "unit_price", "reserved", "charged", "overage", "quota_units", "provider", "provider_status", "provider_ms",
    "admitted_ms", "reason", "corrects", "refunds", "grant", "reservation", "provider_usage",
    "charged_by", "price_rule", "basis", "reserved_usd", "charged_usd", "overage_usd", "quota_units_usd",
    "asked_model", "user", "tags",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
COULD_NOT_BE_ASKED = 2


@click.group()
def ledger() -> None:
    """Read the ledger, export and ship it, and see whether the books are right."""


def _shipping() -> click.Command:
    """The command that ships; it runs beside a gateway, and not everywhere where the others do."""
    try:
        from proxy.cli.books.ship import ship  # noqa: PLC0415 - what it needs is not on every system
    except ModuleNotFoundError as error:
        if error.name not in POSIX_MODULES:
            raise
        return not_here("ledger ship", error.name)
    return ship


ledger.add_command(_shipping(), "ship")


@ledger.command("list")
@click.option("--team", help="Only this team's.")
@click.option("--key", "key_id", help="Only this key's.")
@click.option("--request", help="Only this request's, by the id in x-request-id and in the log.")
@click.option("--since", help="Only from this time on, like 2026-11-23T00:00:00Z.")
@click.option("--until", help="Only before this time.")
@click.option("--user", help="Only this end user's, as the ledger has it.")
@click.option("--tag", help="Only with this tag, like env=prod.")
@click.option("--outcome", help="Only entries that ended so: delivered, empty, refused, failed, …")
@click.option("--newest-first", is_flag=True, help="Of one team or key: begin with the last entry.")
@click.option("--by-month", is_flag=True, help="Show the totals of each month in place of the entries.")
@paged
@json_option
def list_ledger(
    as_json: bool, key_id: str | None, paging: Paging, *, newest_first: bool, by_month: bool, **query: str | None
) -> None:
    """List ledger entries in the order of the teams' ids, oldest first within a team."""
    asked = {"key": key_id, "order": "newest" if newest_first else None, **query}
    if by_month:
        return _show_months(paging, asked, as_json)
    answer = paging.read("/admin/v1/ledger", asked)
    check_whose_list(answer["data"], team=query["team"], key_id=key_id)
    if as_json:
        return show_json(answer)
    has_usd = any("charged_usd" in entry or "quota_units_usd" in entry for entry in answer["data"])
    rows = [
        (
            entry["id"],
            entry["at"],
            entry["kind"],
            entry["key"],
            entry.get("model"),
            entry.get("outcome", entry.get("reason")),
            entry.get("images"),
            entry.get("charged", entry.get("quota_units")),
            *([entry.get("charged_usd", entry.get("quota_units_usd"))] if has_usd else []),
        )
        for entry in answer["data"]
    ]
    headings = ("ENTRY", "AT", "KIND", "KEY", "MODEL", "OUTCOME", "IMAGES", "UNITS", "USD")
    show_table(headings if has_usd else headings[:-1], rows)
    return show_more(answer)


def _show_months(paging: Paging, query: dict[str, str | None], as_json: bool) -> None:
    """Totals of all that was asked for: a part of a month would not be its total."""
    if paging.cursor is not None or paging.limit != LIMIT:
        raise click.UsageError("--by-month reads everything that is asked for: --cursor and --limit do not go with it.")
    totals = Months()
    for page in read_pages("/admin/v1/ledger", query):
        for entry in page["data"]:
            totals.add(entry)
    rows = totals.rows(ask_money())
    check_whose_list(rows, team=query["team"], key_id=query["key"])
    if as_json:
        return show_json({"data": rows})
    has_usd = any("quota_units_usd" in row for row in rows)
    shown = ["month", "team", *FIGURES, *(["quota_units_usd"] if has_usd else [])]
    headings = (*("MONTH", "TEAM", "REQUESTS", "IMAGES", "UNITS", "OVERAGE", "REFUNDED", "GRANTED"), "USD")
    return show_table(headings[: len(shown)], [[row[name] for name in shown] for row in rows])


@ledger.command("export")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--json", "form", flag_value="jsonl", help="The same as --format jsonl.")
@click.option("--team", help="Only this team's.")
@click.option("--key", "key_id", help="Only this key's.")
@click.option("--since", help="Only from this time on, like 2026-11-23T00:00:00Z.")
@click.option("--until", help="Only before this time.")
@click.option("--cursor", help="Where the export before this one ended; no heading is written then.")
def export_ledger(form: str, key_id: str | None, cursor: str | None, **query: str | None) -> None:
    """Write the ledger to standard output.

    The order is that of the teams' ids, and oldest first within a team. Entries that are made after the command has
    begun are left to the next export: standard error has its cursor at the end, and where the command is interrupted.
    With it, nothing is written twice or left out.
    """
    export = _Export(form, cursor)
    try:
        if form == "csv" and cursor is None:
            _write(_csv_line(CSV_COLUMNS))
        for page in read_pages("/admin/v1/ledger", {"key": key_id, **query}, cursor):
            export.write(page)
        if cursor is None:
            check_whose_list(export.last_id, team=query["team"], key_id=key_id)
    except click.ClickException as error:
        export.break_off(error.format_message())
    except KeyboardInterrupt:
        export.break_off("interrupted")
    except OSError as error:
        leave_output()
        export.break_off(f"standard output takes nothing more ({error.strerror})")
    if export.cursor:
        click.echo(f"for what comes later: --cursor {export.cursor}", err=True)


class _Export:
    """What has been written, and where to go on after it."""

    def __init__(self, form: str, cursor: str | None) -> None:
        self._form = form
        self.last_id = ""
        self.cursor = cursor

    def write(self, page: dict[str, Any]) -> None:
        entries = page["data"]
        lines = [_csv_row(entry) if self._form == "csv" else orjson.dumps(entry) + b"\n" for entry in entries]
        _write(b"".join(lines))
        self.last_id = entries[-1]["id"] if entries else self.last_id
        self.cursor = page["next_cursor"] or page["resume_cursor"] or self.cursor

    def break_off(self, why: str) -> NoReturn:
        """End the command; it says how to go on."""
        if self.cursor is None:
            click.echo(f"{why}; no entry was written whole: begin again", err=True)
        else:
            cut = f"cut whatever follows entry {self.last_id}, and " if self.last_id else ""
            click.echo(f"{why}; {cut}go on with --cursor {self.cursor}", err=True)
        raise SystemExit(1)


@ledger.command("refund")
@click.argument("entry")
@click.option("--reason", required=True, help="Why; it goes into the ledger.")
@json_option
def refund(entry: str, reason: str, as_json: bool) -> None:
    """Reverse a ledger entry: the key gets its units back. Once for each entry."""
    answer = call_admin("POST", f"/admin/v1/ledger/{quote(entry, safe='')}/refund", body={"reason": reason})
    if as_json:
        return show_json(answer)
    return click.echo(f"{entry} is refunded by {answer['ledger_entry']}")


@ledger.command("verify")
@click.option("--team", help="Only this team's.")
@json_option
def verify(team: str | None, as_json: bool) -> None:
    """Rebuild every counter from the ledger and the live leases, and report each difference.

    Ends with 0 where there is none, 1 where there is one, and 2 where the gateway could not be asked. It may run while
    requests come in.
    """
    try:
        audit = run_audit(team)
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        raise SystemExit(COULD_NOT_BE_ASKED) from None
    if as_json:
        show_json(audit.report())
    else:
        rows = [(each.where, each.counter, each.found, each.should_be) for each in audit.differences]
        if rows:
            show_table(("WHERE", "WHAT", "IS", "SHOULD BE"), rows)
            click.echo()
        for line in audit.summary():
            click.echo(line)
    raise SystemExit(1 if audit.differences else 0)


def run_audit(team: str | None) -> Audit:
    """Compare the books of one team or of all. Raises click.ClickException where the gateway cannot be asked."""

    async def read(path: str, query: Mapping[str, str | None]) -> dict[str, Any]:
        answer: dict[str, Any] = call_admin("GET", f"/admin/v1/{path}", query=query)
        return answer

    async def run() -> Audit:
        audit = Audit(read)
        async for _ in audit.run(team):
            pass
        return audit

    try:
        # Nothing in it waits for an event loop: the client of the admin API has its own.
        run().send(None)
    except StopIteration as done:
        audit: Audit = done.value
        return audit
    except VerificationError as error:
        raise click.ClickException(str(error)) from None
    raise RuntimeError("the verification waits for something")


def _csv_row(entry: dict[str, Any]) -> bytes:
    return _csv_line(tuple(_csv_cell(entry.get(column)) for column in CSV_COLUMNS))


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        # A spreadsheet would take what somebody gave as a reason for a formula.
        return f"'{value}"
    return str(value)


def _csv_line(cells: tuple[str, ...]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _write(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
