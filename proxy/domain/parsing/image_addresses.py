"""Which strings are the address of an image: one of ``http:``, of ``https:``, or ``data:image/``, and no other.

Whoever shows an answer takes a provider's word for what it follows: ``javascript:`` would run there, ``file:`` would
read the disk. Browsers remove blanks and control characters before a scheme (WHATWG URL, section 4.4): with them it is
no address of an image either.
"""

from __future__ import annotations

import re
from typing import Final

_SCHEMES: Final = ("http:", "https:", "data:image/")
LEAD_BYTES_LIMIT: Final = max(map(len, _SCHEMES)) * len("\\u0000")
"""What is looked at of a string, as JSON has it: the longest of them with every character escaped."""


def _spellings(character: str) -> str:
    """How JSON may have it, in either case."""
    codes = "|".join(f"{ord(each):02x}" for each in (character, character.upper()))
    plain = r"\\?/" if character == "/" else f"[{character}{character.upper()}]"
    return rf"(?:{plain}|\\u00(?i:{codes}))"


_lead = re.compile("|".join(_SCHEMES), re.ASCII | re.IGNORECASE)
_spelt_lead = re.compile("|".join("".join(map(_spellings, scheme)) for scheme in _SCHEMES).encode())


def is_image_address(text: str) -> bool:
    """Whether ``text`` is the address of an image."""
    return _lead.match(text) is not None


def read_lead(begin: bytes, at: int = 0) -> bool | None:
    """The same of a string by its beginning from ``at`` on, as JSON has it; None where that is still too short to know.

    A string that is whole, and not known by then, is none.
    """
    if _spelt_lead.match(begin, at):
        return True
    return False if len(begin) - at >= LEAD_BYTES_LIMIT else None
