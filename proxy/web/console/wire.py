"""What the admin API answers to the console, as ``/openapi.json`` describes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from proxy.web.admin.wire import Time


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MinuteView(_View):
    """What was done in a minute: requests by outcome, images and units that were charged."""

    at: Time
    outcomes: dict[str, int]
    images: int
    quota_units: int


class ModelFigures(_View):
    """What was charged for a model."""

    images: int
    quota_units: int


class DayView(_View):
    """What was done on a UTC day."""

    day: str
    outcomes: dict[str, int]
    images: int
    quota_units: int
    by_model: dict[str, ModelFigures]


class GatewayView(_View):
    """How the gateway does now; own times are those of the last minutes, of all gateways on the store."""

    status: str
    in_flight: int
    connections: int
    journal_pending: int
    journal_parked: int
    own_p50_ms: float | None
    own_p99_ms: float | None


class ProviderFigures(_View):
    """What a provider was asked since the gateway started."""

    name: str
    requests: int
    failed: int
    out_of_credit: int


class DeploymentState(_View):
    """How the circuit breaker of a deployment stands: 0 closed, 1 half open, 2 open."""

    model: str
    provider: str
    state: int


class OverviewView(_View):
    """What the gateways on this store do. Where the store does not answer, minutes and days are empty."""

    at: Time
    gateway: GatewayView
    minutes: list[MinuteView]
    days: list[DayView]
    providers: list[ProviderFigures]
    deployments: list[DeploymentState]


class PlaceView(_View):
    """One place where a model is made."""

    provider: str
    upstream_model: str


class OfferView(BaseModel):
    """A model with its prices, as ``GET /v1/models`` shows it, and where it is made."""

    model_config = ConfigDict(extra="allow")

    id: str
    deployments: list[PlaceView]
    token_multiplier: str
    prices: list[dict[str, Any]]


class OfferList(_View):
    """Every model and alias."""

    data: list[OfferView]


class RecipeView(_View):
    """A provider's configuration as it works."""

    name: str
    about: str
    toml: str


class RecipeList(_View):
    """Those that there are."""

    data: list[RecipeView]


class PriceView(BaseModel):
    """What a request would reserve and be charged, and why; members with ``_usd`` stand beside units."""

    model_config = ConfigDict(extra="allow")

    model: str
    images: int
    rule: str
    why: str
    unit_price: int
    reserved: int
    settled_by: str
    answers: Annotated[list[dict[str, Any]], Field(description="Answers that may come, and what each is charged")]
