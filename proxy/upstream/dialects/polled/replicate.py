"""Replicate (https://replicate.com/docs/reference/http#predictions.create): models of anybody, by predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from typing_extensions import override

from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import ProxyError
from proxy.domain.requests.image import ImageRequest
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.openai import READING
from proxy.upstream.dialects.polled.protocol import PENDING, PolledDialect, TaskState, TaskStatus, Ticket
from proxy.upstream.dialects.polled.words import addresses_in, listed, moderated, shape_of, text_in, unknown_of
from proxy.upstream.errors.failures import error_for_status, error_in_answer
from proxy.upstream.errors.reports import read_report

IMAGES_AT_ONCE = 4
_WRITTEN = frozenset({"num_outputs", "number_of_images", "num_images", "resolution", "megapixels"})
_version = re.compile(r"(?:[^:]+:)?([0-9a-f]{64})")
_MODERATION = re.compile(r"flagged|sensitive|nsfw|moderat|safety|\bE005\b", re.IGNORECASE)
"""What says that the content is at fault: its errors are texts of the models' own, without a code."""


class ReplicateDialect(PolledDialect):
    """A model is ``owner/name``, or a version's id, alone or after ``owner/name:``. Its fields stand in ``input``.

    What a model calls the images that it edits is its own affair: there are no edits.
    """

    chat = None
    abilities: frozenset[Ability] = frozenset()
    poll_hosts = ("api.replicate.com",)
    result_hosts = ("replicate.delivery", "*.replicate.delivery")
    cancel_method = "POST"

    @override
    def authorize(self, api_key: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    @override
    def images_at_once(self, _endpoint: str) -> int:
        return IMAGES_AT_ONCE

    @override
    def images_path(self, _request: ImageRequest, model: Model) -> str:
        if _version.fullmatch(model.upstream_model):
            return "/predictions"
        return f"/models/{quote(model.upstream_model, safe='/.-_~')}/predictions"

    @override
    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        version = _version.fullmatch(model.upstream_model)
        return orjson.dumps({**({"version": version[1]} if version else {}), "input": _input(request, model)})

    @override
    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """It is refused before it is admitted."""
        raise TypeError("this dialect has no edits")

    @property
    @override
    def reading(self) -> Reading:
        return READING

    @override
    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """RFC 9457's ``title`` and ``detail``."""
        return error_for_status(status, headers, read_report(body))

    @override
    def read_ticket(self, answer: Mapping[str, Any]) -> Ticket | None:
        urls = answer.get("urls")
        if not isinstance(urls, dict) or not text_in(urls, "get"):
            return None
        return Ticket(text_in(urls, "get"), cancel_url=text_in(urls, "cancel"))

    @override
    def read_status(self, answer: Mapping[str, Any]) -> TaskStatus:
        word = text_in(answer, "status")
        if word in ("succeeded", "successful"):
            return TaskStatus(TaskState.DONE, self.read_result(answer))
        if word not in ("failed", "canceled", "aborted"):
            return PENDING
        said = text_in(answer, "error")
        if word == "failed" and _MODERATION.search(said):
            return TaskStatus(TaskState.FAILED, error=moderated("content_moderated", said))
        report = read_report(orjson.dumps({"error": {"message": said or f"The task is {word}."}}))
        return TaskStatus(TaskState.FAILED, error=error_in_answer(report))

    @override
    def read_result(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        """A text, a list of them, or an object that holds them under one of a few names."""
        output = answer.get("output")
        if isinstance(output, dict) and "url" not in output:
            output = output.get("images") or output.get("image") or output.get("output")
        return addresses_in(output)


def _input(request: ImageRequest, model: Model) -> dict[str, Any]:
    shape = shape_of(request, model)
    n, output_format = listed(request, model, "n"), listed(request, model, "output_format")
    wanted = {
        "width": shape.width,
        "height": shape.height,
        "aspect_ratio": shape.aspect_ratio,
        "resolution": shape.image_size,
        "num_outputs": n if n != 1 else None,
        "output_format": "jpg" if output_format == "jpeg" else output_format,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    wanted = {**unknown_of(request, _WRITTEN), "prompt": request.prompt, **given}
    return wanted if model.wording is None else model.wording.of(wanted)
