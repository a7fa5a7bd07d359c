"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import quote

import click

from proxy.cli.support.admin_client import call_admin

F = TypeVar("F", bound=Callable[..., Any])

LARGEST_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is wanted."""

    cursor: str | None
    limit: int
    everything: bool

    def read(self, path: str, query: Mapping[str, str | None]) -> dict[str, Any]:
        """That part of the list at ``path``. Raises click.ClickException.

        A page of the API may hold fewer than were asked for, and even none, where it had much to look through.
        """
        data: list[Any] = []
        limit = None if self.everything else self.limit
        for page in read_pages(path, query, self.cursor, limit):
            data += page["data"]
        return {**page, "data": data}


def paged(command: F) -> F:
    """Give a command the options of such a list; it takes them as ``paging``."""

    @wraps(command)
    def with_paging(*arguments: Any, cursor: str | None, limit: int, everything: bool, **given: Any) -> Any:
        if everything and limit != LIMIT:
            raise click.UsageError("--all and --limit exclude each other.")
        return command(*arguments, paging=Paging(cursor, limit, everything), **given)

    for option in _OPTIONS:
        with_paging = option(with_paging)
    return with_paging  # type: ignore[return-value]


def read_pages(
    path: str, query: Mapping[str, str | None], cursor: str | None = None, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Each page of the list at ``path``, from ``cursor`` to its end or until there are ``limit`` rows.

    Raises click.ClickException.
    """
    left = limit
    while True:
        asked_for = LARGEST_PAGE if left is None else left
        page = call_admin("GET", path, query={**query, "cursor": cursor, "limit": str(asked_for)})
        yield page
        cursor = page["next_cursor"]
        if left is not None:
            left -= len(page["data"])
        if cursor is None or left == 0:
            return


def check_whose_list(rows: Sequence[object], *, team: str | None, key_id: str | None = None) -> None:
    """Tell an empty list from one of a team or key that does not exist. Raises click.ClickException for the latter."""
    if not rows and key_id is not None:
        call_admin("GET", f"/admin/v1/keys/{quote(key_id, safe='')}")
    elif not rows and team is not None:
        call_admin("GET", f"/admin/v1/teams/{quote(team, safe='')}")


def show_more(answer: Mapping[str, Any]) -> None:
    """Tell where a list goes on."""
    if answer["next_cursor"]:
        click.echo(f"\nThere is more: --cursor {answer['next_cursor']}, or --all")


LIMIT = 100

_OPTIONS = (
    click.option("--all", "everything", is_flag=True, help="All of it, however many pages that takes."),
    click.option("--cursor", help="Where the list before this one ended."),
    click.option(
        "--limit", type=click.IntRange(1, LARGEST_PAGE), default=LIMIT, show_default=True, help="Rows at the most."
    ),
)
