"""What images cost at a model that has prices of its own: by its table, by tokens, or by what its provider charges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from proxy.domain.catalog import TOKENS_LIMIT
from proxy.domain.parsing.image_header import Size
from proxy.domain.prices.settling import Prices, SettleBy
from proxy.domain.prices.table import Price, Wanted
from proxy.domain.usage import Tokens, reported_cost, tokens_by_kind

Told = tuple[str, str]
"""What an answer says of an image: its quality and its size, empty where it does not."""

Basis = Mapping[str, Any]
"""By what a request was charged, as the ledger has it."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a request. ``told`` and ``sizes`` are those of its first images.

    ``usage`` is the provider's account as JSON; where several requests to it made the answer, ``reports`` has the
    images and the account of each, in the order of the images.
    """

    images: int
    told: Sequence[Told] = ()
    sizes: Sequence[Size | None] = ()
    usage: bytes | None = None
    reports: Sequence[tuple[int, bytes | None]] = ()


@dataclass(frozen=True, slots=True)
class Charge:
    """Quota units for the images of an answer, and by what they were charged."""

    units: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class _Figures:
    """What reports add up to, in quota units and as the ledger has it; ``silent`` are those that say nothing of it."""

    units: int
    basis: Basis
    silent: Sequence[bool]


@dataclass(frozen=True, slots=True)
class AgreedPrices:
    """The prices of one request, as they stood when it was admitted. An image reserved ``reserved``.

    An image whose pixels are known costs what their size does ``by_delivered_size``.
    """

    prices: Prices
    wanted: Wanted
    reserved: Price
    reference_images: int = 0
    by_delivered_size: bool = False

    def charge(self, made: Made) -> Charge:
        """What an answer with images costs."""
        by, reports = self.prices.settling.by, made.reports or ((made.images, made.usage),)
        if by is SettleBy.USAGE:
            figures = self._by_tokens([tokens_by_kind(usage) for _, usage in reports])
        elif by is SettleBy.COST:
            figures = self._by_cost([reported_cost(usage) for _, usage in reports])
        else:
            figures = None
        return self._by_table(made) if figures is None else self._reported(made, reports, figures)

    def _by_tokens(self, reported: Sequence[Tokens | None]) -> _Figures | None:
        known = [tokens for tokens in reported if tokens is not None]
        total = Tokens(*(sum(counts) for counts in zip(*map(astuple, known), strict=True)))
        if not 0 < sum(astuple(total)) <= TOKENS_LIMIT:
            return None
        counts = {kind: count for kind, count in asdict(total).items() if count}
        return _Figures(
            self.prices.settling.token_units(total), {"tokens": counts}, [each is None for each in reported]
        )

    def _by_cost(self, reported: Sequence[Decimal | None]) -> _Figures | None:
        known = [cost_usd for cost_usd in reported if cost_usd is not None]
        total = sum(known, Decimal(0))
        units = self.prices.settling.cost_units(total) if known else None
        if units is None:
            return None
        return _Figures(units, {"cost_usd": f"{total:f}"}, [each is None for each in reported])

    def _reported(self, made: Made, reports: Sequence[tuple[int, bytes | None]], figures: _Figures) -> Charge:
        basis = {"by": self.prices.settling.by.value, **figures.basis}
        others: Counter[Price] = Counter()
        first = 0
        for (images, _), is_silent in zip(reports, figures.silent, strict=True):
            last = min(first + images, made.images)
            if is_silent:
                # Of several requests to a provider, this one has not said what it took.
                others.update(self._images(Made(last - first, made.told[first:last], made.sizes[first:last])))
            first = last
        if not others:
            return Charge(figures.units, basis)
        return Charge(figures.units + _sum(others), {**basis, "unreported": _rows(others)})

    def _by_table(self, made: Made) -> Charge:
        counts = self._images(made)
        basis: dict[str, Any] = {"by": SettleBy.IMAGES.value, "prices": _rows(counts)}
        units = _sum(counts)
        if self.reference_images and self.prices.reference_units:
            basis["references"] = {"images": self.reference_images, "unit_price": self.prices.reference_units}
            units += self.reference_images * self.prices.reference_units
        return Charge(units, basis)

    def _images(self, made: Made) -> Mapping[Price, int]:
        """How many images there are at each price."""
        sizes = made.sizes[: made.images] if self.by_delivered_size else ()
        alike = Counter(zip_longest(made.told[: made.images], sizes))
        counts: Counter[Price] = Counter()
        for (told, size), images in alike.items():
            counts[self._price(told or ("", ""), size)] += images
        if (rest := made.images - alike.total()) > 0:
            counts[self.reserved] += rest
        return counts

    def _price(self, told: Told, size: Size | None) -> Price:
        table, wanted = self.prices.table, self.wanted
        quality = table.quality_of(told[0]) if wanted.quality is None else wanted.quality
        sizes, is_measured = wanted.sizes, self.by_delivered_size and size is not None
        if is_measured and size is not None:
            sizes = table.sizes_of(f"{size[0]}x{size[1]}")
        elif sizes is None:
            sizes = table.sizes_of(told[1])
        price = table.price(Wanted(wanted.task, quality, sizes))
        # Only a size that was asked for may turn out larger; what was left open was reserved at its dearest.
        may_exceed = is_measured and wanted.sizes is not None
        return price if may_exceed else Price(price.rule, min(price.units, self.reserved.units))


def _sum(counts: Mapping[Price, int]) -> int:
    return sum(price.units * images for price, images in counts.items())


def _rows(counts: Mapping[Price, int]) -> list[dict[str, Any]]:
    return [{"rule": price.rule, "images": images, "unit_price": price.units} for price, images in counts.items()]
