"""How whoever verifies the books reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

StreamId = tuple[int, int]
Read = Callable[[str, Mapping[str, str | None]], Awaitable[dict[str, Any]]]
"""Asks a path of the admin API, below ``/admin/v1/``, with a query in which None is left out."""


def stream_id(entry_id: str) -> StreamId:
    """When and as which the entry was written."""
    milliseconds, _, sequence = entry_id.rpartition("_")[2].partition("-")
    return int(milliseconds), int(sequence)
