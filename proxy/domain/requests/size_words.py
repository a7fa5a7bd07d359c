"""How a size or an aspect ratio is written: read strictly, and written anew from what was understood.

A provider's own parser may be lenient: Python's ``int()`` takes ``+3840`` and ``3_840`` for 3840. Whatever could be
read in two ways is refused, so that what is priced is what the provider makes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from proxy.domain.catalog import Model
from proxy.domain.errors import InvalidRequest

BLANKS = " \t\n\r\v\f"
"""What may stand around a size: ASCII's. Other blanks are refused, for not every parser removes them."""

_PIXELS = "[1-9][0-9]{0,5}[xX][1-9][0-9]{0,5}"
# A word holds nothing that a search for pixels would find in it, as "3840x2160px" does.
_WORD = r"(?!0[0-9])(?![A-Za-z0-9]*(?:[0-9][xX]|[xX][0-9]))[A-Za-z0-9]{1,16}|0\.[1-9][Kk]"
_RATIO = "[1-9][0-9]{0,3}:[1-9][0-9]{0,3}|[A-Za-z][A-Za-z_]{0,31}"
SIZE_PATTERN = f"^[{BLANKS}]*(?:{_PIXELS}|{_WORD})?[{BLANKS}]*$"
"""What ``read_size`` takes (ECMA 262)."""

ASPECT_RATIO_PATTERN = f"^[{BLANKS}]*(?:{_RATIO})?[{BLANKS}]*$"
"""What ``read_aspect_ratio`` takes."""

_size = re.compile(f"{_PIXELS}|{_WORD}")
_ratio = re.compile(_RATIO)
SIZES_REMEMBERED = 1_024


@lru_cache(SIZES_REMEMBERED)
def read_size(name: str, text: str) -> str | None:
    """The size in ``text``: ``WIDTHxHEIGHT`` in digits, or a word; None where it is blank.

    A word that begins with a digit is written in capitals (``4K``), any other in small letters (``auto``). Raises
    InvalidRequest, which says that ``name`` is wrong.
    """
    word = text.strip(BLANKS)
    if not word:
        return None
    if not _size.fullmatch(word):
        raise InvalidRequest(
            f"'{name}' should be WIDTHxHEIGHT in digits, like 1024x1024, or a word of at most 16 letters and digits, "
            "like 2K or auto.",
            param=name,
        )
    return word.upper() if word[0].isdigit() and "x" not in word.lower() else word.lower()


def read_aspect_ratio(name: str, text: str) -> str | None:
    """The aspect ratio in ``text``: ``WIDTH:HEIGHT`` in digits, or a word; None where it is blank.

    Raises InvalidRequest, which says that ``name`` is wrong.
    """
    word = text.strip(BLANKS)
    if not word:
        return None
    if not _ratio.fullmatch(word):
        raise InvalidRequest(
            f"'{name}' should be WIDTH:HEIGHT in digits, like 16:9, or a word of at most 32 letters, like auto.",
            param=name,
        )
    return word.lower()


def check_sizes(size: str | None, image_size: str | None, model: Model) -> None:
    """Refuse a size that the model does not take (InvalidRequest). Both are as ``read_size`` wrote them."""
    for name, given in (("size", size), ("image_config.image_size", image_size)):
        if given is None:
            continue
        if model.sizes and given not in model.sizes:
            raise InvalidRequest(f"'{name}' should be one of {', '.join(model.sizes)} for this model.", param=name)
        # The price list knows no number alone, which a provider may take for an edge.
        if not model.sizes and given.isdecimal() and 0 < model.four_k_long_edge <= int(given):
            raise InvalidRequest(f"'{name}' should be WIDTHxHEIGHT, like {given}x{given}, or a word.", param=name)
