"""What is left of a configuration with mistakes: so much that the rest of it can be checked, and told as well."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

from proxy.upstream.dialects import DIALECTS

LISTS = {"providers": "name", "models": "id"}
"""Each with what names its parts."""

CLOSE = 0.7
NOBODY_KNOWS = {"providers": "no provider is named", "models": "no model has the id"}


class Repair:
    """A configuration whose wrong values are replaced by defaults, and whose wrong parts by others of their name."""

    def __init__(
        self, content: dict[str, Any], places: Iterable[tuple[int | str, ...]], known: Collection[str]
    ) -> None:
        """``places`` are those of the mistakes, and ``known`` the names of all settings."""
        self._known = known
        self.content: dict[str, Any] = deepcopy(content)
        self._broken: set[str] = set()
        self._unheard: set[str] = set()
        for place in places:
            self._mend(place)

    def concerns(self, mistake: str) -> bool:
        """Whether ``mistake`` is of something that is told already, or would only follow from it."""
        if any(words in mistake for words in self._unheard):
            return True
        return any(re.search(rf"(?<![\w.]){re.escape(place)}(?!\w)", mistake) for place in self._broken)

    def _mend(self, place: tuple[int | str, ...]) -> None:
        if not place:
            return
        section = str(place[0])
        given = self.content.get(section)
        if section in LISTS and isinstance(given, list) and len(place) > 1 and isinstance(place[1], int):
            self._broken.add(f"{section}[{place[1]}]")
            given[place[1]] = self._stand_in(section, place[1], given[place[1]])
        elif section not in LISTS and isinstance(given, dict) and len(place) > 1:
            name = str(place[1])
            # What was meant by a name that is none stands at its default, which nobody chose.
            meant = [name] if name in self._known else get_close_matches(name, self._known, 3, CLOSE)
            self._broken.update(f"{section}.{each}" for each in (name, *meant))
            given.pop(str(place[1]), None)
        else:
            self._broken.add(section)
            self._unheard.update(NOBODY_KNOWS.values() if section in LISTS else ())
            self.content.pop(section, None)

    def _stand_in(self, section: str, index: int, given: object) -> dict[str, Any]:
        values = given if isinstance(given, dict) else {}
        key = LISTS[section]
        name = values.get(key)
        if not isinstance(name, str) or not re.fullmatch(r"[^\s\x00-\x1f]{1,100}", name):
            # Whoever means it cannot be told that there is none.
            self._unheard.add(NOBODY_KNOWS[section])
            name = f"the-{section}-{index}"
        if section == "models":
            return {key: name, "provider": "any", "upstream_model": "any", "token_multiplier": 1}
        dialect = values.get("dialect")
        known = {"dialect": dialect} if isinstance(dialect, str) and dialect in DIALECTS else {}
        return {key: name, "base_url": "https://provider.invalid", **known}
