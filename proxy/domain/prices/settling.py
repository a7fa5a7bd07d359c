"""How a charge is found at a model that has prices of its own: by its table, by tokens, or by its provider's cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import ROUND_CEILING, Decimal, localcontext
from enum import StrEnum
from typing import TYPE_CHECKING

from proxy.domain.prices.table import PriceTable

if TYPE_CHECKING:
    from proxy.domain.usage import Tokens

MILLION = 10**6
COST_LIMIT_USD = 10_000
"""Of one answer; a report of more cannot be true."""


class SettleBy(StrEnum):
    """What decides a charge."""

    IMAGES = "images"
    USAGE = "usage"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class Settling:
    """How a charge is found. ``per_million`` are base units of a million tokens of each kind.

    Without ``units_per_usd`` no cost can be charged.
    """

    by: SettleBy = SettleBy.IMAGES
    token_multiplier: Decimal = Decimal(1)
    per_million: Mapping[str, int] = field(default_factory=dict)
    units_per_usd: Decimal | None = None

    def token_units(self, tokens: Tokens) -> int:
        """``ceil(sum(tokens x per_million) / 10^6 x token_multiplier)`` in exact decimals."""
        total = sum(count * self.per_million.get(kind, 0) for kind, count in asdict(tokens).items())
        return _exactly(Decimal(total), self.token_multiplier, Decimal(1).scaleb(-6))

    def cost_units(self, cost_usd: Decimal) -> int | None:
        """``ceil(cost x units_per_usd x token_multiplier)`` in exact decimals; None for a cost that cannot be true."""
        if self.units_per_usd is None or cost_usd > COST_LIMIT_USD:
            return None
        return _exactly(cost_usd, self.units_per_usd, self.token_multiplier)


def _exactly(*factors: Decimal) -> int:
    with localcontext() as context:
        context.prec = 200
        product = Decimal(1)
        for factor in factors:
            product *= factor
        return int(product.to_integral_value(rounding=ROUND_CEILING))


BY_IMAGES = Settling()


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model costs by its own prices; ``reference_units`` are those of one reference image."""

    table: PriceTable
    reference_units: int = 0
    settling: Settling = BY_IMAGES
