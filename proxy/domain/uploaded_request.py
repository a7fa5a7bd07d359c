"""The text fields of a multipart edit or variation, as the image request that they ask for.

The fields are those of https://platform.openai.com/docs/api-reference/images/createEdit and ``createVariation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.image_request import CHECKS, ImageRequest, shown, without_nulls

EDIT_FIELDS = frozenset(CHECKS) | {"input_fidelity"}
VARIATION_FIELDS = frozenset({"model", "n", "response_format", "size", "user"})
_INTEGERS = frozenset({"n", "output_compression", "partial_images"})
_SWITCHES = {"true": True, "false": False}
_integer = re.compile(r"-?[0-9]{1,15}")


def request_of_texts(texts: Iterable[tuple[str, str]], *, variation: bool = False) -> ImageRequest:
    """The request that these names and texts make, wherever they stood among the parts.

    A form has only texts, so ``2`` is a number where one belongs, and ``true`` a switch. A variation has no prompt;
    its ``prompt`` is empty. Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    known = VARIATION_FIELDS if variation else EDIT_FIELDS
    fields: dict[str, Any] = {}
    for name, text in texts:
        if name not in known:
            raise UnknownParameter(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
        if name in fields:
            raise InvalidRequest(f"'{name}' is given more than once; send it once.", param=name)
        value = _value(name, text)
        CHECKS.get(name, CHECKS["quality"])(name, value)
        fields[name] = value if name != "image_config" else without_nulls(value)
    if not variation and "prompt" not in fields:
        raise InvalidRequest("Missing required parameter: 'prompt', the text that describes the image.", param="prompt")
    return ImageRequest(
        model=fields.pop("model", None),
        prompt=fields.get("prompt", ""),
        n=fields.get("n"),
        size=fields.get("size"),
        image_size=fields.get("image_config", {}).get("image_size"),
        stream=fields.get("stream", False),
        fields=fields,
    )


def _value(name: str, text: str) -> Any:
    if name in _INTEGERS:
        return int(text) if _integer.fullmatch(text) else text
    if name == "stream":
        return _SWITCHES.get(text, text)
    if name == "image_config":
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidRequest("'image_config' should be an object as JSON.", param=name) from None
    return text
