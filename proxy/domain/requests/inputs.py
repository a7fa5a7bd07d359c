"""Images that come with a request: files that were uploaded, and references to images that are elsewhere."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest

PLAIN_BYTES = "application/octet-stream"
_kind = re.compile(r"image/[a-z0-9][a-z0-9.+-]{0,60}")
_data_url = re.compile(r"data:(image/[a-z0-9][a-z0-9.+-]{0,60})(?:;[^,;]{0,100}){0,3}?;base64,", re.IGNORECASE)
_any_data_url = re.compile(r"data:([^,;]{0,100})(?:;[^,;]{0,100}){0,3}?;base64,", re.IGNORECASE)
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavi", "image/avif"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftyphev", "image/heic"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
)
_REGISTERED = {
    **dict.fromkeys(("image/jpg", "image/jpe", "image/pjpeg", "image/x-jpeg", "image/x-jpg"), "image/jpeg"),
    **dict.fromkeys(("image/x-png", "image/vnd.mozilla.apng"), "image/png"),
    "image/x-webp": "image/webp",
    "image/x-gif": "image/gif",
    "image/tif": "image/tiff",
    "image/x-tiff": "image/tiff",
    "image/x-bmp": "image/bmp",
    "image/x-ms-bmp": "image/bmp",
    "image/svg": "image/svg+xml",
}
"""What clients say for names of https://www.iana.org/assignments/media-types, which are all that providers take."""

SIGNATURE_BYTES = 12
"""How much of a file has to be seen to tell what it is."""

RIFF_NAME_AT = 8
_BEGIN_LENGTH = 16
"""Characters of base64 that hold it."""


class Source(Protocol):
    """Where the bytes of uploaded files are until their request has ended."""

    async def read(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on, fewer only at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client sent in the field ``name``. It lies in ``source`` from byte ``start`` on.

    ``kind`` is its media type: as its first bytes show, or else as the client said. ``sha256`` is empty where nobody
    wanted it.
    """

    name: str
    file_name: str | None
    kind: str
    start: int
    size_bytes: int
    source: Source = field(repr=False, compare=False)
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by its address, which may be a ``data:`` one, or by the id that a provider has given it."""

    image_url: str | None = None
    file_id: str | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an edit or a variation starts from. All of it was uploaded, or all of it is references.

    ``mask`` is where the first image is to be edited, ``markup`` an image with notes of what is to be done there, and
    ``others`` are files in fields that nobody here knows.
    """

    images: Sequence[Upload | Reference] = ()
    mask: Upload | Reference | None = None
    markup: Upload | Reference | None = None
    others: Sequence[Upload] = ()

    @property
    def uploads(self) -> list[Upload]:
        """The files, in the order of the request; then the mask, the markup, and the others."""
        return [given for given in (*self.images, *self.beside.values(), *self.others) if isinstance(given, Upload)]

    @property
    def beside(self) -> dict[str, Upload | Reference]:
        """The mask and the markup, those that there are."""
        return {name: given for name, given in (("mask", self.mask), ("markup", self.markup)) if given is not None}


def kind_of_file(said: str | None, begin: bytes) -> str:
    """The media type of an image, by its bytes, or else as its client has said, in the registered name.

    Plain bytes where neither tells it. ``begin`` are its first ``SIGNATURE_BYTES`` bytes.
    """
    for at, signature, name in _SIGNATURES:
        if begin.startswith(signature, at) and (at != RIFF_NAME_AT or begin.startswith(b"RIFF")):
            return name
    kind = (said or "").partition(";")[0].strip().lower()
    return _REGISTERED.get(kind, kind) if _kind.fullmatch(kind) else PLAIN_BYTES


def data_address(text: str, said: str | None = None) -> str | None:
    """The ``data:`` address of an image in base64, which may be one already; None where nothing tells that it is one.

    Its media type is what its first bytes show. ``said`` is what its client has said.
    """
    match = _any_data_url.match(text)
    if match is None and text[:5].lower() == "data:":
        return None
    kind = kind_of_file(said if match is None else match[1], _first_bytes(text, 0 if match is None else match.end()))
    if kind == PLAIN_BYTES:
        return None
    if match is None:
        return f"data:{kind};base64,{text}"
    return text if match[1] == kind else f"data:{kind};base64,{text[match.end() :]}"


def address_of(text: str, said: str | None = None) -> str:
    """The same for a text that may be an address of another kind, or none: it stays as it is."""
    is_link = "://" in text[:_BEGIN_LENGTH]
    return text if is_link or not text else data_address(text, said) or text


def _first_bytes(text: str, start: int) -> bytes:
    begin = "".join(text[start : start + 4 * _BEGIN_LENGTH].split())[:_BEGIN_LENGTH]
    try:
        return b64decode(begin.replace("-", "+").replace("_", "/"))
    except ValueError:
        return b""


def split_data_url(address: str) -> tuple[str, str] | None:
    """The media type and the base64 of a ``data:`` address of an image (RFC 2397); None for any other address."""
    match = _data_url.match(address)
    return (match[1].lower(), address[match.end() :]) if match else None


def check_inputs(inputs: Inputs, model: Model) -> None:
    """Refuse what the model's provider cannot take (InvalidRequest, which names the field)."""
    if inputs.mask is not None and Ability.MASKS not in model.abilities:
        raise InvalidRequest("'mask' should be left out: this model edits without one.", param="mask")
    named = [(f"images[{index}]", image) for index, image in enumerate(inputs.images)]
    named += inputs.beside.items()
    for name, given in named:
        if isinstance(given, Upload):
            continue
        if given.file_id is not None and Ability.FILE_IDS not in model.abilities:
            raise InvalidRequest(
                f"'{name}.file_id' should be left out: this model's provider keeps no files; "
                "send 'image_url', or upload the image.",
                param=f"{name}.file_id",
            )
        if (
            given.image_url is not None
            and Ability.LINKED_IMAGES not in model.abilities
            and split_data_url(given.image_url) is None
        ):
            raise InvalidRequest(
                f"'{name}.image_url' should be a data: address with an image in base64: "
                "this model's provider fetches nothing.",
                param=f"{name}.image_url",
            )
