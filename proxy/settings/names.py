"""What models are called: other names of them, until when a name is good, and which others stand in for one."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from proxy.domain.catalog import Alias
from proxy.domain.retirement import Retirement
from proxy.settings.mistakes import ALIAS_TAG, MODEL_TAG
from proxy.settings.models import DeploymentSettings, ModelSettings, NamedSettings
from proxy.settings.values import ModelId


class AliasSettings(NamedSettings):
    """One ``[[models]]`` with ``alias_of``: all else is said by the model that it stands for."""

    alias_of: ModelId

    def to_alias(self) -> Alias:
        """The same, as the catalogue has it."""
        return Alias(self.id, self.alias_of)


def _tag(value: Any) -> str:
    is_alias = isinstance(value, AliasSettings) or (isinstance(value, dict) and "alias_of" in value)
    return ALIAS_TAG if is_alias else MODEL_TAG


AnyModel = Annotated[
    Annotated[ModelSettings, Tag(MODEL_TAG)] | Annotated[AliasSettings, Tag(ALIAS_TAG)], Discriminator(_tag)
]


def check_aliases(models: Sequence[ModelSettings | AliasSettings]) -> Iterator[str]:
    """Each has to name a model itself, so that there are no chains and no circles."""
    made = [model.id for model in models if isinstance(model, ModelSettings)]
    aliases = {model.id for model in models if isinstance(model, AliasSettings)}
    for index, model in enumerate(models):
        if not isinstance(model, AliasSettings) or model.alias_of in made:
            continue
        place = f"models[{index}].alias_of"
        if model.alias_of in aliases:
            yield f"{place}: {model.alias_of!r} is an alias itself: name the model that it stands for"
        else:
            yield f"{place}: no model has the id {model.alias_of!r}; there are {made}"


def retirements(models: Sequence[NamedSettings]) -> dict[str, Retirement]:
    """The ends of names that have one."""
    return {
        model.id: Retirement(model.retires.isoformat(), timegm(model.retires.timetuple()), model.replaced_by)
        for model in models
        if model.retires is not None
    }


def check_retirements(models: Sequence[ModelSettings | AliasSettings]) -> Iterator[str]:
    """Whoever is sent elsewhere has to find something there."""
    named = {model.id: model for model in models}
    for index, model in enumerate(models):
        if model.replaced_by is None:
            continue
        place, other = f"models[{index}].replaced_by", named.get(model.replaced_by)
        if model.retires is None:
            yield f"{place}: is given without retires, the day from which on the model is refused"
        elif other is None:
            yield f"{place}: no model has the id {model.replaced_by!r}; there are {[*named]}"
        elif model.id in (other.id, other.alias_of if isinstance(other, AliasSettings) else None):
            yield f"{place}: {other.id!r} is this model itself"
        elif other.retires is not None and other.retires <= model.retires:
            yield f"{place}: {other.id!r} retires on {other.retires}, which is no later"


def check_fallbacks(models: Sequence[ModelSettings | AliasSettings]) -> Iterator[str]:
    """A model cannot stand in for itself. Lists are not followed further, so that there is no other circle."""
    named = {model.id: model.alias_of if isinstance(model, AliasSettings) else model.id for model in models}
    for index, model in enumerate(models):
        seen = {model.id}
        for number, name in enumerate(model.fallback if isinstance(model, ModelSettings) else ()):
            place, real = f"models[{index}].fallback[{number}]", named.get(name)
            if real is None:
                yield f"{place}: no model has the id {name!r}; there are {[*named]}"
            elif real in seen:
                yield f"{place}: {name!r} is {'this model itself' if real == model.id else 'there already'}"
            seen.add(real or name)


def with_breakers(models: Sequence[ModelSettings | AliasSettings]) -> Iterator[ModelSettings]:
    """Those that are made somewhere. One that has a fallback, or is one, has its provider as its one deployment."""
    real = {model.id: model.alias_of if isinstance(model, AliasSettings) else model.id for model in models}
    made = [model for model in models if isinstance(model, ModelSettings)]
    related = {real[name] for model in made for name in model.fallback}
    for model in made:
        if model.provider is None or model.upstream_model is None or not (model.fallback or model.id in related):
            yield model
            continue
        deployment = DeploymentSettings(provider=model.provider, upstream_model=model.upstream_model)
        yield model.model_copy(update={"provider": None, "upstream_model": None, "deployments": (deployment,)})
