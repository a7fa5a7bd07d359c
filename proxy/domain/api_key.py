"""The text of an API key: ``lm_<team>_<key>_<32 random characters><8 of checksum>``.

The team stands in the text so that the Redis slot is known before the first round trip. The checksum (CRC-32, as in
GitHub's tokens) refuses a typo or a scanner's guess without asking Redis, and gives secret scanners a fixed form to
look for: ``lm_[a-z0-9-]{1,40}_[a-z0-9]{10}_[A-Za-z0-9]{40}``. Only a SHA-256 of the text is ever stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from zlib import crc32

from proxy.domain.records import record

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH = 32
KEY_SUFFIX_LENGTH = 10
CHECKSUM_LENGTH = 8

TEAM_ID_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
KEY_ID_PATTERN = rf"{TEAM_ID_PATTERN}_[a-z0-9]{{{KEY_SUFFIX_LENGTH}}}"

_team_id = re.compile(TEAM_ID_PATTERN, re.ASCII)
_key_id = re.compile(KEY_ID_PATTERN, re.ASCII)
_key_text = re.compile(
    rf"(?P<stem>lm_(?P<key_id>(?P<team>{TEAM_ID_PATTERN})_[a-z0-9]{{{KEY_SUFFIX_LENGTH}}})_"
    rf"[A-Za-z0-9]{{{SECRET_LENGTH}}})(?P<checksum>[0-9a-f]{{{CHECKSUM_LENGTH}}})",
    re.ASCII,
)


@record
class Credential:
    """What a well-formed key says of itself; whether the key exists only the store knows."""

    team: str
    key_id: str
    secret_sha256: str


def parse_credential(text: str) -> Credential | None:
    """The credential in ``text``, or None where it has not the form or the checksum of a key."""
    match = _key_text.fullmatch(text)
    if match is None:
        return None
    stem, key_id, team, checksum = match.groups()
    return Credential(team, key_id, hash_key(text)) if _checksum(stem) == checksum else None


def make_key_text(key_id: str, choose: Callable[[str], str]) -> str:
    """A new key's text; ``choose`` picks one character out of many, and has to be secure (``secrets.choice``)."""
    stem = f"lm_{key_id}_" + "".join(choose(BASE62) for _ in range(SECRET_LENGTH))
    return stem + _checksum(stem)


def make_key_id(team: str, choose: Callable[[str], str]) -> str:
    """A new key's id, which holds its team's: ``<team>_<10 characters>``."""
    return f"{team}_" + "".join(choose(BASE36) for _ in range(KEY_SUFFIX_LENGTH))


def hash_key(text: str) -> str:
    """The SHA-256 of a key's text, in hexadecimal: all that is stored of it."""
    return sha256(text.encode()).hexdigest()


def is_team_id(text: str) -> bool:
    """Whether ``text`` may name a team: 1 to 40 of ``a-z 0-9 -``, no hyphen at either end."""
    return _team_id.fullmatch(text) is not None


def team_of(key_id: str) -> str | None:
    """The team in a key's id, or None where it is no key's id."""
    return key_id.rpartition("_")[0] if _key_id.fullmatch(key_id) else None


def _checksum(stem: str) -> str:
    return f"{crc32(stem.encode()):08x}"
