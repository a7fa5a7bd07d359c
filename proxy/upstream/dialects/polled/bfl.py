"""Black Forest Labs (https://docs.bfl.ai/quick_start/generating_images): FLUX, by tasks of one image each."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeGuard
from urllib.parse import quote

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON
from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import ProxyError
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.inputs import Upload, split_data_url
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.openai import READING
from proxy.upstream.dialects.polled.protocol import PENDING, UNKNOWN, PolledDialect, TaskState, TaskStatus, Ticket
from proxy.upstream.dialects.polled.words import (
    addresses_in,
    listed,
    moderated,
    shape_of,
    text_in,
    unknown_of,
)
from proxy.upstream.dialects.words import placeholders, splice
from proxy.upstream.errors.failures import error_for_status, error_in_answer
from proxy.upstream.errors.reports import read_report

CREDIT_USD = Decimal("0.01")
"""What the credits are worth in which a ticket states its cost (https://docs.bfl.ai/quick_start/pricing)."""

_INPUTS = frozenset({"image_prompt", "input_image", *(f"input_image_{number}" for number in range(2, 20))})


class BlackForestLabsDialect(PolledDialect):
    """The model is the path. A task that is ``Ready`` has the address of its image in ``result.sample``."""

    chat = None
    abilities = frozenset({Ability.EDITS, Ability.LINKED_IMAGES})
    poll_hosts = ("*.bfl.ai", "*.bfl.ml")
    result_hosts = (
        *poll_hosts,
        "bfldeliveryprod.blob.core.windows.net",
        "bfldeliverysc.blob.core.windows.net",
    )
    cancel_method = "POST"

    @override
    def authorize(self, api_key: str) -> Mapping[str, str]:
        return {"x-key": api_key} if api_key else {}

    @override
    def images_at_once(self, _endpoint: str) -> int:
        return 1

    @override
    def images_path(self, _request: ImageRequest, model: Model) -> str:
        return f"/{quote(model.upstream_model, safe='/.-_~')}"

    @override
    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        return orjson.dumps(_body(request, model))

    @override
    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The images are ``input_image``, ``input_image_2`` and so on: base64, or an address that is fetched."""
        body = _body(request, model)
        places = placeholders(request.inputs, boundary)
        for number, (image, place) in enumerate(places, start=1):
            name = "input_image" if number == 1 else f"input_image_{number}"
            if isinstance(image, Upload):
                body[name] = place
            else:
                address = image.image_url or ""
                held = split_data_url(address)
                body[name] = address if held is None else held[1]
        return OutgoingBody(JSON, splice(orjson.dumps(body), places))

    @property
    @override
    def reading(self) -> Reading:
        return READING

    @override
    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """FastAPI's ``detail``."""
        return error_for_status(status, headers, read_report(body))

    @override
    def read_ticket(self, answer: Mapping[str, Any]) -> Ticket | None:
        """A task cannot be cancelled."""
        poll_url, credit = text_in(answer, "polling_url"), answer.get("cost")
        cost_usd = Decimal(str(credit)) * CREDIT_USD if _is_number(credit) and credit >= 0 else None
        return Ticket(poll_url, cost_usd=cost_usd) if poll_url else None

    @override
    def read_status(self, answer: Mapping[str, Any]) -> TaskStatus:
        said = text_in(answer, "status")
        word = said.lower()
        result = answer.get("result")
        if word == "ready":
            return TaskStatus(TaskState.DONE, addresses_in(result.get("sample") if isinstance(result, dict) else None))
        if word == "task not found":
            return UNKNOWN
        if word.endswith("moderated"):
            return TaskStatus(TaskState.FAILED, error=moderated(word.replace(" ", "_")))
        if word in ("error", "failed"):
            report = read_report(orjson.dumps({"error": answer.get("details") or result or {}}))
            return TaskStatus(TaskState.FAILED, error=error_in_answer(report))
        return PENDING

    @override
    def read_result(self, answer: Mapping[str, Any]) -> tuple[str, ...]:
        """It stands in the status."""
        return self.read_status(answer).images


def _is_number(value: object) -> TypeGuard[int | float]:
    return type(value) in (int, float)


def _body(request: ImageRequest, model: Model) -> dict[str, Any]:
    shape = shape_of(request, model)
    wanted = {
        "width": shape.width,
        "height": shape.height,
        "aspect_ratio": shape.aspect_ratio,
        "output_format": listed(request, model, "output_format"),
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    body = {**unknown_of(request, _INPUTS), "prompt": request.prompt, **given}
    return body if model.wording is None else model.wording.of(body)
