"""``lightmeter apply``: teams, keys and limits made as a file has them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from proxy.cli.provisioning import Change, ProvisioningError, Provisions, Standing, compare, read_provisions
from proxy.cli.support.admin_client import AdminRefusal, ask_money, call_admin
from proxy.cli.support.output import json_option, show_json, show_table
from proxy.cli.support.paging import read_pages
from proxy.cli.support.secrets_file import SecretsFile

DIFFERS = 3


@click.command()
@click.option(
    "-f", "--file", "path", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Teams and keys, TOML."
)
@click.option("--dry-run", is_flag=True, help="Show the difference, and change nothing.")
@click.option(
    "--secrets",
    "secrets_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the texts of new keys to this new file, which only you can read.",
)
@click.option("--print-secrets", is_flag=True, help="Show the texts of new keys, once.")
@json_option
def apply(path: Path, secrets_path: Path | None, *, dry_run: bool, print_secrets: bool, as_json: bool) -> None:
    """Make teams, keys and limits as FILE has them, over the admin API.

    A key is known by its name within its team. What a team or key of the file leaves out is none: no limit, no expiry.
    Teams and keys that are not in the file are left alone. The second time, nothing is changed.

    Ends with 0 where the gateway is as the file has it, 1 where it could not be made so, 2 where the command line is
    wrong, and with --dry-run 3 where there is a difference.
    """
    try:
        provisions = read_provisions(path, ask_money)
        changes = compare(path, provisions, _look(provisions), datetime.now(UTC))
    except ProvisioningError as error:
        raise click.ClickException(str(error)) from None
    if not (as_json and changes and not dry_run):
        _show(changes, as_json=as_json, dry_run=dry_run)
    if dry_run or not changes:
        raise SystemExit(DIFFERS if changes else 0)
    if any(change.makes_a_key for change in changes) and secrets_path is None and not print_secrets:
        raise click.ClickException(
            "new keys are to be made: say where their texts should go, with --secrets FILE or --print-secrets. "
            "Nothing was changed"
        )
    with ExitStack() as open_files:
        keep = None
        if secrets_path is not None and any(change.makes_a_key for change in changes):
            file = SecretsFile(secrets_path)
            open_files.callback(file.close)
            keep = file.add
        made = _make(changes, keep)
    _print_changes(changes, made, secrets_path, as_json=as_json, print_secrets=print_secrets)


def _look(provisions: Provisions) -> dict[str, Standing]:
    standing = {}
    for team in provisions.teams:
        try:
            found = call_admin("GET", f"/admin/v1/teams/{team.id}")
        except AdminRefusal as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            found = None
        pages = [] if found is None else read_pages("/admin/v1/keys", {"team": team.id})
        keys = [key for page in pages for key in page["data"] if key["revoked_at"] is None]
        standing[team.id] = Standing(found, keys)
    return standing


def _make(changes: list[Change], keep: Callable[[dict[str, Any]], None] | None) -> list[dict[str, Any]]:
    """Make every change; the new keys with their texts."""
    made: list[dict[str, Any]] = []
    for number, change in enumerate(changes):
        try:
            answer = call_admin(change.method, change.path, body=change.body)
        except click.ClickException as error:
            what = f"the {change.kind} {change.name or change.team!r} of team {change.team!r}"
            hint = ""
            if change.makes_a_key and not isinstance(error, AdminRefusal):
                hint = " It may have been made without its text having arrived here: revoke it then, and apply again."
            raise click.ClickException(
                f"{error.format_message()}\n{number} of {len(changes)} changes were made, and {what} was not.{hint}"
            ) from None
        if change.makes_a_key:
            secret = {"team": change.team, "name": change.name, "id": answer["id"], "key": answer["key"]}
            made.append(secret)
            if keep is not None:
                keep(secret)
    return made


def _show(changes: list[Change], *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        return show_json({"changes": [change.view() for change in changes], "applied": not dry_run, "keys": []})
    if not changes:
        return click.echo("Nothing to change: the gateway is as the file has it.")
    rows = []
    for change in changes:
        what = change.team if change.kind == "team" else f"{change.team}/{change.name}"
        fields = change.fields or {"": (None, None)}
        rows += [(change.action, change.kind, what, name, old, new) for name, (old, new) in fields.items()]
    return show_table(("ACTION", "KIND", "WHAT", "FIELD", "IS", "SHOULD BE"), rows)


def _print_changes(
    changes: list[Change],
    made: list[dict[str, Any]],
    secrets_path: Path | None,
    *,
    as_json: bool,
    print_secrets: bool,
) -> None:
    if as_json:
        shown = made if print_secrets else [{**key, "key": None} for key in made]
        return show_json({"changes": [change.view() for change in changes], "applied": True, "keys": shown})
    click.echo(f"\n{len(changes)} change(s) made.")
    if made and secrets_path is not None:
        click.echo(f"The texts of {len(made)} new key(s) are in {secrets_path}, and nowhere else.")
    if made and print_secrets:
        click.echo("\nThese keys are not kept anywhere and cannot be shown again:\n")
        for key in made:
            click.echo(f"{key['team']}/{key['name']}  {key['key']}")
    return None
