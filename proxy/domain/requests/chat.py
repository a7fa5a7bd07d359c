"""A chat request as this gateway understands it: strictly enough to be priced, and to be written anew for a provider.

The fields are those of https://platform.openai.com/docs/api-reference/chat/create, and ``image_config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.domain.catalog import TOKENS_LIMIT, Ability, Model
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.image import (
    check_boolean,
    check_image_config,
    check_model,
    kind_of,
    read_image_config,
    read_object,
    shown,
    without_nulls,
)
from proxy.domain.requests.image_links import links_of

KNOWN_FIELDS = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "image_config", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model", "n",
        "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention",
        "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
        "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
        "web_search_options",
    }
)  # fmt: skip

IMAGE_TOKENS = 4_096
"""What one linked or embedded image of a prompt is taken to cost, whatever its size."""

VALUE_TOKENS = 8
"""Of each JSON value beside its text: what a provider writes around messages, parts and tools, and numbers."""


@dataclass(frozen=True, slots=True)
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

    n: int | None = 1
    size: str | None = None


def parse_chat_request(body: bytes | dict[str, Any]) -> ChatRequest:
    """Read a body of ``POST /v1/chat/completions``, decoded or not.

    Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    given = read_object(body, "'model' and 'messages'")
    for name in given:
        if name not in KNOWN_FIELDS:
            raise UnknownParameter(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
    fields = without_nulls(given)
    _check_messages(fields.get("messages"))
    _check_options(fields)
    modalities = fields.get("modalities", [])
    if type(modalities) is not list or not all(type(modality) is str for modality in modalities):
        raise InvalidRequest(
            '\'modalities\' should be an array of strings, like ["image", "text"].', param="modalities"
        )
    image_config = read_image_config(fields.get("image_config", {}))
    if "image_config" in fields:
        fields["image_config"] = image_config
    return ChatRequest(
        model=fields.pop("model", None),
        image_size=image_config.get("image_size"),
        stream=fields.get("stream", False),
        wants_usage=fields.get("stream_options", {}).get("include_usage") is True,
        wants_image="image" in modalities,
        links=links_of(fields["messages"]),
        prompt_tokens=most_prompt_tokens(fields),
        max_tokens=_most_answer_tokens(fields),
        fields=fields,
    )


def most_prompt_tokens(fields: Mapping[str, Any]) -> int:
    """An upper bound of a prompt's tokens: one a byte of UTF-8 in all names and strings, ``VALUE_TOKENS`` a value, and
    ``IMAGE_TOKENS`` an image of the messages, whose ``data:`` address is not counted as text.
    """
    tokens = 0
    rest: list[tuple[object, bool]] = [(value, name == "messages") for name, value in fields.items() if name != "model"]
    while rest:
        value, in_messages = rest.pop()
        tokens += VALUE_TOKENS
        if isinstance(value, str):
            tokens += _utf8_bytes(value)
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


def _check_messages(messages: object) -> None:
    if messages is None:
        raise InvalidRequest("Missing required parameter: 'messages', what has been said so far.", param="messages")
    if type(messages) is not list or not messages or not all(type(message) is dict for message in messages):
        raise InvalidRequest("'messages' should be an array of at least one object.", param="messages")


def _check_options(fields: Mapping[str, Any]) -> None:
    for name, check in (("model", check_model), ("stream", check_boolean), ("image_config", check_image_config)):
        if name in fields:
            check(name, fields[name])
    options = fields.get("stream_options", {})
    if type(options) is not dict:
        raise InvalidRequest(f"'stream_options' should be an object, not {kind_of(options)}.", param="stream_options")
    n = fields.get("n", 1)
    # One image is reserved; several answers would be several.
    if type(n) is not int or n != 1:
        raise InvalidRequest("'n' should be 1 or left out: this gateway has one answer made a request.", param="n")


def _most_answer_tokens(fields: Mapping[str, Any]) -> int | None:
    given = [(name, fields[name]) for name in ("max_completion_tokens", "max_tokens") if name in fields]
    for name, tokens in given:
        if type(tokens) is not int:
            raise InvalidRequest(f"'{name}' should be an integer, not {kind_of(tokens)}.", param=name)
        if not 1 <= tokens <= TOKENS_LIMIT:
            raise InvalidRequest(f"'{name}' should be an integer from 1 to {TOKENS_LIMIT:,}.", param=name)
    return max((tokens for _, tokens in given), default=None)


def _is_data(address: object) -> bool:
    return isinstance(address, str) and address[:5].casefold() == "data:"


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
