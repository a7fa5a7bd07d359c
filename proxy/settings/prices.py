"""``[[models.prices]]``, ``[models.inputs]`` and ``[models.settle]``: what a model costs by prices of its own."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from proxy.domain.catalog import IMAGES_LIMIT, TOKENS_LIMIT, UNITS_LIMIT, unit_price
from proxy.domain.prices.settling import COST_LIMIT_USD, MILLION, Prices, SettleBy, Settling
from proxy.domain.prices.table import OPEN_WORDS, TASKS, PriceTable, Rule, plain
from proxy.settings.sections import Section
from proxy.settings.values import Size, Whole, one_of

BASE_LIMIT = 10**12
PIXELS_LIMIT = 10**12


def _named(text: str) -> str:
    if plain(text) in OPEN_WORDS:
        raise ValueError('should name one: a request that says "auto" leaves it open, and matches no rule by it')
    return text.strip()


Units = Annotated[Whole, Field(ge=0, le=BASE_LIMIT)]


class PriceSettings(Section):
    """One ``[[models.prices]]``: base units of an image for which all that it names is so."""

    quality: Annotated[str, Field(max_length=64), AfterValidator(_named)] | None = None
    size: Annotated[Size, AfterValidator(_named)] | None = None
    task: Annotated[str, one_of(*TASKS)] | None = None
    min_pixels: Annotated[Whole, Field(ge=1, le=PIXELS_LIMIT)] | None = None
    base: Units

    def to_rule(self) -> Rule:
        """The same, as the table has it."""
        quality, size = (None if text is None else plain(text) for text in (self.quality, self.size))
        return Rule(self.base, quality, size, self.task, self.min_pixels, self.quality or "")


class InputSettings(Section):
    """``[models.inputs]``: base units of what a request brings along."""

    image: Units = 0


class TokenPriceSettings(Section):
    """``per_million``: base units of a million tokens of each kind."""

    input_text: Units = 0
    input_image: Units = 0
    output_text: Units = 0
    output_image: Units = 0


class SettleSettings(Section):
    """``[models.settle]``: what decides a charge."""

    by: Annotated[str, one_of(*SettleBy)] = SettleBy.IMAGES.value
    per_million: TokenPriceSettings | None = None

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        if self.by == SettleBy.USAGE and self.per_million is None:
            raise ValueError(
                'per_million: is missing: by = "usage" needs base units of a million tokens, '
                "like { input_text = 500_000, output_image = 3_000_000 }"
            )
        return self


class PricedSettings(Section):
    """The prices of one model."""

    token_multiplier: Decimal
    prices: Annotated[tuple[PriceSettings, ...], Field(max_length=100)] = ()
    inputs: InputSettings | None = None
    settle: SettleSettings | None = None

    def to_prices(self, four_k_long_edge: int, units_per_usd: Decimal | None, *, in_words: bool) -> Prices | None:
        """Worked out, or None for a model without any; its provider is asked for sizes ``in_words`` or not."""
        if not self.prices and self.inputs is None and self.settle is None:
            return None
        multiplier, settle = self.token_multiplier, self.settle or SettleSettings()
        per_million = {} if settle.per_million is None else settle.per_million.model_dump()
        return Prices(
            PriceTable((price.to_rule() for price in self.prices), multiplier, four_k_long_edge, in_words=in_words),
            unit_price((self.inputs or InputSettings()).image, multiplier),
            Settling(SettleBy(settle.by), multiplier, per_million, units_per_usd),
        )


def check_prices(model: PricedSettings, units_per_usd: Decimal | None) -> Iterator[str]:
    """What of a model's prices cannot be charged exactly, or at all."""
    most, multiplier = UNITS_LIMIT // 2, model.token_multiplier
    for place, price in enumerate(model.prices):
        if unit_price(price.base, multiplier) * IMAGES_LIMIT >= most:
            yield f"prices[{place}].base: is {price.base}: should be less than {_least(most, IMAGES_LIMIT, multiplier)}"
    if model.inputs is not None and unit_price(model.inputs.image, multiplier) * IMAGES_LIMIT >= most:
        given = model.inputs.image
        yield f"inputs.image: is {given}: should be less than {_least(most, IMAGES_LIMIT, multiplier)}"
    if model.settle is not None:
        yield from (f"settle.{mistake}" for mistake in _check_settling(model.settle, multiplier, units_per_usd))


def _check_settling(settle: SettleSettings, multiplier: Decimal, units_per_usd: Decimal | None) -> Iterator[str]:
    most = UNITS_LIMIT // 2
    if settle.per_million is not None:
        for kind, units in settle.per_million.model_dump().items():
            if units * multiplier * TOKENS_LIMIT >= most * MILLION:
                should_be = _least(most * MILLION, TOKENS_LIMIT, multiplier)
                yield f"per_million.{kind}: is {units}: should be less than {should_be}"
    if settle.by != SettleBy.COST:
        return
    if units_per_usd is None:
        yield 'by: is "cost", and accounting.units_per_usd is missing: set it to the quota units of one US dollar'
    elif units_per_usd * multiplier * COST_LIMIT_USD >= most:
        yield (
            f'by: is "cost": accounting.units_per_usd times token_multiplier, {units_per_usd * multiplier:,f}, should '
            f"be less than {most // COST_LIMIT_USD:,}, so that every charge is below 2^53"
        )


def _least(most: int, count: int, multiplier: Decimal) -> str:
    return f"{int(Decimal(most) / count / multiplier):,} at this token_multiplier, so that every charge is below 2^53"
