"""OpenAI's images API (https://platform.openai.com/docs/api-reference/images), and all who speak as it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON, Answer
from proxy.domain.answers.chat.completion import ChatJson
from proxy.domain.answers.chat.events import ChatChunk, ChatEvents
from proxy.domain.answers.chat.rewritten import ChatReading, ChatTranslation
from proxy.domain.answers.chat.writing import ChatEnd, ChatHead, CompletionJson
from proxy.domain.answers.images.reader import Reading
from proxy.domain.answers.places import IMAGE, IMAGE_MEMBERS, INLINE, SIGNED, TEXT, URL_LISTS
from proxy.domain.catalog import Ability, ChatCheck, Model
from proxy.domain.errors import ProxyError, UpstreamUncertain
from proxy.domain.parsing.json_shapes import Shape, text_of
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.image import ImageRequest, Task
from proxy.domain.requests.inputs import Reference, Upload
from proxy.domain.requests.kinds import Kind
from proxy.domain.requests.sizes import to_image_config, to_size
from proxy.domain.wording import EditForm
from proxy.upstream.bodies.multipart import write_form
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.json_edits import write_json_edit
from proxy.upstream.dialects.protocol import ChatDialect, Dialect
from proxy.upstream.dialects.reasons import reading_of
from proxy.upstream.dialects.words import with_files
from proxy.upstream.errors.failures import error_for_status, error_in_answer
from proxy.upstream.errors.reports import read_report

PATHS: Mapping[Task, str] = {
    Task.GENERATION: "/images/generations",
    Task.EDIT: "/images/edits",
    Task.VARIATION: "/images/variations",
}


CHAT_PATH = "/chat/completions"
FORMS_OF_FILES = frozenset({EditForm.FILES, EditForm.UNMASKED_FILES})
NO_FIELDS: Mapping[str, Kind] = MappingProxyType({})


class OpenAIChat(ChatDialect):
    """Chat completions, as OpenAI and most others have them."""

    check: ChatCheck | None = None
    own_fields: Mapping[str, Kind] = NO_FIELDS

    def path(self, _request: ChatRequest, _model: Model) -> str:
        """The same for every model."""
        return CHAT_PATH

    def write(self, request: ChatRequest, model: Model) -> bytes:
        """The fields keep their names; the model takes the provider's, and a stream always reports its usage."""
        fields = {"model": model.upstream_model, **self.fields(request, model), **request.unknown}
        if request.stream:
            fields["stream_options"] = {**request.fields.get("stream_options", {}), "include_usage": True}
        return orjson.dumps(fields if model.wording is None else model.wording.of(fields))

    def fields(self, request: ChatRequest, _model: Model) -> Mapping[str, Any]:
        """What is forwarded of the fields that are known."""
        return request.fields

    @override
    def read(self, request: ChatRequest, head: ChatHead, *, comes_as_events: bool) -> Answer:
        """As it comes, scrubbed; what is no stream for a client that has asked for one becomes one, and vice versa."""
        if request.stream:
            kind = ChatEvents if comes_as_events else ChatChunk
            return kind(head, read_error, wants_usage=request.wants_usage, in_text=request.wants_image)
        if comes_as_events:
            return ChatTranslation(
                CHAT_READING, CompletionJson(head), comes_as_events=True, in_text=request.wants_image
            )
        return ChatJson(head, CHAT_READING, in_text=request.wants_image)


class OpenAIDialect(Dialect):
    """OpenAI's paths and words; what others add to them is read as well."""

    chat: OpenAIChat | None = OpenAIChat()
    abilities = frozenset(Ability)
    own_paths: Mapping[str, str] = {
        "generations": PATHS[Task.GENERATION],
        "edits": PATHS[Task.EDIT],
        "variations": PATHS[Task.VARIATION],
        "chat": CHAT_PATH,
    }

    @property
    @override
    def reading(self) -> Reading:
        return READING

    @override
    def images_at_once(self, _endpoint: str) -> int | None:
        return None

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A bearer token."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def images_path(self, request: ImageRequest, _model: Model) -> str:
        """The same for every model."""
        return PATHS[request.task]

    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        """The fields keep their names; the model takes the provider's.

        Where it lists only ``size``, that says what ``image_config`` asks for.
        """
        fields = _listed(request, model)
        return orjson.dumps(fields if model.wording is None else model.wording.of(fields))

    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """A form where files were uploaded, JSON where images are referred to; both have the same fields.

        A provider that takes edits otherwise gets them so.
        """
        fields, inputs = _listed(request, model), request.inputs
        form = EditForm.FORM if model.wording is None else model.wording.edits
        if "markup" not in model.parameters:
            inputs = replace(inputs, markup=None)
        if form in FORMS_OF_FILES:
            inputs = with_files(inputs)
        elif form is not EditForm.FORM:
            return write_json_edit(
                form, fields if model.wording is None else model.wording.of(fields), inputs, boundary
            )
        uploads = inputs.uploads
        if not uploads:
            fields["images"] = [_reference(image) for image in inputs.images]
            fields |= {name: _reference(given) for name, given in inputs.beside.items()}
        if model.wording is not None:
            fields = model.wording.of(fields)
        if not uploads:
            return OutgoingBody(JSON, [orjson.dumps(fields)])
        image = "image" if len(inputs.images) == 1 else "image[]"
        names = [*[image] * len(inputs.images), *inputs.beside, *(upload.name for upload in inputs.others)]
        texts = [text for name, value in fields.items() for text in _texts(name, value)]
        return write_form(boundary, texts, zip(names, uploads, strict=True))

    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """Errors come as ``{"error": {"message", "type", "param", "code"}}``."""
        return error_for_status(status, headers, read_report(body))


def _listed(request: ImageRequest, model: Model) -> dict[str, Any]:
    listed = {name: value for name, value in request.fields.items() if name in model.parameters}
    renamed = _renamed_config(request, model) if model.wording is not None else {}
    config = request.fields.get("image_config")
    if renamed:
        listed["image_config"] = {**listed.get("image_config", {}), **renamed}
        if config:
            # It says the same, in words that such a provider does not know.
            listed.pop("size", None)
    elif config and request.size is None and "size" in model.parameters and "image_config" not in model.parameters:
        size = to_size(config.get("aspect_ratio"), config.get("image_size"), model.four_k_long_edge)
        listed |= {} if size is None else {"size": size}
    if model.wording is not None and model.wording.splits_size:
        listed |= _sides(listed.pop("size", None), model.four_k_long_edge)
    prompt = {} if request.task is Task.VARIATION else {"prompt": request.prompt}
    return {"model": model.upstream_model, **prompt, **listed, **request.unknown}


def _sides(size: str | None, four_k_long_edge: int) -> Mapping[str, Any]:
    """A size as its two sides, for a provider that has a field for each; a word is a square."""
    pixels = size if size is None or "x" in size else to_size(None, size, four_k_long_edge)
    width, _, height = (pixels or "").partition("x")
    return {"size": {"width": int(width), "height": int(height)}} if width.isdigit() and height.isdigit() else {}


def _renamed_config(request: ImageRequest, model: Model) -> Mapping[str, str]:
    """The members of ``image_config`` that have names of their own at the provider, of which no ``size`` tells."""
    if model.wording is None or not (members := model.wording.image_config_members):
        return {}
    config = request.fields.get("image_config", {})
    if request.size is not None and "size" not in model.parameters:
        config = {**to_image_config(request.size, model.four_k_long_edge), **config}
    return {name: value for name, value in config.items() if name in members}


def _reference(given: Upload | Reference) -> dict[str, str]:
    if isinstance(given, Upload):
        raise TypeError("files go into a form")
    return {"image_url": given.image_url} if given.image_url is not None else {"file_id": given.file_id or ""}


def _texts(name: str, value: object) -> Iterator[tuple[str, str]]:
    """A value as forms have it: an object as a field for each member, as OpenAI's own packages write it.

    ``image_config``, which they do not have, is JSON.
    """
    if isinstance(value, dict) and name != "image_config":
        for inner, member in value.items():
            yield from _texts(f"{name}[{inner}]", member)
    else:
        yield name, value if isinstance(value, str) else orjson.dumps(value).decode()


def read_error(text: bytes) -> ProxyError:
    """The error that stands within an answer, as the JSON of its ``error``."""
    return error_in_answer(read_report(b'{"error":%b}' % text))


# --- A chat's chunks, put together ------------------------------------------------------------------------------------


def _read_end(notes: Mapping[str, bytes], _has_content: bool) -> ChatEnd | None:
    if "else" in notes or text_of(notes.get("refusal")):
        raise UpstreamUncertain(
            "The provider answered with a stream, which cannot be put together to what was asked for."
        )
    if "finish" in notes:
        return ChatEnd(text_of(notes["finish"]) or "stop")
    return ChatEnd("stop") if "done" in notes else None


def _read_usage(usage: bytes) -> Mapping[str, Any]:
    reported = orjson.loads(usage)
    return {
        name: reported[name]
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        if type(reported.get(name)) is int
    }


_ELSE = Shape(note="else")
_PART = Shape(element=True, payload=IMAGE, members=IMAGE_MEMBERS)
_PARTS = Shape(element=True, payload=IMAGE, items=_PART, members=IMAGE_MEMBERS)
_DELTA = Shape(
    members={
        b"content": Shape(
            element=True, payload=TEXT, items=_PART, members={**IMAGE_MEMBERS, b"parts": Shape(items=_PART)}
        ),
        **dict.fromkeys((b"images", b"image", b"image_url", b"multi_mod_content", b"parts"), _PARTS),
        **dict.fromkeys(URL_LISTS, Shape(items=Shape(payload=IMAGE))),
        **dict.fromkeys((b"inlineData", b"inline_data"), INLINE),
        **SIGNED,
        # What says that they are there: all of it may be too large to be noted.
        b"tool_calls": Shape(items=Shape(members=dict.fromkeys((b"index", b"id"), _ELSE))),
        b"function_call": Shape(members={b"name": _ELSE}),
        b"audio": Shape(members={b"id": _ELSE}),
        b"refusal": Shape(note="refusal"),
    }
)
_CHUNK_CHOICE = Shape(
    members={
        b"delta": _DELTA,
        b"message": _DELTA,
        b"finish_reason": Shape(note="finish"),
        b"error": Shape(note="error"),
    }
)
READING = reading_of(read_error)
CHAT_READING = ChatReading(
    Shape(
        members={
            b"choices": Shape(items=_CHUNK_CHOICE),
            b"usage": Shape(note="usage"),
            b"error": Shape(note="error"),
        }
    ),
    read_error,
    _read_end,
    _read_usage,
)
"""Text and images; whoever sends a tool call or a refusal in pieces that nobody asked for gets an error."""
