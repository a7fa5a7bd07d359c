"""The public API as ``/openapi.json`` describes it.

What a request may say is decided by ``domain.image_request``, which knows nothing of pydantic; a test holds the two
together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.domain.catalog import TOKENS_LIMIT
from proxy.domain.requests.edit import FILE_ID_LENGTH_LIMIT, IMAGES_LIMIT
from proxy.domain.requests.image import WORD_LENGTH_LIMIT
from proxy.domain.requests.size_words import ASPECT_RATIO_PATTERN, SIZE_PATTERN

NOT_BLANK = r"[^\s\x1c-\x1f\x85]"

Tokens = Annotated[int, Field(ge=1, le=TOKENS_LIMIT)]
Word = Annotated[str, Field(max_length=WORD_LENGTH_LIMIT)]
Size = Annotated[str, Field(max_length=WORD_LENGTH_LIMIT, pattern=SIZE_PATTERN)]
AspectRatio = Annotated[str, Field(max_length=WORD_LENGTH_LIMIT, pattern=ASPECT_RATIO_PATTERN)]


class _Wire(BaseModel):
    # The patterns look ahead, which pydantic's own engine does not.
    model_config = ConfigDict(extra="forbid", regex_engine="python-re")


class ErrorFacts(_Wire):
    """What is wrong. ``param`` names the field that it is about; ``code`` is the word that programs may compare."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(_Wire):
    """Every error, in OpenAI's form."""

    error: ErrorFacts


# --- POST /v1/images/generations --------------------------------------------------------------------------------------


class ImageConfig(_Wire):
    """Settings that no provider's name is on; ``image_size`` ``4K`` is the one that changes the price."""

    aspect_ratio: AspectRatio | None = None
    image_size: Size | None = None


class GenerationRequest(_Wire):
    """A request for images. Null is the same as left out; what the model's ``parameters`` do not list is not forwarded.

    ``model`` may be left out where the gateway has a ``default_model``. ``n`` is at most the model's ``max_n``.
    """

    model: Annotated[str, Field(pattern=NOT_BLANK, max_length=WORD_LENGTH_LIMIT)] | None = None
    prompt: Annotated[str, Field(pattern=NOT_BLANK)]
    n: Annotated[int, Field(ge=1)] | None = None
    size: Size | None = None
    quality: Word | None = None
    style: Word | None = None
    user: Word | None = None
    image_config: ImageConfig | None = None
    background: Word | None = None
    moderation: Word | None = None
    output_format: Word | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    response_format: Word | None = None
    stream: bool | None = None


# --- POST /v1/images/edits and /v1/images/variations ------------------------------------------------------------------


class LinkedImage(_Wire):
    """An image by its address: ``https:``, or ``data:`` in base64."""

    image_url: Annotated[str, Field(pattern=r"^([Hh][Tt][Tt][Pp][Ss]://|[Dd][Aa][Tt][Aa]:[Ii][Mm][Aa][Gg][Ee]/)")]
    file_id: None = None


class StoredImage(_Wire):
    """An image by the id of a file that its provider keeps."""

    file_id: Annotated[str, Field(pattern=NOT_BLANK, max_length=FILE_ID_LENGTH_LIMIT)]
    image_url: None = None


ImageReference = LinkedImage | StoredImage


class EditRequest(GenerationRequest):
    """A request for an edit of images that are elsewhere."""

    images: Annotated[list[ImageReference], Field(min_length=1, max_length=IMAGES_LIMIT)]
    mask: ImageReference | None = None
    input_fidelity: Word | None = None


def _no_nulls(schema: dict[str, Any]) -> None:
    """A form has no null: a field is there or is not."""
    for field in schema["properties"].values():
        field.pop("default", None)
        kinds = [kind for kind in field.pop("anyOf", ()) if kind != {"type": "null"}]
        field.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


File = Annotated[bytes, Field(min_length=1, json_schema_extra={"format": "binary"})]


class EditForm(GenerationRequest):
    """The same with files; several images are sent as ``image[]``. An empty text is the same as one left out.

    ``image_config`` is JSON, or two fields ``image_config[aspect_ratio]`` and ``image_config[image_size]``.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_no_nulls)

    image: File
    mask: File | None = None
    input_fidelity: Word | None = None


class VariationForm(_Wire):
    """A request for variations of one image."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_no_nulls)

    image: File
    model: Annotated[str, Field(pattern=NOT_BLANK, max_length=WORD_LENGTH_LIMIT)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: Size | None = None
    response_format: Word | None = None
    user: Word | None = None


# --- The answer to all of these ---------------------------------------------------------------------------------------


class Image(BaseModel):
    """One image: a ``url`` (``http:``, ``https:`` or ``data:image/``) or ``b64_json``, as its provider has it."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None
    media_type: str | None = None


class ImagesAnswer(BaseModel):
    """The provider's answer, with what is on the allow-list."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)

    created: int | None = None
    data: list[Image] | None = None
    background: str | None = None
    output_format: str | None = None
    quality: str | None = None
    size: str | None = None


# --- POST /v1/chat/completions ----------------------------------------------------------------------------------------


class ChatRequestFields(_Wire):
    """A chat request, with OpenAI's fields and ``image_config``; those that are not priced are passed on as they are.

    ``model`` may be left out where the gateway has a ``default_model``.
    """

    model: Annotated[str, Field(pattern=NOT_BLANK, max_length=WORD_LENGTH_LIMIT)] | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    modalities: list[str] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    image_config: ImageConfig | None = None
    audio: Any = None
    frequency_penalty: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    metadata: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    presence_penalty: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    safety_identifier: Any = None
    seed: Any = None
    service_tier: Any = None
    stop: Any = None
    store: Any = None
    temperature: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    top_p: Any = None
    user: Any = None
    verbosity: Any = None
    web_search_options: Any = None


class ChatAnswer(BaseModel):
    """The provider's answer, with what is on the allow-list; images are in ``message.images`` or in the content."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)

    id: Any = None
    object: Any = None
    created: Any = None
    model: str | None = None
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    system_fingerprint: Any = None
    service_tier: Any = None


# --- Models and the caller's key --------------------------------------------------------------------------------------


class ModelView(_Wire):
    """A model; ``created`` is in seconds since the epoch, and ``token_multiplier`` an exact decimal."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    token_multiplier: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]


class ModelList(_Wire):
    """The models that a key may use."""

    object: Literal["list"]
    data: list[ModelView]


class QuotaView(_Wire):
    """A limit in quota units, with the grants in it, and its counters; null is no limit."""

    limit: int | None
    posted: int
    reserved: int
    remaining: int | None


class WindowedQuotaView(QuotaView):
    """A limit of a UTC day (``YYYY-MM-DD``) or month (``YYYY-MM``)."""

    window: str


class PaceView(_Wire):
    """How many may come in a minute, how many could come now, and in how many seconds all of them could."""

    limit: int | None
    remaining: int | None
    reset_seconds: float


class ConcurrencyView(_Wire):
    """How many requests may be in progress at once."""

    limit: int | None
    in_progress: int
    remaining: int | None


class LimitsUsage(_Wire):
    """Every limit with its counters, of a key or a team."""

    quota_units: QuotaView
    quota_units_per_day: WindowedQuotaView
    quota_units_per_month: WindowedQuotaView
    requests_per_minute: PaceView
    images_per_minute: PaceView
    concurrent_requests: ConcurrencyView


class OwnLimits(LimitsUsage):
    """The same, and the models that may be used."""

    models: list[str]


class OwnKeyView(_Wire):
    """The caller's own key; what it may do, its team has to allow as well."""

    id: str
    team: str
    name: str
    limits: OwnLimits
    team_limits: OwnLimits
    images: int
    expires_at: str | None
