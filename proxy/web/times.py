"""Moments on the wire: RFC 3339, UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(at_ms: int | None) -> str | None:
    """Milliseconds since the epoch as ``2026-11-23T12:00:00.000Z``; None stays None."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
