"""How shipping fails."""

from __future__ import annotations


class ShippingError(Exception):
    """Somebody has to do something; the message says what."""


class Unavailable(Exception):
    """It may work later, after ``wait_s`` seconds where it says so."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        """Keep both."""
        super().__init__(message)
        self.wait_s = wait_s


class PlaceMoved(Exception):
    """The destination is at another place than a batch begins at: it was restored, or another shipper is at work."""
