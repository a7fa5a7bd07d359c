"""Texts that nobody may read: the providers' keys, the admin tokens, the store's password.

A provider may repeat its key in an error, spelled as JSON, as a URL or as base64 has it; a library may put it into a
message. So what clients read of a provider's words, and every line of the log, is searched for all that are known here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable

REMOVED = "[removed]"
LENGTH_LEAST = 6
"""A shorter text is no secret, and stands in other words by accident."""

_BASE64_BITS = 6
BEYOND_ONE_ESCAPE = 0x10000
"""JSON escapes a character from here on as two."""


class KnownSecrets:
    """Finds secrets in text, however they are spelled. Those that were known once stay known."""

    def __init__(self) -> None:
        """None yet."""
        self._texts: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, texts: Iterable[str]) -> None:
        """Remove these from now on."""
        new = {text for text in texts if len(text) >= LENGTH_LEAST} - self._texts
        if new:
            self._texts |= new
            # The longest first: one may begin as another does.
            spellings = [each for text in sorted(self._texts, key=len, reverse=True) for each in _spellings(text)]
            self._pattern = re.compile("|".join(spellings))

    def remove(self, text: str) -> str:
        """``text`` with ``[removed]`` in place of each secret."""
        return text if self._pattern is None else self._pattern.sub(REMOVED, text)

    def are_in(self, text: str) -> bool:
        """Whether any of them stands in ``text``."""
        return self._pattern is not None and self._pattern.search(text) is not None


KNOWN_SECRETS = KnownSecrets()
"""Those of this process."""


def _spellings(secret: str) -> list[str]:
    return ["".join(map(_character, secret)), *map(re.escape, _base64s(secret.encode()))]


def _character(character: str) -> str:
    """One character as it is, escaped as in JSON (also within JSON that is a string itself), or as in a URL."""
    code = ord(character)
    in_url = "".join(f"%(?:25)?(?i:{byte:02x})" for byte in character.encode())
    if code >= BEYOND_ONE_ESCAPE:
        return f"(?:{re.escape(character)}|{in_url})"
    return rf"(?:\\{{0,4}}{re.escape(character)}|\\{{1,4}}u(?i:{code:04x})|{in_url})"


def _base64s(secret: bytes) -> Iterable[str]:
    """The digits of base64 that depend on the secret alone, wherever in what is encoded it begins."""
    for before in range(3):
        digits = b64encode(bytes(before) + secret).decode().rstrip("=")
        first = -(-before * 8 // _BASE64_BITS)
        last = (before + len(secret)) * 8 // _BASE64_BITS
        plain = digits[first:last]
        yield plain
        if (url := plain.replace("+", "-").replace("/", "_")) != plain:
            yield url
