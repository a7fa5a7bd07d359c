"""A chat in the words of Google's Gemini API (https://ai.google.dev/api/generate-content), and its answers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.rewritten import ChatReading, ChatTranslation
from proxy.domain.answers.chat.writing import ChatEnd, ChatHead, ChatWriter, CompletionChunks, CompletionJson
from proxy.domain.answers.places import IMAGE_MEMBERS
from proxy.domain.catalog import Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.parsing.json_shapes import Shape, text_of
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.inputs import split_data_url
from proxy.domain.requests.kinds import Kind, json_type
from proxy.upstream.dialects.gemini_words import content_path, image_config, read_error, unknown_of
from proxy.upstream.dialects.protocol import ChatDialect
from proxy.upstream.dialects.reasons import GOOD_ENDS
from proxy.upstream.errors.failures import clean

ROLES = {"user": "user", "assistant": "model"}
MODALITIES = {"text": "TEXT", "image": "IMAGE"}
WITHHELD = ("SAFETY", "PROHIBITED", "RECITATION", "BLOCKLIST", "SPII", "LANGUAGE", "MODEL_ARMOR")
"""What is in the words for an answer that was made, or would have been, and is kept back."""

_Part = dict[str, object]


class GeminiChat(ChatDialect):
    """What has no place here and is more than a hint is refused before anything is reserved."""

    own_fields: Mapping[str, Kind] = MappingProxyType({})

    @override
    def check(self, fields: Mapping[str, Any]) -> None:
        _write(fields)

    def path(self, request: ChatRequest, model: Model) -> str:
        """The same as for images."""
        return content_path(model, stream=request.stream)

    def write(self, request: ChatRequest, model: Model) -> bytes:
        """Messages become contents and a system instruction, settings go into ``generationConfig``."""
        body = {**unknown_of(request.unknown), **_write(request.fields)}
        return orjson.dumps(body if model.wording is None else model.wording.of(body))

    @override
    def read(self, request: ChatRequest, head: ChatHead, *, comes_as_events: bool) -> Answer:
        """Written anew as a completion or as chunks, each image while it arrives."""
        writer: ChatWriter = CompletionJson(head)
        if request.stream:
            writer = CompletionChunks(head, wants_usage=request.wants_usage)
        return ChatTranslation(READING, writer, comes_as_events=comes_as_events, in_text=request.wants_image)


# --- Messages --------------------------------------------------------------------------------------------------------


def _write(fields: Mapping[str, Any]) -> dict[str, object]:
    for name, asks_for_nothing in _WITHOUT_A_PLACE.items():
        if name in fields and not asks_for_nothing(fields[name]):
            raise InvalidRequest(f"'{name}' should be left out: this model's provider has nothing like it.", param=name)
    system, contents = _messages(fields["messages"])
    body: dict[str, object] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if config := _config(fields):
        body["generationConfig"] = config
    return body


def _messages(messages: Sequence[Mapping[str, Any]]) -> tuple[list[_Part], list[dict[str, object]]]:
    """What the system says, and what is said by the two others."""
    system: list[_Part] = []
    contents: list[dict[str, object]] = []
    for index, message in enumerate(messages):
        role, place = message.get("role"), f"messages[{index}]"
        parts = _message(message, place)
        if role in ("system", "developer"):
            if any("text" not in part for part in parts):
                raise _bad(f"'{place}' should hold text alone: it is the system's.")
            system += parts
        elif role not in ROLES:
            raise _bad(f"'{place}.role' should be system, developer, user or assistant: this model uses no tools.")
        elif parts:
            contents.append({"role": ROLES[role], "parts": parts})
    if not contents:
        raise _bad("'messages' should hold what the user says.")
    return system, contents


def _message(message: Mapping[str, Any], place: str) -> list[_Part]:
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise _bad(f"'{place}.{name}' should be left out: this model's provider has nothing like it.")
    parts: list[_Part] = []
    # A client sends back what it was answered: the images stand beside the text.
    for name in ("content", "refusal", "images"):
        value = message.get(name)
        if isinstance(value, str):
            parts += [{"text": value}] if value else []
        elif isinstance(value, list):
            parts += [_part(part, f"{place}.{name}[{index}]") for index, part in enumerate(value)]
        elif value is not None:
            raise _bad(f"'{place}.{name}' should be a string or an array of parts, not {json_type(value)}.")
    return _signed(parts, _signature(message))


def _signed(parts: list[_Part], signature: str | None) -> list[_Part]:
    """``parts`` with the signature that a whole message had: its text's, or that of a part of its own."""
    if signature is None:
        return parts
    unsigned = [part for part in parts if "text" in part and "thoughtSignature" not in part]
    if not unsigned:
        return [{"text": "", "thoughtSignature": signature}, *parts]
    return [{**part, "thoughtSignature": signature} if part is unsigned[0] else part for part in parts]


def _signature(given: Mapping[str, Any]) -> str | None:
    """What Google wants back with a part that it made, wherever a client keeps it."""
    extra = given.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    for place in (google, given):
        if isinstance(place, dict):
            for name in ("thought_signature", "thoughtSignature"):
                if isinstance(place.get(name), str) and place[name]:
                    return str(place[name])
    return None


def _part(part: object, place: str) -> _Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("text", "refusal", "image_url"):
        raise _bad(f"'{place}.type' should be text or image_url: this model reads nothing else.")
    value = part.get(kind)
    if kind != "image_url":
        if not isinstance(value, str):
            raise _bad(f"'{place}.{kind}' should be a string, not {json_type(value)}.")
        return _signed([{"text": value}], _signature(part))[0]
    url = value.get("url") if isinstance(value, dict) else value
    image = split_data_url(url) if isinstance(url, str) else None
    if image is None:
        raise _bad(
            f"'{place}.image_url.url' should hold the image itself, like data:image/png;base64,…: "
            "this model's provider fetches no addresses."
        )
    signature = _signature(part)
    signed = {} if signature is None else {"thoughtSignature": signature}
    return {"inlineData": {"mimeType": image[0], "data": image[1]}, **signed}


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="messages")


# --- Settings --------------------------------------------------------------------------------------------------------


def _number(name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"'{name}' should be a number, not {json_type(value)}.", param=name)
    return value


def _integer(name: str, value: object) -> int:
    if type(value) is not int:
        raise InvalidRequest(f"'{name}' should be an integer, not {json_type(value)}.", param=name)
    return value


def _words(name: str, value: object) -> Sequence[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidRequest(f"'{name}' should be a string or an array of strings.", param=name)
    return words


def _modalities(name: str, value: Sequence[str]) -> list[str]:
    if not set(value) <= set(MODALITIES):
        raise InvalidRequest(
            f'\'{name}\' should hold "image" and "text" alone: this model makes no others.', param=name
        )
    return [MODALITIES[modality] for modality in value]


def _image_config(_name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return image_config(value)


# What stands further down is taken where both are given.
_SETTINGS: Mapping[str, tuple[str, Callable[[str, Any], object]]] = {
    "modalities": ("responseModalities", _modalities),
    "image_config": ("imageConfig", _image_config),
    "temperature": ("temperature", _number),
    "top_p": ("topP", _number),
    "max_tokens": ("maxOutputTokens", _integer),
    "max_completion_tokens": ("maxOutputTokens", _integer),
    "stop": ("stopSequences", _words),
    "seed": ("seed", _integer),
    "presence_penalty": ("presencePenalty", _number),
    "frequency_penalty": ("frequencyPenalty", _number),
}


def _config(fields: Mapping[str, Any]) -> dict[str, object]:
    given = {theirs: write(name, fields[name]) for name, (theirs, write) in _SETTINGS.items() if name in fields}
    return {name: value for name, value in given.items() if value not in ([], {})}


def _is_nothing(value: object) -> bool:
    return not value or value in ("none", "auto")


def _is_text(value: object) -> bool:
    return value == {"type": "text"}


_WITHOUT_A_PLACE: Mapping[str, Callable[[object], bool]] = {
    "tools": _is_nothing,
    "tool_choice": _is_nothing,
    "functions": _is_nothing,
    "function_call": _is_nothing,
    "audio": _is_nothing,
    "logit_bias": _is_nothing,
    "logprobs": _is_nothing,
    "top_logprobs": _is_nothing,
    "web_search_options": lambda _value: False,
    "response_format": _is_text,
}
"""The fields that would change what the answer is, each with whether its value asks for nothing."""


# --- Answers ---------------------------------------------------------------------------------------------------------


def _read_end(notes: Mapping[str, bytes], has_content: bool) -> ChatEnd | None:
    reason = text_of(notes.get("block")) or text_of(notes.get("finish"))
    if not reason:
        return None
    if reason == "MAX_TOKENS":
        return ChatEnd("length")
    withheld = "block" in notes or any(word in reason for word in WITHHELD)
    finish_reason = "content_filter" if withheld else "stop"
    if reason in GOOD_ENDS or has_content:
        return ChatEnd(finish_reason)
    why = clean(text_of(notes.get("why")))
    return ChatEnd(finish_reason, f"The provider made no answer: {clean(reason)}. {why}".strip())


def _read_usage(usage: bytes) -> Mapping[str, Any]:
    reported = orjson.loads(usage)
    counts = {name: value for name, value in reported.items() if type(value) is int}
    prompt = counts.get("promptTokenCount", 0)
    thoughts = counts.get("thoughtsTokenCount", 0)
    completion = counts.get("candidatesTokenCount", 0) + thoughts
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": counts.get("totalTokenCount", prompt + completion),
        "prompt_tokens_details": {"cached_tokens": counts.get("cachedContentTokenCount", 0)},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }


_PART = Shape(element=True, members=IMAGE_MEMBERS)
_CANDIDATE = Shape(
    members={
        b"content": Shape(members={b"parts": Shape(items=_PART)}),
        b"finishReason": Shape(note="finish"),
        b"finishMessage": Shape(note="why"),
    }
)
_FEEDBACK = Shape(members={b"blockReason": Shape(note="block"), b"blockReasonMessage": Shape(note="why")})
_MEMBERS: Mapping[bytes, Shape] = {
    b"candidates": Shape(items=_CANDIDATE),
    b"promptFeedback": _FEEDBACK,
    b"usageMetadata": Shape(note="usage"),
    b"error": Shape(note="error"),
}
READING = ChatReading(
    # Without "alt=sse" a stream is an array; some gateways pass on what they have got as a "response".
    Shape(items=Shape(members=_MEMBERS), members={**_MEMBERS, b"response": Shape(members=_MEMBERS)}),
    read_error,
    _read_end,
    _read_usage,
)
