"""fal's queue (https://docs.fal.ai/documentation/model-apis/inference/queue): any of its models that draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON
from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import ProxyError
from proxy.domain.requests.image import ImageRequest, Task
from proxy.domain.requests.inputs import Upload
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.openai import READING
from proxy.upstream.dialects.polled.protocol import PENDING, PolledDialect, TaskState, TaskStatus, Ticket
from proxy.upstream.dialects.polled.words import addresses_in, listed, shape_of, text_in, unknown_of
from proxy.upstream.dialects.words import placeholders, splice
from proxy.upstream.errors.failures import error_for_status, error_in_answer
from proxy.upstream.errors.reports import read_report

IMAGES_AT_ONCE = 4
EDIT = "/edit"
"""What stands after a model's path where it edits."""

_WRITTEN = frozenset({"num_images", "image_size", "resolution", "image_url", "image_urls", "sync_mode", "fal_webhook"})


class FalDialect(PolledDialect):
    """The model is the path. A task that is ``COMPLETED`` has its result, or its error, at its ``response_url``."""

    chat = None
    abilities = frozenset({Ability.EDITS, Ability.LINKED_IMAGES})
    poll_hosts = ("queue.fal.run",)
    result_hosts = ("fal.media", "*.fal.media")
    cancel_method = "PUT"

    @override
    def authorize(self, api_key: str) -> Mapping[str, str]:
        return {"Authorization": f"Key {api_key}"} if api_key else {}

    @override
    def images_at_once(self, _endpoint: str) -> int:
        return IMAGES_AT_ONCE

    @override
    def images_path(self, request: ImageRequest, model: Model) -> str:
        """An edit has a path of its own below the model's."""
        path = f"/{quote(model.upstream_model, safe='/.-_~')}"
        return path if request.task is Task.GENERATION or path.endswith(EDIT) else path + EDIT

    @override
    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        return orjson.dumps(_body(request, model))

    @override
    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The images are ``image_urls``; those that were uploaded become ``data:`` addresses."""
        places = placeholders(request.inputs, boundary)
        addresses = [
            f"data:{image.kind};base64,{place}" if isinstance(image, Upload) else image.image_url
            for image, place in places
        ]
        body = orjson.dumps({**_body(request, model), "image_urls": addresses})
        return OutgoingBody(JSON, splice(body, places))

    @property
    @override
    def reading(self) -> Reading:
        return READING

    @override
    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """``detail``, as FastAPI has it (https://docs.fal.ai/errors)."""
        return error_for_status(status, headers, read_report(body))

    @override
    def read_ticket(self, answer: Mapping[str, Any]) -> Ticket | None:
        poll_url, result_url = text_in(answer, "status_url"), text_in(answer, "response_url")
        return Ticket(poll_url, result_url, text_in(answer, "cancel_url")) if poll_url and result_url else None

    @override
    def read_status(self, answer: Mapping[str, Any]) -> TaskStatus:
        """``COMPLETED`` is said of one that failed, too: its result is an error, or ``error`` says it here."""
        if text_in(answer, "status").upper() not in ("COMPLETED", "FAILED", "CANCELED", "CANCELLED"):
            return PENDING
        if answer.get("error"):
            words = {"error": {"message": answer["error"], "code": text_in(answer, "error_type")}}
            return TaskStatus(TaskState.FAILED, error=error_in_answer(read_report(orjson.dumps(words))))
        return TaskStatus(TaskState.DONE)

    @override
    def read_result(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        return addresses_in(answer["images"]) if answer.get("images") else addresses_in(answer.get("image"))


def _body(request: ImageRequest, model: Model) -> dict[str, Any]:
    shape = shape_of(request, model)
    size = None if shape.width is None else {"width": shape.width, "height": shape.height}
    n = listed(request, model, "n")
    wanted = {
        "image_size": size,
        "aspect_ratio": shape.aspect_ratio,
        "resolution": shape.image_size,
        "num_images": n if n != 1 else None,
        "output_format": listed(request, model, "output_format"),
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    body = {**unknown_of(request, _WRITTEN), "prompt": request.prompt, **given}
    return body if model.wording is None else model.wording.of(body)
