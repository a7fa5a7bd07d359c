"""Images within a chat's messages, each brought to OpenAI's form, ``{"type": "image_url", "image_url": {"url": …}}``.

Clients write them as their own libraries do: as Anthropic's or Google's, as the Responses API, Vercel's AI SDK,
LangChain and MCP have them. A provider that speaks as OpenAI does reads one form, as a dialect that translates does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.domain.requests.inputs import address_of, data_address

TEXT_TYPES = ("input_text", "output_text")
IMAGE_TYPES = ("image_url", "input_image", "image", "inline_data", "inlineData", "media", "file", None)
"""Types of parts that may hold an image; a part of none of them stays as it is."""

KEPT = ("cache_control", "extra_content", "thought_signature", "thoughtSignature", "index")
"""Members of a part that stay beside its image."""

_WITHIN = ("image_url", "source", "inlineData", "inline_data", "fileData", "file_data", "image", "file")
_BASE64 = ("data", "base64", "b64_json", "file_data")
_ADDRESSES = ("url", "image_url", "image", "fileUri", "file_uri")
_KINDS = ("media_type", "mediaType", "mime_type", "mimeType")


def read_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """``message`` with the parts of its content, and the images beside it, in OpenAI's form."""
    changed = {
        name: [_read_part(part) for part in parts]
        for name, parts in message.items()
        if name in ("content", "images") and type(parts) is list
    }
    return {**message, **changed} if changed else message


def _read_part(part: Any) -> Any:
    kind = part.get("type") if type(part) is dict else "none"
    if kind in TEXT_TYPES or (kind is None and type(part.get("text")) is str):
        return {**part, "type": "text"}
    if kind not in IMAGE_TYPES:
        return part
    given = part.get("image_url")
    url = given.get("url") if type(given) is dict else None
    if kind == "image_url" and type(url) is str and address_of(url) is url:
        return part
    address = _address(part)
    if address is None or (kind == "file" and address[:11].lower() != "data:image/"):
        return part
    image = {**given, "url": address} if type(given) is dict else {"url": address}
    if type(part.get("detail")) is str:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image, **{name: part[name] for name in KEPT if name in part}}


def _address(part: Mapping[str, Any]) -> str | None:
    """Of the image in a part, from the first place that has one; None where none has."""
    for place in (*(part[name] for name in _WITHIN if type(part.get(name)) is dict), part):
        said = next((place[name] for name in _KINDS if type(place.get(name)) is str), None)
        for name in _BASE64:
            if type(place.get(name)) is str and (address := data_address(place[name], said)) is not None:
                return address
        for name in _ADDRESSES:
            if type(place.get(name)) is str:
                return address_of(place[name], said)
    return None
