"""A chat request as this gateway understands it: strictly enough to be priced, and to be written anew for a provider.

The fields are those of https://platform.openai.com/docs/api-reference/chat/create, and ``image_config``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from proxy.domain.catalog import TOKENS_LIMIT, Ability, Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.records import record
from proxy.domain.requests.image import IMAGE_CONFIG
from proxy.domain.requests.image_links import links_of
from proxy.domain.requests.inputs import address_of, data_address
from proxy.domain.requests.json_body import read_object
from proxy.domain.requests.kinds import ANYTHING, BOOLEAN, IDENTIFIER, OBJECT, Fields, Kind, integer

IMAGE_TOKENS = 4_096
"""What one linked or embedded image of a prompt is taken to cost, whatever its size."""

VALUE_TOKENS = 8
"""Of each JSON value beside its text: what a provider writes around messages, parts and tools, and numbers."""


# The bytes show that it is a PNG, a JPEG, a WebP, a GIF, an AVIF or a HEIC; what is said to be an image may be text.
_image_in_text = re.compile(
    r"data:image/[A-Za-z0-9.+-]{1,64};base64,(?=iVBORw0KGgo|/9j/|UklGR|R0lGOD|AAAA[A-Za-z0-9+/]GZ0eX)[A-Za-z0-9+/=_-]*+"
)


# --- Images in messages -----------------------------------------------------------------------------------------------

# Clients write them as their own libraries do: as Anthropic's or Google's, as the Responses API, Vercel's AI SDK,
# LangChain and MCP have them. Each is brought to OpenAI's form, {"type": "image_url", "image_url": {"url": …}}.

TEXT_TYPES = ("input_text", "output_text")
IMAGE_TYPES = ("image_url", "input_image", "image", "inline_data", "inlineData", "media", "file", None)
"""Types of parts that may hold an image; a part of none of them stays as it is."""

KEPT = ("cache_control", "extra_content", "thought_signature", "thoughtSignature", "index")
"""Members of a part that stay beside its image."""

_WITHIN = ("image_url", "source", "inlineData", "inline_data", "fileData", "file_data", "image", "file")
_BASE64 = ("data", "base64", "b64_json", "file_data")
_ADDRESSES = ("url", "image_url", "image", "fileUri", "file_uri")
_KINDS = ("media_type", "mediaType", "mime_type", "mimeType")


def _read_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
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


# --- What a request may say -------------------------------------------------------------------------------------------


def _read_messages(name: str, value: Any) -> Any:
    if type(value) is not list or not value or not all(type(message) is dict for message in value):
        raise InvalidRequest(f"'{name}' should be an array of at least one object.", param=name)
    return [_read_message(message) for message in value]


def _read_modalities(name: str, value: Any) -> Any:
    if type(value) is not list or not all(type(modality) is str for modality in value):
        raise InvalidRequest(f'\'{name}\' should be an array of strings, like ["image", "text"].', param=name)
    return value


def _read_n(name: str, value: Any) -> Any:
    # One image is reserved; several answers would be several.
    if type(value) is not int or value != 1:
        raise InvalidRequest(
            f"'{name}' should be 1 or left out: this gateway has one answer made a request.", param=name
        )
    return value


PASSED_ON = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "metadata", "moderation",
    "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier",
    "stop", "store", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
    "web_search_options",
)  # fmt: skip
"""What is not priced, and is the provider's to check."""

CHAT_PARAMETERS = frozenset({"plugins", "provider"})
"""Fields of OpenRouter's that change the bill: forwarded whole only where a model's ``parameters`` list them."""

CHAT = Fields(
    "ChatRequestFields",
    "A chat request, with OpenAI's fields and ``image_config``; those that are not priced are passed on as they are."
    "\n\n``model`` may be left out where the gateway has a ``default_model``.",
    {
        "model": IDENTIFIER,
        "messages": Kind(_read_messages, {"type": "array", "items": OBJECT.schema, "minItems": 1}),
        "modalities": Kind(_read_modalities, {"type": "array", "items": {"type": "string"}}),
        "n": Kind(_read_n, {"type": "integer", "minimum": 1, "maximum": 1}),
        "stream": BOOLEAN,
        "stream_options": OBJECT,
        "image_config": IMAGE_CONFIG,
        "max_completion_tokens": integer(1, TOKENS_LIMIT),
        "max_tokens": integer(1, TOKENS_LIMIT),
        **dict.fromkeys(PASSED_ON, ANYTHING),
    },
    required={"messages": "what has been said so far"},
)


@record
class ChatRequest:
    """What a client asked for. One image is reserved; ``wants_image`` is whether ``modalities`` holds ``"image"``."""

    model: str | None
    image_size: str | None = None
    stream: bool = False
    wants_usage: bool = False
    wants_image: bool = False
    links: bool = False
    """Whether its provider would have to fetch something."""

    prompt_tokens: int = 0
    """The most that its prompt is taken to cost: see ``most_prompt_tokens``."""

    max_tokens: int | None = None
    """The most that its answer may have, where it says so."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    """Every field that was given and is not null, ``model`` excepted, as it would be forwarded."""

    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields that nobody here knows, as they came; what is left of them is forwarded: see ``accept_unknown``."""

    n: int | None = 1
    size: str | None = None


def parse_chat_request(body: bytes | dict[str, Any]) -> ChatRequest:
    """Read a body of ``POST /v1/chat/completions``, decoded or not.

    Raises InvalidRequest, which names the field.
    """
    fields, unknown = CHAT.read(read_object(body, "'model' and 'messages'"))
    CHAT.check_required(fields)
    return ChatRequest(
        model=fields.pop("model", None),
        image_size=fields.get("image_config", {}).get("image_size"),
        stream=fields.get("stream", False),
        wants_usage=fields.get("stream_options", {}).get("include_usage") is True,
        wants_image="image" in fields.get("modalities", ()),
        links=links_of(fields["messages"]),
        prompt_tokens=most_prompt_tokens({**fields, **unknown} if unknown else fields),
        max_tokens=max(filter(None, map(fields.get, ("max_completion_tokens", "max_tokens"))), default=None),
        fields=fields,
        unknown=unknown,
    )


def most_prompt_tokens(fields: Mapping[str, Any]) -> int:
    """An upper bound of a prompt's tokens: one a byte of UTF-8 in all names and strings, ``VALUE_TOKENS`` a value, and
    ``IMAGE_TOKENS`` an image of the messages, whose ``data:`` address is not counted as text. One in the middle of a
    text, as a chat sends back what it was answered, costs no more than any other.
    """
    tokens = 0
    rest: list[tuple[object, bool]] = [(value, name == "messages") for name, value in fields.items() if name != "model"]
    while rest:
        value, in_messages = rest.pop()
        tokens += VALUE_TOKENS
        if isinstance(value, str):
            tokens += _text_tokens(value) if in_messages else _utf8_bytes(value)
        elif isinstance(value, list):
            rest.extend((item, in_messages) for item in value)
        elif isinstance(value, dict):
            is_image = in_messages and value.get("type") == "image_url"
            if is_image:
                tokens += IMAGE_TOKENS
            for name, item in value.items():
                tokens += _utf8_bytes(name)
                if not (is_image and name == "image_url"):
                    rest.append((item, in_messages))
                elif isinstance(item, dict):
                    rest.extend((each, in_messages) for key, each in item.items() if key != "url" or not _is_data(each))
                elif not _is_data(item):
                    rest.append((item, in_messages))
    return tokens


def count_images(messages: object) -> int:
    """The images that stand in messages, wherever they do: what was said, and answers that are sent back."""
    count, rest = 0, [messages]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, dict):
            if value.get("type") == "image_url":
                count += 1
            else:
                rest.extend(value.values())
    return count


def no_chat() -> InvalidRequest:
    """The refusal of a chat with a model that knows none."""
    return InvalidRequest("This model does not chat; ask it for images at /v1/images/generations.", param="model")


def check_chat(request: ChatRequest, model: Model) -> None:
    """Refuse what this model does not answer (InvalidRequest)."""
    if not model.chats:
        raise no_chat()
    if model.text == "refuse" and not request.wants_image:
        raise InvalidRequest("'modalities' should hold \"image\": this model is for images only.", param="modalities")
    for check in model.chat_checks:
        check(request.fields)
    if request.links and Ability.LINKED_IMAGES not in model.abilities:
        raise InvalidRequest(
            "'messages' should hold its images as data: addresses: this model's provider fetches nothing.",
            param="messages",
        )


def _is_data(address: object) -> bool:
    return isinstance(address, str) and address[:5].casefold() == "data:"


def _text_tokens(text: str) -> int:
    tokens = _utf8_bytes(text)
    if "data:image/" in text:
        sizes = (image.end() - image.start() for image in _image_in_text.finditer(text))
        tokens -= sum(max(size - IMAGE_TOKENS, 0) for size in sizes)
    return tokens


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
