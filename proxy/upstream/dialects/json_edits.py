"""Edits in JSON, for providers that are OpenAI's API but take no form: images as addresses, or as base64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.answers.answer import JSON
from proxy.domain.requests.inputs import Inputs, Reference, Upload, split_data_url
from proxy.domain.wording import EditForm
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.words import Places, placeholders, splice


def write_json_edit(form: EditForm, fields: Mapping[str, Any], inputs: Inputs, boundary: str) -> OutgoingBody:
    """``fields`` with the images in their ``form``, which is not a form with files; ``boundary`` is in none of them."""
    places = list(placeholders(inputs, boundary))
    images = _images(form, places)
    if form is EditForm.IMAGE_OBJECTS and inputs.mask is not None:
        mask = (inputs.mask, f"{boundary}-mask")
        places.append(mask)
        images["mask"] = _object(*mask)
    others = {name: value for name, value in fields.items() if name not in images}
    return OutgoingBody(JSON, splice(orjson.dumps({**others, **images}), places))


def _images(form: EditForm, places: Places) -> dict[str, Any]:
    if form is EditForm.INPUT_IMAGES:
        names = ("input_image", *(f"input_image_{number}" for number in range(2, len(places) + 1)))
        return {name: _base64(*place) for name, place in zip(names, places, strict=True)}
    if form is EditForm.IMAGE_URLS:
        addresses = [_address(*place) for place in places]
        return {"image": addresses[0] if len(addresses) == 1 else addresses}
    objects = [_object(*place) for place in places]
    return {"image": objects[0]} if len(objects) == 1 else {"images": objects}


def _object(image: Upload | Reference, place: str) -> dict[str, str]:
    return {"type": "image_url", "url": _address(image, place)}


def _address(image: Upload | Reference, place: str) -> str:
    return f"data:{image.kind};base64,{place}" if isinstance(image, Upload) else image.image_url or ""


def _base64(image: Upload | Reference, place: str) -> str:
    if isinstance(image, Upload):
        return place
    address = image.image_url or ""
    held = split_data_url(address)
    return address if held is None else held[1]
