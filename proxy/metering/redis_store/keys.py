"""The names of Redis keys. All state of one team is under one hash tag, so that it lives in one slot of a Cluster."""

from __future__ import annotations

from hashlib import sha1

TEAMS = "lm:teams"
"""Sorted set of team ids: the one key outside of a team's slot, beside ``SHIPPERS``."""

SHIPPERS = "lm:shippers"
"""Hash: up to which millisecond each shipper of the ledger has shipped everything."""


def team_record(team: str) -> str:
    """Hash: the team, its limits and its counters."""
    return f"lm:{{{team}}}:team"


def team_keys(team: str) -> str:
    """Sorted set: ids of the team's keys."""
    return f"lm:{{{team}}}:keys"


def key_record(team: str, key_id: str) -> str:
    """Hash: one API key, its limits and its counters."""
    return f"lm:{{{team}}}:key:{key_id}"


def key_usage(team: str, key_id: str) -> str:
    """Hash: what the key was charged on each day for each model."""
    return f"lm:{{{team}}}:usage:{key_id}"


def team_usage(team: str) -> str:
    """Hash: the same for all of the team's keys together."""
    return f"lm:{{{team}}}:usage"


def user_id(user: str) -> str:
    """How an end user stands in names of keys: by a SHA-1 of the name that the ledger has, as scripts make it as well.

    Whoever finds two names of one id has them share their limits, and nobody else.
    """
    return sha1(user.encode(), usedforsecurity=False).hexdigest()


def used_by_user(team: str, key_id: str, user: str) -> str:
    """String: what an end user has used under a key; with an empty id, under the team."""
    return user_counters(team, key_id, user_id(user))


def user_counters(team: str, key_id: str, user: str) -> str:
    """The same by the user's id."""
    return f"lm:{{{team}}}:user:{key_id}:{user}"


def reservation(team: str, reservation_id: str) -> str:
    """String: a reservation that is held, or the memory that it was settled."""
    return f"lm:{{{team}}}:reservation:{reservation_id}"


def idempotency(team: str, key_id: str, idempotency_sha256: str) -> str:
    """String: what became of the request that a client gave this name."""
    return f"lm:{{{team}}}:idempotency:{key_id}:{idempotency_sha256}"


def grant(team: str, grant_id: str) -> str:
    """String: the memory that a grant was made."""
    return f"lm:{{{team}}}:grant:{grant_id}"


def change(team: str, change_id: str) -> str:
    """String: the memory that a record was changed."""
    return f"lm:{{{team}}}:change:{change_id}"


def leases(team: str) -> str:
    """Sorted set: reservations that are held, by the millisecond when their lease expires."""
    return f"lm:{{{team}}}:leases"


def refunds(team: str) -> str:
    """Hash: ledger entries that have been refunded."""
    return f"lm:{{{team}}}:refunds"


def checkpoint(team: str) -> str:
    """Hash: how far the ledger has been trimmed."""
    return f"lm:{{{team}}}:checkpoint"


def key_checkpoint(team: str, key_id: str) -> str:
    """Hash: what the trimmed entries of a key add up to; with an empty id, those that the team's own record counts."""
    return f"lm:{{{team}}}:checkpoint:{key_id}"


def alert(team: str | None, rule: str, name: str) -> str:
    """String: the memory that somebody was told of something; where it is no team's, outside of all slots."""
    return f"lm:alert:{rule}:{name}" if team is None else f"lm:{{{team}}}:alert:{rule}:{name}"


def statements(team: str) -> str:
    """Hash: the statements of months that have ended, and the book of the one that is open."""
    return f"lm:{{{team}}}:statements"


def ledger(team: str) -> str:
    """Stream: the ledger."""
    return f"lm:{{{team}}}:ledger"


def audit(team: str) -> str:
    """Stream: who changed what."""
    return f"lm:{{{team}}}:audit"


def figures_of_hour(hour: int) -> str:
    """Hash: what all gateways did in each minute of the hour, counted since the epoch. It is no team's."""
    return f"lm:figures:hour:{hour}"


def figures_of_day(day: str) -> str:
    """Hash: what all gateways did on a UTC day. It is no team's."""
    return f"lm:figures:day:{day}"


def once(name: str) -> str:
    """String: the memory that a sign-in link was used, or a session ended. It is no team's."""
    return f"lm:once:{name}"
