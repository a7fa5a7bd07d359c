"""``lightmeter journal``: what the store has yet to take, read from the data folder; no gateway is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from proxy.cli.support.configured import config_option, load
from proxy.cli.support.output import show_json, show_table
from proxy.metering.journal.parked import ParkedRecord, drop, parked_records, pending_records, retry
from proxy.metering.journal.records import JournalRecord, Posting
from proxy.metering.journal.tasks import PendingRequest, requests_in
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import JOURNAL_FOLDER


@click.group()
def journal() -> None:
    """See what the store has not taken, and decide about what it refuses.

    Works on the data folder of the configuration, also while gateways run on it, and while the store is away.
    """


json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")


@journal.command("list")
@config_option
@json_option
def list_records(path: Path, *, as_json: bool) -> None:
    """Show what is parked, what waits, and tasks that providers are at work on.

    What waits may have been taken a moment ago. A task is settled by its images when it ends.
    """
    folder = _folder(path)
    with _disk_errors(folder):
        rows = [_row("parked", each.owed, each.note) for each in parked_records(folder)]
        rows += [_row("pending", owed, {}) for owed in pending_records(folder).values()]
        rows += [_row("task", Posting(each.settlement), _note_of(each)) for each in requests_in(folder)]
    if as_json:
        show_json({"data": rows})
    else:
        headings = ("state", "id", "kind", "team", "key", "model", "units", "admitted_at", "reason")
        show_table(headings, ([row[name] for name in headings] for row in rows))


@journal.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Everything that is parked.")
@config_option
@json_option
def retry_records(ids: tuple[str, ...], path: Path, *, everything: bool, as_json: bool) -> None:
    """Post parked records again, once what the store refused them for has been mended.

    A gateway on the data folder takes them within seconds, or the next one that starts there. It is safe: what was
    posted before is not posted twice, and what is refused again is parked again.
    """
    if bool(ids) == everything:
        raise click.UsageError("Name the records, or say --all.")
    _decide(_folder(path), ids, retry, "retried", as_json=as_json)


@journal.command("drop")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", required=True, help="Why it must not be posted; kept with the record.")
@config_option
@json_option
def drop_records(ids: tuple[str, ...], path: Path, *, reason: str, as_json: bool) -> None:
    """Never post parked records. They stay in the folder, as dropped-…, and charge nothing."""

    def drop_it(record: ParkedRecord) -> None:
        drop(record, reason)

    _decide(_folder(path), ids, drop_it, "dropped", as_json=as_json)


def _decide(
    folder: Path, ids: tuple[str, ...], act: Callable[[ParkedRecord], None], done: str, *, as_json: bool
) -> None:
    with _disk_errors(folder):
        parked = {each.owed.id: each for each in parked_records(folder)}
        unknown = [each for each in ids if each not in parked]
        if unknown:
            raise click.ClickException(f"not parked in {folder}: {', '.join(unknown)}; nothing was changed")
        chosen = list(ids or parked)
        for each in chosen:
            act(parked[each])
    if as_json:
        show_json({done: chosen})
    else:
        click.echo(f"{done}: {', '.join(chosen) or 'nothing'}")


def _folder(path: Path) -> Path:
    try:
        return load(path).data_folder / JOURNAL_FOLDER
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(
            f"{error.filename or folder}: {error.strerror}; run it as the user that the gateway runs as"
        ) from None


def _note_of(request: PendingRequest) -> dict[str, Any]:
    return {"reason": f"{len(request.tasks)} at {request.tasks[0].provider}"}


def _row(state: str, owed: JournalRecord, note: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"state": state, "id": owed.id, "team": owed.team, "reason": note.get("reason")}
    if not isinstance(owed, Posting):
        return {**row, "kind": "void", "key": owed.key_id, "model": None, "units": None, "admitted_at": None}
    settlement = owed.settlement
    reservation = settlement.reservation
    admitted = datetime.fromtimestamp(reservation.admitted_ms / 1000, UTC).isoformat(timespec="seconds")
    return {
        **row,
        "kind": "settlement",
        "key": reservation.key_id,
        "model": reservation.model,
        "units": settlement.charged_units,
        "admitted_at": admitted,
    }
