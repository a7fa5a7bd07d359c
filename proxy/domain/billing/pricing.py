"""What a request would cost, before anything is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from proxy.domain.billing.charges import AgreedPrices
from proxy.domain.catalog import TOKENS_LIMIT, UNITS_LIMIT, Model, unit_price
from proxy.domain.errors import InvalidRequest
from proxy.domain.parsing.image_header import Size
from proxy.domain.prices.settling import Prices
from proxy.domain.prices.table import Price, PriceTable, Wanted, is_4k, plain
from proxy.domain.records import record
from proxy.domain.requests.chat import ChatRequest, count_images
from proxy.domain.requests.image import ImageRequest, Task
from proxy.domain.requests.sizes import SIZES_REMEMBERED, AskedSize, asked_size, to_size
from proxy.domain.usage import total_tokens

CHAT = "chat"
TASK_NAMES = {Task.GENERATION: "generation", Task.EDIT: "edit", Task.VARIATION: "variation"}
"""What a price rule calls them."""

QUOTES_REMEMBERED = 1_024


class Tier(StrEnum):
    """The two prices there are."""

    STANDARD = "standard"
    FOUR_K = "4k"


@record
class Quote:
    """``units`` are reserved: ``images`` x ``unit_price``, or what the text of a chat may cost where that is more.

    ``reference_units`` of them are for the ``reference_images`` that it starts from. ``rule`` names the price of a
    model that has a table, and ``wanted`` is what it was looked up by. All numbers are integers below 2^53.
    """

    images: int
    unit_price: int
    units: int
    tier: Tier
    reference_images: int = 0
    reference_units: int = 0
    rule: str = ""
    wanted: Wanted | None = field(default=None, compare=False)

    def units_for(self, images: int) -> int:
        """What so many images cost at this price; nothing where there is none."""
        return images * self.unit_price + self.reference_units if images else 0


def price(request: ImageRequest | ChatRequest, model: Model) -> Quote:
    """What ``request`` reserves: the images asked for, or the model's ``default_n``, at the price of their tier.

    A chat whose text is charged reserves what its prompt and its answer may cost, where that is more.
    """
    tier = tier_of(request, model.four_k_long_edge)
    images = model.default_n if request.n is None else request.n
    if model.prices is not None:
        return _price_by_table(request, model, model.prices, images, tier)
    units_each = model.unit_price_4k if tier is Tier.FOUR_K else model.unit_price
    units = images * units_each
    if isinstance(request, ChatRequest) and model.text == "tokens":
        units = max(units, _most_text_units(request, model))
    return _quote(images, units_each, units, tier)


@lru_cache(QUOTES_REMEMBERED)
def _quote(images: int, unit_price_units: int, units: int, tier: Tier) -> Quote:
    """The same object for the same price, for the store looks up by it what it has packed before."""
    return Quote(images, unit_price_units, units, tier)


def _price_by_table(
    request: ImageRequest | ChatRequest, model: Model, prices: Prices, images: int, tier: Tier
) -> Quote:
    wanted = _wanted(request, model, prices)
    price = prices.table.price(wanted)
    references = _reference_images(request) if prices.reference_units else 0
    reference_units = references * prices.reference_units
    units = images * price.units + reference_units
    if isinstance(request, ChatRequest) and model.text == "tokens":
        units = max(units, _most_text_units(request, model))
    if units >= UNITS_LIMIT // 2:
        raise InvalidRequest(
            f"{references} reference images cost more than can be charged; send fewer.",
            param="messages" if isinstance(request, ChatRequest) else "image",
        )
    return Quote(images, price.units, units, tier, references, reference_units, price.rule, wanted)


def _wanted(request: ImageRequest | ChatRequest, model: Model, prices: Prices) -> Wanted:
    """What ``request`` is priced by: what it names, in its own words and in those that its provider is asked in."""
    table = prices.table
    if isinstance(request, ChatRequest):
        return Wanted(CHAT, None, table.sizes_of(request.image_size))
    quality = table.quality_of(request.fields.get("quality"))
    sizes = table.sizes_of(request.size, request.image_size, _size_written(request, model, table))
    return Wanted(TASK_NAMES[request.task], quality, sizes)


def _size_written(request: ImageRequest, model: Model, table: PriceTable) -> str | None:
    """The pixels that a provider is asked for which knows no ``image_config``."""
    is_written = "size" in model.parameters and "image_config" not in model.parameters and not table.in_words
    if request.image_size is None or request.size is not None or not is_written:
        return None
    config = request.fields.get("image_config") or {}
    return to_size(config.get("aspect_ratio"), request.image_size, model.four_k_long_edge)


def _most_text_units(request: ChatRequest, model: Model) -> int:
    completion_tokens = request.max_tokens or model.max_text_tokens
    # An answer that reports more tokens than the limit is not charged for them.
    return unit_price(min(request.prompt_tokens + completion_tokens, TOKENS_LIMIT), model.token_multiplier)


def _reference_images(request: ImageRequest | ChatRequest) -> int:
    """Those that an edit or a chat starts from; the image that a variation varies is none."""
    if isinstance(request, ChatRequest):
        return count_images(request.fields.get("messages", ()))
    return len(request.inputs.images) if request.task is Task.EDIT else 0


def tier_of(request: ImageRequest | ChatRequest, four_k_long_edge: int) -> Tier:
    """The dearer of what ``size`` and ``image_config.image_size`` say."""
    return _tier(request.size, request.image_size, four_k_long_edge)


@lru_cache(SIZES_REMEMBERED)
def _tier(size: str | None, image_size: str | None, four_k_long_edge: int) -> Tier:
    return Tier.FOUR_K if any(_is_4k(each, four_k_long_edge) for each in (size, image_size)) else Tier.STANDARD


@record
class TierCharge:
    """``images`` that were charged ``unit_price`` each."""

    tier: Tier
    images: int
    unit_price: int


@record
class DeliveredPrices:
    """What an image costs by the size that it came in: ``unit_price``, or from a long edge in pixels on the other.

    Where the size is unknown, or ``four_k_long_edge`` is 0, it costs what the tier that was ``requested`` does.
    """

    unit_price: int
    unit_price_4k: int
    four_k_long_edge: int
    requested: Tier

    def charges(self, sizes: Sequence[Size | None], images: int) -> tuple[TierCharge, ...]:
        """Each tier of which there are any among ``images``, of which the first have these ``sizes``."""
        edge = self.four_k_long_edge
        known = [max(size) for size in sizes if size is not None] if edge else []
        counts = {Tier.STANDARD: 0, Tier.FOUR_K: sum(long_edge >= edge for long_edge in known)}
        counts[Tier.STANDARD] = len(known) - counts[Tier.FOUR_K]
        counts[self.requested] += images - len(known)
        prices = {Tier.STANDARD: self.unit_price, Tier.FOUR_K: self.unit_price_4k}
        return tuple(TierCharge(tier, count, prices[tier]) for tier, count in counts.items() if count)


@record
class Terms:
    """What a request is charged by beside its quote; made once, when it is priced.

    An image costs what the quote says, or by its own size where there are ``delivered_prices``. An answer without an
    image costs ``ceil(total tokens × text_multiplier)`` in exact decimals, nothing where there is no multiplier.
    ``prices`` are those of a model that has some of its own.
    ``asked_size`` is what images are compared with. An answer of at most ``kept_answer_bytes`` bytes is kept for a
    client that has named its request.
    """

    delivered_prices: DeliveredPrices | None = None
    text_multiplier: Decimal | None = None
    asked_size: AskedSize | None = None
    kept_answer_bytes: int = 0
    prices: AgreedPrices | None = None

    def text_units(self, usage: bytes | None) -> int:
        """What an answer without an image costs, by the provider's usage as JSON."""
        if self.text_multiplier is None:
            return 0
        return unit_price(total_tokens(usage), self.text_multiplier)


NO_TERMS = Terms()
"""Images cost what the quote says, and text nothing."""


def agree(
    request: ImageRequest | ChatRequest, model: Model, quote: Quote, *, by_delivered_size: bool, kept_answer_bytes: int
) -> Terms:
    """The terms of a request that costs ``quote``; images are charged by the size asked for, or delivered."""
    delivered_prices = agreed = None
    if model.prices is not None and quote.wanted is not None:
        reserved = Price(quote.rule, quote.unit_price)
        agreed = AgreedPrices(model.prices, quote.wanted, reserved, quote.reference_images, by_delivered_size)
    elif by_delivered_size:
        delivered_prices = DeliveredPrices(
            model.unit_price, model.unit_price_4k, model.four_k_long_edge, requested=quote.tier
        )
    charges_text = isinstance(request, ChatRequest) and model.text == "tokens"
    return Terms(
        delivered_prices,
        model.token_multiplier if charges_text else None,
        asked_size(request.size, request.image_size),
        kept_answer_bytes,
        agreed,
    )


def _is_4k(size: str | None, four_k_long_edge: int) -> bool:
    # A provider may accept blanks and either case, so they must not be a way round the price.
    return bool(size) and is_4k(plain(size or ""), four_k_long_edge)
