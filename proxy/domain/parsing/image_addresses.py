"""What a string in an image's place is: an address of one, an image in base64, or neither.

An address is one of ``http:``, of ``https:``, or ``data:image/``, and no other.
Whoever shows an answer takes a provider's word for what it follows: ``javascript:`` would run there, ``file:`` would
read the disk. Browsers remove blanks and control characters before a scheme (WHATWG URL, section 4.4): with them it is
no address of an image either.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.domain.records import record

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


# --- What an image's place holds -------------------------------------------------------------------------------------

PREFIX_BYTES_LIMIT: Final = 256
"""How much of a string is looked at to know what it is."""

_data_url = re.compile(rb"data:([A-Za-z0-9.+-]+(?:\\?/[A-Za-z0-9.+-]+)?)?(?:;[^,;]{0,100})*?;base64,", re.IGNORECASE)
# Some encoders break base64 into lines, and some escape its slashes.
_base64 = re.compile(rb"(?:[A-Za-z0-9+/=_ -]|\\[/nrt]|\\u00(?:2[bBfF]|3[dD]))*+\\?(?:u[0-9A-Fa-f]{0,3})?")
# PNG, JPEG, WebP, GIF, AVIF and HEIC, SVG: their first bytes in base64.
IMAGE_BEGIN: Final = rb"(?:iVBORw0KGg|(?:\\?/)9j(?:\\?/)|UklGR|R0lGOD|AAAA..Z0eX|PHN2Zy|PD94bW)"
_image = re.compile(IMAGE_BEGIN)


@record
class Place:
    """What stands in an image's place: ``kind`` is the member that OpenAI has for it, ``b64_json`` or ``url``.

    The image, or its address, begins after ``lead_bytes``; ``media_type`` is what an address says of it.
    """

    kind: bytes
    lead_bytes: int = 0
    media_type: bytes = b""


_BASE64 = Place(b"b64_json")
_URL = Place(b"url")


def read_data_url(begin: bytes) -> re.Match[bytes] | None:
    """The lead of a ``data:`` address in base64 (RFC 2397), whose first group is its media type; else None."""
    # As far as the limit, however long the piece was that passed it.
    return _data_url.match(begin, 0, PREFIX_BYTES_LIMIT)


def begins_an_image(begin: bytes) -> bool:
    """Whether a string, as JSON has it, begins as the base64 of an image of a known kind does."""
    return _image.match(begin) is not None


def read_place(begin: bytes, *, is_base64: bool) -> Place | None:
    """What a string is that begins so, as JSON has it: 256 bytes of it, or all. None where it is no image.

    Where its member's name does not say that it ``is_base64``, it has to begin as an image of a known kind does.
    """
    found = read_data_url(begin)
    if found is not None:
        is_image = found[1] is not None and found[1][:5].lower() == b"image"
        if found.end() == len(begin) or not (is_image or is_base64):
            return None
        return Place(b"b64_json", found.end(), found[1] if is_image else b"")
    if read_lead(begin):
        return _URL
    if not begin or not _base64.fullmatch(begin, 0, PREFIX_BYTES_LIMIT):
        return None
    return _BASE64 if is_base64 or begins_an_image(begin) else None
