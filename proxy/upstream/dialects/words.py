"""What several dialects need to write a request."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from proxy.domain.catalog import Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.inputs import PLAIN_BYTES, Inputs, Reference, Source, Upload, split_data_url
from proxy.domain.requests.sizes import to_image_config
from proxy.upstream.bodies.outgoing import FileBytes, splice_files


def image_config_of(request: ImageRequest, model: Model) -> dict[str, str]:
    """The ``image_config`` to ask a provider for that knows no ``size``, of what the model's ``parameters`` list.

    Where both were given, ``image_config`` says it, and ``size`` what that leaves open. One that stands alone is
    forwarded where ``parameters`` list only ``size``, too: it is what a ``size`` would be translated into.
    """
    config: dict[str, str] = {}
    if request.size is not None and "size" in model.parameters:
        config |= to_image_config(request.size, model.four_k_long_edge)
    if "image_config" in model.parameters or (request.size is None and "size" in model.parameters):
        config |= request.fields.get("image_config", {})
    return config


Places = Sequence[tuple[Upload | Reference, str]]
"""The images of a request, each with what stands for its base64 in the text that is written."""


def placeholders(inputs: Inputs, boundary: str) -> Places:
    """One for each image, made of ``boundary``, which nothing else holds."""
    return [(image, f"{boundary}-{index}") for index, image in enumerate(inputs.images)]


def splice(text: bytes, places: Places) -> list[bytes | FileBytes]:
    """``text`` with the files in place of what stands for them."""
    return splice_files(text, [(place.encode(), image) for image, place in places if isinstance(image, Upload)])


# --- Images in base64, as files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held(Source):
    """The bytes of an image that came in base64."""

    data: bytes

    @override
    async def read(self, start: int, size: int) -> bytes:
        return self.data[start : start + size]


def file_of(given: Upload | Reference) -> Upload:
    """The image as a file: one that stands in a ``data:`` address is decoded. Raises InvalidRequest."""
    if isinstance(given, Upload):
        return given
    kind, text = split_data_url(given.image_url or "") or (PLAIN_BYTES, "")
    try:
        data = b64decode(text)
    except ValueError:
        raise InvalidRequest("'images' should hold images in base64.", param="images") from None
    return Upload("image", None, kind, 0, len(data), _Held(data))


def with_files(inputs: Inputs) -> Inputs:
    """The same, with a file in place of each reference. Raises InvalidRequest."""
    beside = {name: file_of(given) for name, given in inputs.beside.items()}
    return replace(
        inputs, images=[file_of(image) for image in inputs.images], mask=beside.get("mask"), markup=beside.get("markup")
    )
