"""Texts that nobody may read: the providers' keys, the admin tokens, the store's password.

A provider may repeat its key in an error, spelled as JSON, as a URL or as base64 has it; a library may put it into a
message. So what clients read of a provider's words, and every line of the log, is searched for all that are known here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence

REMOVED = "[removed]"
LENGTH_LEAST = 6
"""A shorter text is no secret, and stands in other words by accident."""

LONG_LENGTH, END_LENGTH = 200, 32
"""Of a secret so long, as tokens are, only this much of its two ends is looked for; what follows its begin goes too."""

CHANGING_MOST = 3
"""Secrets of one place that changes, the latest: what was in force before may still be on its way."""

_LONG_REST = r"[A-Za-z0-9._~+/=%\\-]*"
_BASE64_REST = "[A-Za-z0-9+/_=-]*"
_BASE64_BITS = 6
BEYOND_ONE_ESCAPE = 0x10000
"""JSON escapes a character from here on as two."""


class KnownSecrets:
    """Finds secrets in text, however they are spelled. Those that were added once stay known."""

    def __init__(self) -> None:
        """None yet."""
        self._texts: set[str] = set()
        self._changing: dict[str, dict[str, re.Pattern[str]]] = {}
        self._constant: re.Pattern[str] | None = None
        self._patterns: Sequence[re.Pattern[str]] = ()

    def add(self, texts: Iterable[str]) -> None:
        """Remove these from now on."""
        new = {text for text in texts if len(text) >= LENGTH_LEAST} - self._texts
        if new:
            self._texts |= new
            # The longest first: one may begin as another does.
            self._constant = re.compile("|".join(map(_pattern, sorted(self._texts, key=len, reverse=True))))
            self._collect()

    def add_changing(self, place: str, text: str) -> None:
        """Remove ``text`` too, which is in ``place`` now; of those that were there before, the latest stay known."""
        known = self._changing.get(place, {})
        if len(text) >= LENGTH_LEAST and text not in known:
            # One by one: all together take a quarter of a second to compile, in which no request goes on.
            latest = [text, *known][:CHANGING_MOST]
            self._changing[place] = {each: known.get(each) or re.compile(_pattern(each)) for each in latest}
            self._collect()

    def _collect(self) -> None:
        changing = [pattern for known in self._changing.values() for pattern in known.values()]
        self._patterns = changing if self._constant is None else [*changing, self._constant]

    def remove(self, text: str) -> str:
        """``text`` with ``[removed]`` in place of each secret."""
        for pattern in self._patterns:
            text = pattern.sub(REMOVED, text)
        return text

    def are_in(self, text: str) -> bool:
        """Whether any of them stands in ``text``."""
        return any(pattern.search(text) for pattern in self._patterns)


KNOWN_SECRETS = KnownSecrets()
"""Those of this process."""


def _pattern(secret: str) -> str:
    return "|".join(_spellings(secret))


def _spellings(secret: str) -> list[str]:
    if len(secret) >= LONG_LENGTH:
        begin, end = secret[:END_LENGTH], secret[-END_LENGTH:]
        base64s = (f"{re.escape(each)}{_BASE64_REST}" for each in _base64s(begin.encode()))
        return ["".join(map(_character, begin)) + _LONG_REST, "".join(map(_character, end)), *base64s]
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
