"""The models that this gateway offers, each with its prices worked out at start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, localcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from proxy.domain.errors import ModelNotFound
from proxy.domain.retirement import Retirement
from proxy.domain.wording import EditForm, Wording

if TYPE_CHECKING:
    from proxy.domain.prices.settling import Prices
    from proxy.domain.requests.kinds import Kind

BASE_UNITS = 5_000
BASE_UNITS_4K = 12_500
UNITS_LIMIT = 2**53
"""Lua counts in doubles: every figure must stay below this for sums to be exact."""

IMAGES_LIMIT = 10_000
"""In one answer, whatever was asked for; at the dearest price there is, their charge stays far below the above."""

DEFAULT_FOUR_K_LONG_EDGE = 3840

TOKENS_LIMIT = 2**31
"""Of one answer; at the dearest price there is, their charge stays below 2^53."""

DEFAULT_MAX_TEXT_TOKENS = 4_096

ChatCheck = Callable[[Mapping[str, Any]], None]


def unit_price(base_units: int, token_multiplier: Decimal) -> int:
    """Quota units for one image: ``ceil(base_units * token_multiplier)`` in exact decimals."""
    with localcontext() as context:
        context.prec = 60
        return int((base_units * token_multiplier).to_integral_value(rounding=ROUND_CEILING))


class Ability(StrEnum):
    """What a provider's dialect can be asked for beside images from a prompt."""

    EDITS = "edits"
    VARIATIONS = "variations"
    MASKS = "masks"
    LINKED_IMAGES = "linked_images"
    """Images that are edited may be given by an address, which the provider fetches."""

    FILE_IDS = "file_ids"
    """They may be given by the id of a file that the provider keeps."""


_ABILITIES_OF_EDITS: Mapping[EditForm, frozenset[Ability]] = {
    EditForm.FORM: frozenset(Ability),
    EditForm.FILES: frozenset({Ability.EDITS, Ability.VARIATIONS, Ability.MASKS}),
    EditForm.UNMASKED_FILES: frozenset({Ability.EDITS}),
    EditForm.IMAGE_OBJECTS: frozenset({Ability.EDITS, Ability.MASKS, Ability.LINKED_IMAGES}),
    EditForm.IMAGE_URLS: frozenset({Ability.EDITS, Ability.LINKED_IMAGES}),
    EditForm.INPUT_IMAGES: frozenset({Ability.EDITS}),
    EditForm.NONE: frozenset({Ability.LINKED_IMAGES}),
}


def abilities_of_edits(forms: Iterable[EditForm]) -> frozenset[Ability]:
    """What can be asked of providers that take the images of edits in all of these ``forms``."""
    return frozenset(Ability).intersection(*(_ABILITIES_OF_EDITS[form] for form in forms))


@dataclass(frozen=True, slots=True)
class Deployment:
    """One place where a model is made. Those of the lowest ``priority`` are asked first, in the ratio of ``weight``.

    ``wording`` is how requests there differ from those of the dialect, where they do.
    """

    provider: str
    upstream_model: str
    weight: int = 1
    priority: int = 0
    max_in_flight: int | None = None
    wording: Wording | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model on the public API, and where its requests go: to ``provider``, or to one of ``deployments``.

    ``parameters`` are the request fields that are forwarded. A request for more than ``images_at_once`` images becomes
    several at its provider, where that is given. ``endpoint`` is where a provider of several makes it: its ``images``
    endpoint, or ``chat``. ``four_k_long_edge`` is in pixels, 0 turns it off.
    ``sizes`` are all that it takes, any where there are none. ``unknown_parameters`` says what becomes of fields that
    nobody here knows: ``refuse``, ``drop`` or ``forward``.
    ``response_format`` is what images come as from a provider that gives addresses, where the request says nothing:
    ``url``, or ``b64_json``, for which they are fetched.
    ``fallback`` names models that may make it where none of its deployments can; each of these models has deployments.
    ``created`` is in seconds since the epoch. ``text`` says what a chat answer without an image costs: its ``tokens``,
    nothing (``free``), or nothing and one is not to be asked for (``refuse``). ``max_text_tokens`` is what a chat that
    sets no maximum itself reserves for its answer. ``chats`` is whether its provider's dialect knows chat,
    ``chat_fields`` are what a chat may say beside OpenAI's fields, ``chat_checks`` refuse the fields of one that the
    dialect has no words for (InvalidRequest), and ``abilities`` is what else it knows. ``extras`` are fields that the
    operator has added, and ``wording`` is how its requests differ from those of its dialect, where they do. ``prices``
    take the place of the two unit prices where a model has some of its own.
    """

    id: str
    provider: str
    upstream_model: str
    token_multiplier: Decimal
    parameters: frozenset[str]
    default_n: int = 1
    max_n: int = 10
    images_at_once: int | None = None
    endpoint: str = "images"
    four_k_long_edge: int = DEFAULT_FOUR_K_LONG_EDGE
    sizes: tuple[str, ...] = ()
    unknown_parameters: str = "refuse"
    response_format: str = "url"
    created: int = 0
    text: str = "tokens"
    max_text_tokens: int = DEFAULT_MAX_TEXT_TOKENS
    chats: bool = True
    abilities: frozenset[Ability] = frozenset()
    chat_checks: tuple[ChatCheck, ...] = ()
    chat_fields: Mapping[str, Kind] = field(default_factory=dict)
    extras: Mapping[str, Kind] = field(default_factory=dict)
    wording: Wording | None = None
    unit_price: int = 0
    unit_price_4k: int = 0
    prices: Prices | None = None
    deployments: tuple[Deployment, ...] = ()
    fallback: tuple[str, ...] = ()

    @property
    def least_units(self) -> int:
        """What no image costs less than, in quota units."""
        return self.unit_price if self.prices is None else self.prices.table.least_units

    @property
    def owned_by(self) -> str:
        """The part of the id before the slash, as OpenAI's list shows an owner."""
        return self.id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a model: what is asked for by it is that model's in all but the name that the client knows."""

    id: str
    alias_of: str


class Catalog:
    """The configured models. Replaced as a whole on reload, so that one request sees one state of it."""

    def __init__(
        self,
        models: Iterable[Model],
        default_model: str | None = None,
        aliases: Iterable[Alias] = (),
        retirements: Mapping[str, Retirement] | None = None,
    ) -> None:
        """Index the models by id; ``default_model`` serves requests that name none, ``aliases`` name models of them.

        ``retirements`` are those of models and aliases, by their names.
        """
        self.retirements: Mapping[str, Retirement] = retirements or {}
        self._models: Mapping[str, Model] = {model.id: model for model in models}
        self._named: Mapping[str, Model] = {
            **self._models, **{alias.id: self._models[alias.alias_of] for alias in aliases}
        }  # fmt: skip
        self.default_model = default_model
        self.takes_unknown = any(
            model.unknown_parameters != "refuse" or model.extras for model in self._models.values()
        )
        """Whether a field that nobody knows is good with any of them."""

        self.least_units = min((model.least_units for model in self._models.values()), default=0)
        """What the cheapest request costs, in quota units."""

    def replace(self, other: Catalog) -> None:
        """Take over the other catalogue's models."""
        self._models, self.default_model, self.least_units = other._models, other.default_model, other.least_units
        self._named, self.retirements = other._named, other.retirements
        self.takes_unknown = other.takes_unknown

    def get(self, model_id: str) -> Model:
        """The model of exactly this id or alias, or ModelNotFound."""
        model = self._named.get(model_id)
        if model is None:
            raise ModelNotFound(
                f"The model '{model_id[:100]}' does not exist; GET /v1/models lists those that do.", param="model"
            )
        return model

    def all(self) -> Iterable[Model]:
        """Every model, in the order of the configuration."""
        return self._models.values()

    def names(self, now_s: float) -> Iterator[tuple[str, Model]]:
        """Every name that a client may ask for at this time, in seconds since the epoch, with its model.

        Ids come in the order of the configuration, and aliases after them.
        """
        for name, model in self._named.items():
            retirement = self.retirement(name)
            if retirement is None or not retirement.has_come(now_s):
                yield name, model

    def all_names(self) -> Iterable[tuple[str, Model]]:
        """Every name with its model, retired ones too, in the order of ``names``."""
        return self._named.items()

    def retirement(self, name: str) -> Retirement | None:
        """When this name ends, or the model that it stands for, if that is earlier."""
        model = self._named.get(name)
        ends = [self.retirements.get(name), None if model is None else self.retirements.get(model.id)]
        return min((end for end in ends if end is not None), key=lambda end: end.at_s, default=None)

    def instead_of(self, model: Model, now_s: float) -> list[Model]:
        """The models of its ``fallback`` that are offered at this time, in seconds since the epoch."""
        found = []
        for name in model.fallback:
            retirement = self.retirement(name)
            if name in self._named and (retirement is None or not retirement.has_come(now_s)):
                found.append(self._named[name])
        return found

    def check_offered(self, name: str, now_s: float) -> None:
        """Refuse what has been retired at this time, in seconds since the epoch (ModelNotFound)."""
        retirement = self.retirement(name)
        if retirement is not None and retirement.has_come(now_s):
            raise ModelNotFound(retirement.tell(name, now_s), param="model")
