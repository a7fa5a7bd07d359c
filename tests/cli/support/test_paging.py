from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.cli.support import paging
from proxy.cli.support.paging import Paging

PAGES = [[], [1, 2], [], [3], [4, 5], []]
"""What pages of the API may look like, where there is much to look through."""


class Wire:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def call(self, _method: str, _path: str, *, query: Mapping[str, str | None]) -> dict[str, Any]:
        """A page, of which the limit cuts off the rest: ``PAGE-ROW`` is the cursor."""
        number, row = (int(each) for each in (query["cursor"] or "0-0").split("-"))
        limit = int(query["limit"] or 0)
        self.asked.append(limit)
        rows = PAGES[number][row : row + limit]
        if row + len(rows) < len(PAGES[number]):
            return {"data": rows, "next_cursor": f"{number}-{row + len(rows)}", "resume_cursor": None}
        is_last = number == len(PAGES) - 1
        return {
            "data": rows,
            "next_cursor": None if is_last else f"{number + 1}-0",
            "resume_cursor": "later" if is_last else None,
        }


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(paging, "call_admin", wire.call)
    return wire


@pytest.mark.parametrize(
    ("limit", "rows", "cursor"),
    [(1, [1], "1-1"), (2, [1, 2], "2-0"), (4, [1, 2, 3, 4], "4-1"), (9, [1, 2, 3, 4, 5], None)],
)
def test_a_list_has_as_many_rows_as_were_asked_for(wire: Wire, limit: int, rows: list[int], cursor: str | None) -> None:
    answer = Paging(None, limit, everything=False).read("/x", {})
    assert (answer["data"], answer["next_cursor"]) == (rows, cursor)
    assert max(wire.asked) <= limit


def test_all_of_it_ends_with_where_to_go_on_later(wire: Wire) -> None:
    answer = Paging("1-1", paging.LIMIT, everything=True).read("/x", {})
    assert answer == {"data": [2, 3, 4, 5], "next_cursor": None, "resume_cursor": "later"}
    assert set(wire.asked) == {paging.LARGEST_PAGE}
