"""What the public API answers, as ``/openapi.json`` describes it. What it may be asked is in ``domain.requests``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Usd = Annotated[str, Field(pattern=r"^-?[0-9]+\.[0-9]{2,6}$", description="US dollars")]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorFacts(_Wire):
    """What is wrong. ``param`` names the field that it is about; ``code`` is the word that programs may compare."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(_Wire):
    """Every error, in OpenAI's form."""

    error: ErrorFacts


# --- Images -----------------------------------------------------------------------------------------------------------


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


# --- Chat -------------------------------------------------------------------------------------------------------------


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


class ReferencePrice(_Wire):
    """What each reference image of an edit or a chat costs."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)

    quota_units: int
    quota_units_usd: Usd | None = None


class PriceView(ReferencePrice):
    """What an image costs for which all that is named is so: a ``quality``, a ``size``, a ``task``, ``min_pixels``.

    ``size`` ``4K`` is all that is 4K, by a long edge in pixels as well.
    """

    quality: str | None = None
    size: str | None = None
    task: Literal["generation", "edit", "variation", "chat"] | None = None
    min_pixels: int | None = None


class ModelView(_Wire):
    """A model; ``created`` is in seconds since the epoch, and ``token_multiplier`` an exact decimal.

    Another name of a model says by ``alias_of`` which one it stands for. From the UTC day ``retires`` on (YYYY-MM-DD)
    it is not offered any more, and ``replaced_by`` is what to ask for instead.

    An image costs the first of ``prices`` that matches; what a request leaves open is reserved at the dearest that may.
    ``settled_by`` says whether it is charged so (``images``), or by the provider's tokens (``usage``) or ``cost``.
    ``sizes`` and ``qualities`` are those that prices name, or all sizes that it takes where those are configured;
    ``parameters`` are the fields that are forwarded.
    """

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    token_multiplier: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]
    prices: list[PriceView]
    sizes: list[str]
    qualities: list[str]
    parameters: list[str]
    settled_by: Literal["images", "usage", "cost"]
    reference_image: ReferencePrice | None = None
    alias_of: str | None = None
    retires: str | None = None
    replaced_by: str | None = None


class ModelList(_Wire):
    """The models that a key may use."""

    object: Literal["list"]
    data: list[ModelView]


class QuotaView(_Wire):
    """A limit in quota units, with the grants in it, and its counters; null is no limit.

    The same in US dollars is there where ``accounting.units_per_usd`` is set.
    """

    limit: int | None
    posted: int
    reserved: int
    remaining: int | None
    limit_usd: Usd | None = None
    posted_usd: Usd | None = None
    reserved_usd: Usd | None = None
    remaining_usd: Usd | None = None


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


class UserLimitsUsage(_Wire):
    """Every limit of an end user with its counters, from when on each user has limits."""

    quota_units_per_day: WindowedQuotaView
    quota_units_per_month: WindowedQuotaView
    images_per_minute: PaceView
    concurrent_requests: ConcurrencyView


class OwnUserView(_Wire):
    """An end user of the key: what the key and its team let each user use; null where that is no limit of theirs."""

    id: str
    limits: UserLimitsUsage | None
    team_limits: UserLimitsUsage | None


class OwnKeyQuery(BaseModel):
    """``GET /v1/key``: ``user`` is the end user to tell of as well; empty for requests that name none.

    The header that names users to this gateway goes before it.
    """

    user: str | None = None


class OwnKeyView(_Wire):
    """The caller's own key; what it may do, its team has to allow as well.

    ``user`` is there where the query, or the header that names users to this gateway, names one.
    """

    id: str
    team: str
    name: str
    limits: OwnLimits
    team_limits: OwnLimits
    images: int
    expires_at: str | None
    user: OwnUserView | None = None


class OwnCharges(_Wire):
    """What was charged under one heading."""

    images: int
    quota_units: int
    quota_units_usd: Usd | None = None


class OwnUsageView(_Wire):
    """What the caller's own key was charged; days that are more than about 400 days past are one, ``earlier``."""

    id: str
    by_model: dict[str, OwnCharges]
    by_day: dict[str, OwnCharges]
