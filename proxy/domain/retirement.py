"""Until when a model, or another name of one, is offered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retirement:
    """From the beginning of ``day`` (YYYY-MM-DD) on, in UTC, requests are refused.

    ``at_s`` is that moment in seconds since the epoch, and ``replaced_by`` what to ask for instead.
    """

    day: str
    at_s: int
    replaced_by: str | None = None

    def has_come(self, now_s: float) -> bool:
        """Whether it is that day or a later one; ``now_s`` is in seconds since the epoch."""
        return now_s >= self.at_s

    def tell(self, name: str, now_s: float) -> str:
        """What becomes of requests for ``name``, as a sentence."""
        instead = f"; use '{self.replaced_by}' instead" if self.replaced_by else ""
        if self.has_come(now_s):
            return f"The model '{name}' was retired on {self.day}{instead}."
        return f"The model '{name}' retires on {self.day}, and is refused from then on{instead}."
