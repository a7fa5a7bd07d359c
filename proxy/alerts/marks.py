"""What requests leave in memory for the alerts: whose quota has changed, and who was refused."""

from __future__ import annotations

MARKS_LIMIT = 100_000
"""Keys; what is beyond is noticed at its next request."""


class Marks:
    """Keys that were charged or refused since somebody last took them."""

    def __init__(self) -> None:
        """None."""
        self._refused_by_key: dict[str, bool] = {}

    def charged(self, key_id: str) -> None:
        """A request of the key was charged."""
        if len(self._refused_by_key) < MARKS_LIMIT:
            self._refused_by_key.setdefault(key_id, False)

    def refused(self, key_id: str) -> None:
        """A request of the key was refused for want of quota."""
        if len(self._refused_by_key) < MARKS_LIMIT:
            self._refused_by_key[key_id] = True

    def take(self) -> dict[str, bool]:
        """The keys, each with whether it was refused; they are marked no more."""
        taken, self._refused_by_key = self._refused_by_key, {}
        return taken
