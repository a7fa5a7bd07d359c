"""Where in Markdown and HTML a text is: inside which brackets, and inside an ``<img>`` or not.

Brackets match as CommonMark matches them (spec 0.31, section 6.3 and "An algorithm for parsing nested emphasis and
links"), quotes of attributes as HTML does (WHATWG HTML, section 13.2.5). The text is read as JSON has it.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

_OPEN_BRACKETS_LIMIT: Final = 64
"""Of brackets that nothing has closed; the outermost ones are forgotten."""

TOKEN_BYTES_LIMIT: Final = 64
"""Longer than any that is known here."""

BLANKS = rb"(?:[ \t]|\\[nrt]){0,4}"
EQUALS = rb"(?:=|\\u003d)"
_token = re.compile(
    # A backslash takes its meaning from what follows it, and a second one is no backslash any more.
    rb"(?P<escape>\\\\(?:\\\\|[\]\[!<])?)"
    rb"|(?P<image>!\[)|(?P<open>\[)|(?P<close>\])"
    rb"|(?P<blank_line>\\n(?:[ \t]|\\[rt]){0,16}\\n)"
    rb"|(?P<tag>(?:<|\\u003c)img(?:[ \t/]|\\[nrt]))|(?P<tag_end>>|\\u003e)"
    rb"|(?P<value>" + EQUALS + BLANKS + rb"(?P<quote>\\\"|\\u0022|'|\\u0027))|(?P<quote_end>\\\"|\\u0022|'|\\u0027)",
    re.IGNORECASE,
)
# With these alone a token begins; outside of a tag with fewer. Looking for one byte of a set is fast.
_begins_in_text = re.compile(rb"[\\!\[\]<]")
_begins_in_tag = re.compile(rb"[\\!\[\]<>=']")
_DOUBLE: Final = (b'\\"', b"\\u0022")


class Markup:
    """One text, taken in from its beginning on. What it knows is bounded, however long the text is."""

    __slots__ = ("_brackets", "_is_in_tag", "_quote")

    def __init__(self) -> None:
        """Before the text."""
        self._brackets: deque[bool] = deque(maxlen=_OPEN_BRACKETS_LIMIT)
        self._is_in_tag = False
        # Of an attribute of the tag that is open: whether it is a double one.
        self._quote: bool | None = None

    @property
    def is_in_image_brackets(self) -> bool:
        """Whether a bracket that closes here closes an image's."""
        return bool(self._brackets) and self._brackets[-1]

    @property
    def is_in_image_tag(self) -> bool:
        """Whether an attribute that begins here is one of an ``<img>``."""
        return self._is_in_tag and self._quote is None

    def take(self, text: bytes, start: int, stop: int) -> int:
        """Take in what begins from ``start`` on and before ``stop``; return where the last of that ends.

        What begins there has to be in ``text`` to its end, for which 64 bytes behind ``stop`` are enough.
        """
        while start < stop:
            begin = (_begins_in_tag if self._is_in_tag else _begins_in_text).search(text, start, stop)
            if begin is None:
                return stop
            token = _token.match(text, begin.start())
            if token is None:
                start = begin.end()
            else:
                start = token.end()
                self._apply(token)
        return start

    def _apply(self, token: re.Match[bytes]) -> None:
        kind = token.lastgroup
        if kind in ("image", "open"):
            self._brackets.append(kind == "image")
        elif kind == "close":
            if self._brackets:
                self._brackets.pop()
        elif kind == "blank_line":
            # Neither brackets nor what a quote was left open by reach into the next paragraph.
            self._brackets.clear()
            self._quote = None
        elif kind == "value":
            self._begin_value(token["quote"])
        elif self._quote is not None:
            if kind == "quote_end" and self._quote == _is_double(token[0]):
                self._quote = None
        elif kind == "tag":
            self._is_in_tag = True
        elif kind == "tag_end":
            self._is_in_tag = False

    def _begin_value(self, quote: bytes) -> None:
        """A quote after an equals sign begins a value, or ends the one that ends so."""
        if self._quote is None:
            self._quote = _is_double(quote) if self._is_in_tag else None
        elif self._quote == _is_double(quote):
            self._quote = None


def _is_double(quote: bytes) -> bool:
    return quote.lower() in _DOUBLE
