"""Who asks for a change, as the scripts that make it get it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from proxy.metering.redis.connection import Argument
from proxy.metering.redis_store import keys as key_names


@dataclass(frozen=True, slots=True)
class Actor:
    """The name of an admin token, and the id of the request that was made with it."""

    name: str
    request_id: str

    def asks(
        self, keys: tuple[str, ...], arguments: tuple[Argument, ...], *, team: str, action: str, target: str
    ) -> tuple[tuple[str, ...], tuple[Argument, ...]]:
        """A script's keys and arguments, with what ``audit_part.lua`` takes off their ends."""
        about = {"by": self.name, "request": self.request_id, "team": team, "action": action, "target": target}
        return (*keys, key_names.audit(team)), (*arguments, orjson.dumps(about))


NOBODY = Actor("", "")
"""For what no administrator asked for: a test, or the demonstration."""
