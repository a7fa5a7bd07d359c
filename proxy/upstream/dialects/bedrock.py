"""Stability's models on Amazon Bedrock, by InvokeModel: JSON in and out, one image a request.

The shapes are those of https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html:
whether an image was filtered stands before the images, and one that was filtered is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON
from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest, ProxyError
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.inputs import Reference, Upload, split_data_url
from proxy.upstream.bodies.outgoing import OutgoingBody, splice_files
from proxy.upstream.dialects.openai import READING
from proxy.upstream.dialects.protocol import Dialect
from proxy.upstream.dialects.stability import STRENGTH, WRITTEN, ratio_of
from proxy.upstream.errors.failures import error_for_status
from proxy.upstream.errors.reports import read_report

STARTERS = ("sd3", "ultra")
"""In the ids of models that generate from a prompt, and may start from an image; others always change one."""

ERROR_TYPE = "x-amzn-errortype"
STATUSES: Mapping[str, int] = {
    "ServiceQuotaExceededException": HTTPStatus.TOO_MANY_REQUESTS,
    "ModelErrorException": HTTPStatus.BAD_GATEWAY,
}
"""What some errors mean whose own statuses say something else (API_runtime_InvokeModel)."""


class BedrockDialect(Dialect):
    """A model is an id or the ARN of an inference profile, as ``stability.sd3-5-large-v1:0``."""

    chat = None
    abilities = frozenset({Ability.EDITS, Ability.MASKS})
    accepts = JSON

    @override
    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A Bedrock API key; signatures need none."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    @override
    def images_at_once(self, _endpoint: str) -> int:
        return 1

    @override
    def images_path(self, _request: ImageRequest, model: Model) -> str:
        """With ``:`` escaped, as Amazon's own libraries write and sign it."""
        return f"/model/{quote(model.upstream_model, safe='')}/invoke"

    @override
    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        fields = _fields(request, model)
        if (ratio := ratio_of(request, model)) is not None:
            fields["aspect_ratio"] = ratio
        return orjson.dumps(fields if model.wording is None else model.wording.of(fields))

    @override
    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """One image, and a mask. Raises InvalidRequest where there are more."""
        given = request.inputs
        if len(given.images) != 1:
            raise InvalidRequest("'image' should be one image: this model edits one at a time.", param="image")
        fields = _fields(request, model)
        if given.mask is None and any(word in model.upstream_model for word in STARTERS):
            fields = {"mode": "image-to-image", "strength": STRENGTH, **fields}
        if model.wording is not None:
            fields = dict(model.wording.of(fields))
        files = {"image": given.images[0]} | ({} if given.mask is None else {"mask": given.mask})
        places: list[tuple[bytes, Upload]] = []
        for name, file in files.items():
            if isinstance(file, Upload):
                fields[name] = f"{boundary}-{name}"
                places.append((fields[name].encode(), file))
            else:
                fields[name] = _text_of(file)
        return OutgoingBody(JSON, splice_files(orjson.dumps(fields), places))

    @property
    @override
    def reading(self) -> Reading:
        return READING

    @override
    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """Errors come as ``{"message"}``, with their type in the head.

        The message about a signature repeats what was signed, tokens included: nobody reads it.
        """
        report = read_report(body)
        kind = headers.get(ERROR_TYPE, "").partition(":")[0].rpartition("#")[2]
        if kind:
            report = replace(report, code=kind, words=(kind, *report.words))
        if "Signature" in kind:
            return error_for_status(HTTPStatus.FORBIDDEN, headers, replace(report, message=""))
        return error_for_status(STATUSES.get(kind, status), headers, report)


def _fields(request: ImageRequest, model: Model) -> dict[str, Any]:
    """``mode`` is left out where it is the one that there is without one: not every model knows it."""
    unknown = {name: value for name, value in request.unknown.items() if name not in WRITTEN}
    fields: dict[str, Any] = {"prompt": request.prompt, **unknown}
    if "output_format" in model.parameters and "output_format" in request.fields:
        fields["output_format"] = request.fields["output_format"]
    return fields


def _text_of(given: Reference) -> str:
    """The base64 of an image that came as a ``data:`` address."""
    _, text = split_data_url(given.image_url or "") or ("", "")
    if not text:
        raise InvalidRequest("'images' should hold images in base64.", param="images")
    return text
