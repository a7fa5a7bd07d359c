"""One ``[[models]]`` of the configuration."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, model_validator

from proxy.domain.catalog import (
    BASE_UNITS,
    BASE_UNITS_4K,
    DEFAULT_FOUR_K_LONG_EDGE,
    DEFAULT_MAX_TEXT_TOKENS,
    TOKENS_LIMIT,
    Ability,
    Deployment,
    Model,
    abilities_of_edits,
    unit_price,
)
from proxy.domain.requests.image import LISTED_PARAMETERS
from proxy.domain.requests.kinds import Kind
from proxy.domain.requests.unknown import DROP, FORWARD, REFUSE
from proxy.domain.wording import EditForm, Wording
from proxy.settings.prices import PricedSettings, check_prices
from proxy.settings.sections import Section
from proxy.settings.values import Day, ModelId, Multiplier, Name, Parameter, Size, Whole, one_of
from proxy.settings.wording import Constants, Extras, Renames, Words, check_wording, kinds_of, wording_of
from proxy.upstream.dialects.protocol import ChatDialect, Dialect


class DeploymentSettings(Section):
    """One ``[[models.deployments]]``."""

    provider: Name
    upstream_model: Name
    weight: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    priority: Annotated[Whole, Field(ge=0, le=1_000)] = 0
    max_in_flight: Annotated[Whole, Field(ge=1, le=100_000)] | None = None

    def to_deployment(self, wording: Wording | None) -> Deployment:
        """The same, as the catalogue has it."""
        return Deployment(**self.model_dump(), wording=wording)


class NamedSettings(Section):
    """What every ``[[models]]`` has: what clients ask for, until when, and what they ask for then."""

    id: ModelId
    retires: Day | None = None
    replaced_by: ModelId | None = None


class ModelSettings(NamedSettings, PricedSettings):
    """One ``[[models]]`` that is made somewhere."""

    provider: Name | None = None
    upstream_model: Name | None = None
    deployments: Annotated[tuple[DeploymentSettings, ...], Field(max_length=100)] = ()
    token_multiplier: Multiplier
    default_n: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    max_n: Annotated[Whole, Field(ge=1, le=1_000)] = 10
    images_at_once: Annotated[Whole, Field(ge=1, le=1_000)] | None = None
    endpoint: Annotated[str, one_of("images", "chat")] = "images"
    four_k_long_edge: Annotated[Whole, Field(ge=0, le=1_000_000)] = DEFAULT_FOUR_K_LONG_EDGE
    sizes: Annotated[tuple[Size, ...], Field(max_length=100)] = ()
    linked_images: bool = True
    unknown_parameters: Annotated[str, one_of(REFUSE, DROP, FORWARD)] = REFUSE
    response_format: Annotated[str, one_of("url", "b64_json")] = "url"
    parameters: tuple[Parameter, ...] = ("n", "size")
    extra_parameters: Extras = Field(default_factory=dict)
    rename: Renames = Field(default_factory=dict)
    words: Words = Field(default_factory=dict)
    constants: Constants = Field(default_factory=dict)
    created: Annotated[Whole, Field(ge=0)] = 0
    text: Annotated[str, one_of("tokens", "free", "refuse")] = "tokens"
    max_text_tokens: Annotated[Whole, Field(ge=1, le=TOKENS_LIMIT)] = DEFAULT_MAX_TEXT_TOKENS
    fallback: Annotated[tuple[ModelId, ...], Field(max_length=10)] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.default_n > self.max_n:
            raise ValueError(f"default_n is {self.default_n}, which is more than max_n, {self.max_n}")
        return self

    @property
    def providers(self) -> list[str]:
        """The names of the providers that it is asked for at."""
        return [self.provider] if self.provider else [each.provider for each in self.deployments]

    def to_model(
        self,
        dialects: Sequence[Dialect],
        units_per_usd: Decimal | None = None,
        not_named_at: Container[str] = (),
        edits_at: Mapping[str, EditForm] = MappingProxyType({}),
    ) -> Model:
        """The model with its prices worked out; whoever is asked speaks one of ``dialects``.

        No request names it at the providers of ``not_named_at``; ``edits_at`` is how each takes the images of edits.
        """

        def worded_at(provider: str) -> Wording | None:
            form = edits_at.get(provider, EditForm.FORM)
            named = provider not in not_named_at
            return wording_of(self.rename, self.words, self.constants, names_model=named, edits=form)

        in_words = "image_config.image_size" in self.rename or any(dialect.sizes_in_words for dialect in dialects)
        limits = (self.images_at_once, *(dialect.images_at_once(self.endpoint) for dialect in dialects))
        at_once = [most for most in limits if most is not None]
        chats = [dialect.chat for dialect in dialects]
        return Model(
            id=self.id,
            provider=self.provider or self.deployments[0].provider,
            upstream_model=self.upstream_model or self.deployments[0].upstream_model,
            deployments=tuple(given.to_deployment(worded_at(given.provider)) for given in self.deployments),
            wording=worded_at(self.provider) if self.provider else None,
            extras=kinds_of(self.extra_parameters),
            token_multiplier=self.token_multiplier,
            parameters=frozenset({*self.parameters, *(LISTED_PARAMETERS & self.extra_parameters.keys())}),
            default_n=self.default_n,
            max_n=self.max_n,
            images_at_once=min(at_once, default=None),
            endpoint=self.endpoint,
            four_k_long_edge=self.four_k_long_edge,
            sizes=self.sizes,
            unknown_parameters=self.unknown_parameters,
            response_format=self.response_format,
            created=self.created,
            text=self.text,
            max_text_tokens=self.max_text_tokens,
            fallback=self.fallback,
            chats=all(chat is not None for chat in chats),
            chat_checks=tuple({chat.check: None for chat in chats if chat is not None and chat.check is not None}),
            chat_fields=_own_fields(chats),
            abilities=frozenset.intersection(*(dialect.abilities for dialect in dialects))
            & abilities_of_edits(edits_at.get(name, EditForm.FORM) for name in self.providers)
            - ({Ability.LINKED_IMAGES} if not self.linked_images else set()),
            unit_price=unit_price(BASE_UNITS, self.token_multiplier),
            unit_price_4k=unit_price(BASE_UNITS_4K, self.token_multiplier),
            prices=self.to_prices(self.four_k_long_edge, units_per_usd, in_words=in_words),
        )


def _own_fields(chats: Sequence[ChatDialect | None]) -> Mapping[str, Kind]:
    """The fields beside OpenAI's that whoever is asked knows."""
    tables = [chat.own_fields if chat is not None else {} for chat in chats]
    return {name: kind for name, kind in tables[0].items() if all(name in table for table in tables)}


def check_models(
    models: Sequence[NamedSettings],
    dialects: Mapping[str, str],
    default_model: str | None,
    units_per_usd: Decimal | None = None,
) -> Iterator[str]:
    """What is wrong with them together, and with where they are made: ``dialects`` are those of the providers.

    ``units_per_usd`` is what a US dollar is in quota units, where that is set.
    """
    ids = [model.id for model in models]
    for index, model in enumerate(models):
        if ids.index(model.id) != index:
            yield f"models[{index}].id: there is another model {model.id!r}"
        if isinstance(model, ModelSettings):
            spoken = [dialects[name] for name in model.providers if name in dialects]
            mistakes = (
                *_check_deployments(model, [*dialects]),
                *check_prices(model, units_per_usd),
                *check_wording(model.rename, model.constants, model.extra_parameters, model.parameters, spoken),
            )
            yield from (f"models[{index}].{mistake}" for mistake in mistakes)
    if default_model is not None and default_model not in ids:
        yield f"server.default_model: no model has the id {default_model!r}; there are {ids}"
    if not ids:
        yield "models: there is none; add a [[models]] with id, provider, upstream_model and token_multiplier"


def _check_deployments(model: ModelSettings, names: list[str]) -> Iterator[str]:
    simple = {"provider": model.provider, "upstream_model": model.upstream_model}
    for key, value in simple.items():
        if value is None and not model.deployments:
            yield f"{key}: is missing"
        elif value is not None and model.deployments:
            yield f"{key}: is given beside [[models.deployments]]: it belongs into one of them"
        elif key == "provider" and value not in names and not model.deployments:
            yield f"provider: no provider is named {value!r}; there are {names}"
    asked = [deployment.provider for deployment in model.deployments]
    for place, name in enumerate(asked):
        if name not in names:
            yield f"deployments[{place}].provider: no provider is named {name!r}; there are {names}"
        elif asked.index(name) != place:
            yield (
                f"deployments[{place}].provider: there is another deployment at {name!r}: metrics distinguish them by "
                "provider; for a second one, add a [[providers]] of another name"
            )
