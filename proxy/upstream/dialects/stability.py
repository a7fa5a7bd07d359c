"""Stability's v2beta API (https://platform.stability.ai/docs/api-reference#tag/Generate): forms in, an image out.

The image is asked for as its bytes: whether it was filtered stands in their head then, before any of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import quote

import orjson
from typing_extensions import override

from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest, NothingGenerated, ProxyError
from proxy.domain.requests.image import ImageRequest, Task
from proxy.upstream.bodies.multipart import write_form
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.openai import READING
from proxy.upstream.dialects.protocol import Dialect
from proxy.upstream.dialects.words import file_of, image_config_of
from proxy.upstream.errors.failures import error_for_status
from proxy.upstream.errors.reports import read_report

RATIOS = ("21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21")
FAMILY = "sd3"
"""The path of all models that it knows by names of their own."""

STRENGTH = 0.7
"""How far an image may be changed that a prompt is for; the API has no default."""

WRITTEN = frozenset({"prompt", "aspect_ratio", "model", "mode", "image", "mask", "output_format"})
_pixels = re.compile(r"([0-9]+)x([0-9]+)")


class RawDialect(Dialect, Protocol):
    """A dialect whose answer is an image's bytes."""

    def read_head(self, headers: Mapping[str, str]) -> ProxyError | None:
        """Why the bytes that follow are not what was asked for; None where they are."""
        ...


class StabilityDialect(RawDialect):
    """A model is ``core``, ``ultra``, or one of the SD3 family. One request makes one image."""

    chat = None
    abilities = frozenset({Ability.EDITS, Ability.MASKS})

    @override
    def authorize(self, api_key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    @override
    def images_at_once(self, _endpoint: str) -> int:
        return 1

    @override
    def images_path(self, request: ImageRequest, model: Model) -> str:
        """An edit without a mask is a generation that starts from an image, where the model knows that."""
        name = _name_of(model)
        if request.task is Task.EDIT and (request.inputs.mask is not None or name == "core"):
            return "/edit/inpaint"
        return f"/generate/{quote(name, safe='')}"

    @override
    def write_generation(self, request: ImageRequest, model: Model) -> OutgoingBody:
        texts = _texts(request, model)
        if (ratio := ratio_of(request, model)) is not None:
            texts.append(("aspect_ratio", ratio))
        # Nothing that it is made of holds it.
        boundary = sha256(orjson.dumps(texts)).hexdigest()[:32]
        return write_form(boundary, texts, [])

    @override
    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """One image, and a mask. Raises InvalidRequest where there are more."""
        given = request.inputs
        if len(given.images) != 1:
            raise InvalidRequest("'image' should be one image: this model edits one at a time.", param="image")
        texts = _texts(request, model)
        if self.images_path(request, model) != "/edit/inpaint":
            texts += [("mode", "image-to-image")] if _name_of(model) == FAMILY else []
            if "strength" not in request.unknown:
                texts.append(("strength", str(STRENGTH)))
        files = [("image", file_of(given.images[0]))]
        if given.mask is not None:
            files.append(("mask", file_of(given.mask)))
        return write_form(boundary, texts, files)

    @property
    @override
    def reading(self) -> Reading:
        return READING

    @override
    def read_head(self, headers: Mapping[str, str]) -> ProxyError | None:
        reason = headers.get("finish-reason", "")
        if reason.upper() in ("", "SUCCESS"):
            return None
        return NothingGenerated("The provider made no image that it may show.", reason=reason)

    @override
    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """Errors come as ``{"id", "name", "errors": […]}``; moderation is a 403."""
        return error_for_status(status, headers, read_report(body))


def _name_of(model: Model) -> str:
    name = model.upstream_model.removeprefix("stable-image-")
    return name if name in ("core", "ultra") else FAMILY


def _texts(request: ImageRequest, model: Model) -> list[tuple[str, str]]:
    unknown = {name: value for name, value in request.unknown.items() if name not in WRITTEN}
    fields: dict[str, Any] = {"prompt": request.prompt, **unknown}
    if _name_of(model) == FAMILY and model.upstream_model != FAMILY:
        fields["model"] = model.upstream_model
    if "output_format" in model.parameters and "output_format" in request.fields:
        fields["output_format"] = request.fields["output_format"]
    if model.wording is not None:
        fields = model.wording.of(fields)
    return [(name, value if isinstance(value, str) else orjson.dumps(value).decode()) for name, value in fields.items()]


def ratio_of(request: ImageRequest, model: Model) -> str | None:
    """The aspect ratio that was asked for, or the nearest one to a size in pixels."""
    config = image_config_of(request, model)
    said = request.fields.get("image_config", {}).get("aspect_ratio") if config else None
    size = _pixels.fullmatch(request.size or "") if "size" in model.parameters else None
    if said or size is None:
        return said if said != "auto" else None
    return _nearest(int(size[1]) / int(size[2]), RATIOS)


def _nearest(shape: float, ratios: Sequence[str]) -> str:
    def distance(ratio: str) -> float:
        width, height = ratio.split(":")
        return abs(math.log(int(width) / int(height)) - math.log(shape))

    return min(ratios, key=distance)
