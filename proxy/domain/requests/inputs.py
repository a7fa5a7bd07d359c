"""Images that come with a request: files that were uploaded, and references to images that are elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest

PLAIN_BYTES = "application/octet-stream"
_kind = re.compile(r"image/[a-z0-9][a-z0-9.+-]{0,60}")
_data_url = re.compile(r"data:(image/[a-z0-9][a-z0-9.+-]{0,60})(?:;[^,;]{0,100}){0,3}?;base64,", re.IGNORECASE)
_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
SIGNATURE_BYTES = 12
"""How much of a file has to be seen to know what it is."""


class Source(Protocol):
    """Where the bytes of uploaded files are until their request has ended."""

    async def read(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on, fewer only at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a client sent in the field ``name``. It lies in ``source`` from byte ``start`` on.

    ``kind`` is its media type: as the client said, or else as its first bytes say. ``sha256`` is empty where nobody
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
    """The media type of an image without its parameters; plain bytes where neither the client nor the file says it.

    ``begin`` are its first ``SIGNATURE_BYTES`` bytes.
    """
    kind = (said or "").partition(";")[0].strip().lower()
    if _kind.fullmatch(kind):
        return kind
    if begin[:4] == b"RIFF" and begin[8:12] == b"WEBP":
        return "image/webp"
    return next((name for signature, name in _SIGNATURES if begin.startswith(signature)), PLAIN_BYTES)


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
