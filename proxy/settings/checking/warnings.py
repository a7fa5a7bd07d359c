"""What is good as it is, and probably not meant: prices that surprise, and settings without any effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from proxy.domain.catalog import Model
from proxy.domain.prices.settling import Prices, SettleBy
from proxy.domain.prices.table import OTHER, TASKS, Sizes
from proxy.settings.models import ModelSettings
from proxy.settings.providers import ProviderSettings
from proxy.upstream.dialects.polled import POLLED_DIALECTS

SIZE_FIELDS = ("size", "image_config")
POLLING = ("poll_interval", "max_poll_interval", "poll_hosts", "result_hosts")
"""Settings of providers that are polled."""


# --- Without any effect -----------------------------------------------------------------------------------------------


def warn_of_polling(providers: Sequence[ProviderSettings], models: Sequence[ModelSettings]) -> Iterator[str]:
    """One line for each provider and each model that says how it is polled, and is not."""
    polled = {provider.name for provider in providers if provider.dialect in POLLED_DIALECTS}
    for provider in providers:
        given = [name for name in POLLING if name in provider.model_fields_set]
        if given and provider.name not in polled:
            yield (
                f"{provider.name}: {', '.join(given)} {'have' if len(given) > 1 else 'has'} no effect: the dialect "
                f"{provider.dialect!r} is not polled"
            )
    for model in models:
        if "response_format" in model.model_fields_set and polled.isdisjoint(model.providers):
            yield f"{model.id}: response_format has no effect: no provider of it is polled"


def warn_of_settling(models: Sequence[ModelSettings]) -> Iterator[str]:
    """One line for each model with prices of tokens that nothing is charged by."""
    for model in models:
        if model.settle is not None and model.settle.per_million is not None and model.settle.by != SettleBy.USAGE:
            by = model.settle.by
            yield f'{model.id}: settle.per_million has no effect with by = "{by}"; by = "usage" charges by it'


# --- Prices -----------------------------------------------------------------------------------------------------------


def warn_of_prices(models: Sequence[Model]) -> Iterator[str]:
    """One line for each finding, led by the model's id."""
    for model in models:
        for warning in (*_free(model), *(() if model.prices is None else _of_table(model, model.prices))):
            yield f"{model.id}: {warning}"


def _free(model: Model) -> Iterator[str]:
    multiplier = f"{model.token_multiplier:f}"
    if not model.unit_price:
        yield f"token_multiplier is {multiplier}, which makes its unit price 0: its images cost nothing"
    elif model.prices is not None:
        for rule in model.prices.table.rules:
            if not model.prices.table.units_of(rule):
                yield f"prices: the rule '{rule.name}' makes a unit price of 0: such images cost nothing"


def _of_table(model: Model, prices: Prices) -> Iterator[str]:
    table = prices.table
    for rule in table.useless():
        yield (
            f"prices: the rule '{rule.name}' of base {rule.base_units} never wins: it cannot match, or another one "
            "that matches with it names more or is as dear; remove it"
        )
    named = {name for rule in table.rules for name in rule.conditions}
    if "quality" in named:
        yield from _of_values(model, prices, "quality", ("quality",))
    if "size" in named:
        yield from _of_values(model, prices, "size", SIZE_FIELDS)
    if prices.settling.by is SettleBy.USAGE:
        missing = [kind for kind, units in prices.settling.per_million.items() if not units]
        if missing:
            yield (
                f"settle.per_million: {', '.join(missing)} {'have' if len(missing) > 1 else 'has'} no price: by = "
                '"usage" charges nothing for these tokens'
            )


def _of_values(model: Model, prices: Prices, condition: str, fields: tuple[str, ...]) -> Iterator[str]:
    """``condition`` is what rules name, ``fields`` are those of a request that say it."""
    values = dict.fromkeys(
        str(rule.conditions[condition]) for rule in prices.table.rules if condition in rule.conditions
    )
    told = ", ".join(values)
    passed = [field for field in fields if field in model.parameters]
    wordings = [each for each in (model.wording, *(given.wording for given in model.deployments)) if each is not None]
    if condition == "size" and any("image_size" in wording.image_config_members for wording in wordings):
        passed.append("image_config.image_size")
    if not passed:
        yield (
            f"prices: rules name {condition} ({told}), and parameters do not list {' or '.join(fields)}: a client pays "
            "for what it names, and its provider never hears of it"
        )
    elif condition == "size" and model.sizes and {size.casefold() for size in model.sizes} <= set(values):
        return
    elif _falls_through(prices, condition):
        yield (
            f"prices: rules name {condition} for some values only ({told}), and parameters let others through "
            f"({', '.join(passed)}), which cost the 5,000 or 12,500 of no rule: add a rule without {condition}"
        )


def _falls_through(prices: Prices, condition: str) -> bool:
    """Whether some other value comes under no rule, of a task that a rule with this condition is for."""
    table = prices.table
    naming = [rule for rule in table.rules if condition in rule.conditions]
    tasks = TASKS if any(rule.task is None for rule in naming) else [rule.task for rule in naming if rule.task]
    qualities = {rule.quality for rule in table.rules if rule.quality is not None} if condition == "size" else set()
    return any(table.winner(task, quality, Sizes()) is None for task in tasks for quality in qualities or {OTHER})
