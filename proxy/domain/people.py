"""Below the key: the end user that a request is for, who may have limits, and its tags, which decide nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from proxy.domain.errors import InvalidRequest
from proxy.domain.records import record

TAGS_HEADER = "x-lightmeter-tags"
TAGS_LIMIT = 8
TAG_PATTERN = r"[A-Za-z0-9_.-]{1,40}=[\x21-\x2b\x2d-\x7e]{1,100}"
"""A tag's name and value: printable ASCII without blanks and commas."""

USER_LENGTH_LIMIT = 200
HASH_LENGTH = 32

_tag = re.compile(TAG_PATTERN)


class Users(StrEnum):
    """How end users are recorded (``accounting.users``): as they are, hashed, or not at all."""

    PLAIN = "plain"
    HASHED = "hashed"
    NONE = "none"


@record
class Person:
    """Whom a request is for: an end user, empty where nobody says, and tags by name, in their order."""

    user: str = ""
    tags: tuple[tuple[str, str], ...] = ()

    def facts(self) -> dict[str, Any]:
        """What the ledger has of it: ``user`` and ``tags``, where there are any."""
        if self is NOBODY:
            return {}
        return {**({"user": self.user} if self.user else {}), **({"tags": dict(self.tags)} if self.tags else {})}


NOBODY = Person()


@dataclass(frozen=True, slots=True)
class People:
    """Where a request says whom it is for.

    ``user_header`` is one that only a trusted client can set, lower case; where it is given and set, it is believed
    before the body. The body's ``safety_identifier`` goes before ``user``, which OpenAI has replaced by it.
    """

    users: Users = Users.PLAIN
    user_header: str | None = None

    def read(self, headers: Mapping[str, Any], fields: Mapping[str, Any], team: str) -> Person:
        """The person of a request of ``team``. Raises InvalidRequest for tags that are none."""
        user = self.user(headers, fields, team)
        text = headers.get(TAGS_HEADER)
        if text is None:
            return Person(user) if user else NOBODY
        return Person(user, parse_tags(text))

    def user(self, headers: Mapping[str, Any], fields: Mapping[str, Any], team: str) -> str:
        """The end user of a request of ``team``, as the ledger has the name; empty where nobody is named."""
        if self.users is Users.NONE:
            return ""
        given = self.said_by_header(headers) or fields.get("safety_identifier") or fields.get("user")
        return self._as_recorded(given.strip(), team) if isinstance(given, str) else ""

    def said_by_header(self, headers: Mapping[str, Any]) -> str:
        """Whom the trusted header names, as it came; empty where it names nobody."""
        given = headers.get(self.user_header) if self.user_header is not None else None
        return given.strip() if isinstance(given, str) else ""

    def _as_recorded(self, user: str, team: str) -> str:
        # A header may hold bytes that are no text, and the ledger is JSON.
        written = user.encode(errors="replace")
        if not user or (self.users is Users.PLAIN and len(user) <= USER_LENGTH_LIMIT):
            return written.decode()
        # The team's name is in it: the same user of two teams cannot be told to be one.
        return f"sha256:{sha256(team.encode() + b'/' + written).hexdigest()[:HASH_LENGTH]}"


def parse_tags(text: str) -> tuple[tuple[str, str], ...]:
    """``project=apollo, env=prod``. Raises InvalidRequest."""
    found: dict[str, str] = {}
    parts: Sequence[str] = [part.strip(" \t") for part in text.split(",")]
    for part in parts:
        name, _, value = part.partition("=")
        if not _tag.fullmatch(part) or name in found:
            raise InvalidRequest(
                f"'{TAGS_HEADER}' should be up to {TAGS_LIMIT} tags like 'project=apollo, env=prod', each name once: "
                "letters, digits, '_', '.' and '-' in a name, printable ASCII without blanks and commas in a value.",
                param=TAGS_HEADER,
            )
        found[name] = value
    if len(found) > TAGS_LIMIT:
        raise InvalidRequest(f"'{TAGS_HEADER}' should have at most {TAGS_LIMIT} tags.", param=TAGS_HEADER)
    return tuple(found.items())
