"""A model's price table: which rule an image falls under, and which is the dearest where a request leaves that open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from proxy.domain.catalog import BASE_UNITS, BASE_UNITS_4K, unit_price
from proxy.domain.requests.sizes import to_image_config

TASKS = ("generation", "edit", "variation", "chat")
DEFAULT = "default"
"""The name of the price where no rule matches."""

FOUR_K = "4k"
OPEN_WORDS = ("", "auto")
"""What leaves a quality or a size to the provider."""

OTHER = ""
"""A quality that no rule names."""

_KNOWN_LIMIT = 4_096
_pixels = re.compile(r"(\d+)[x×](\d+)")


def plain(text: str) -> str:
    """``text`` as words are compared: without case and blanks."""
    return "".join(text.split()).casefold()


def is_4k(word: str, four_k_long_edge: int) -> bool:
    """Whether a size, given as ``plain`` writes it, is 4K: the word, or a long edge of at least so many pixels."""
    if word == FOUR_K:
        return True
    pixels = _pixels.fullmatch(word)
    return pixels is not None and four_k_long_edge > 0 and max(int(pixels[1]), int(pixels[2])) >= four_k_long_edge


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a request names or an image has; ``pixels`` are those of the largest WIDTHxHEIGHT, 0 without one.

    ``names`` holds ``4k`` for all that is 4K.
    """

    names: frozenset[str] = frozenset()
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One price; each condition may be None, and the rule matches where all others do. ``base_units`` are of an image.

    ``quality`` and ``size`` are as ``plain`` writes them, ``task`` is one of ``TASKS``. ``quality_written`` is the
    quality as its provider knows it.
    """

    base_units: int
    quality: str | None = None
    size: str | None = None
    task: str | None = None
    min_pixels: int | None = None
    quality_written: str = field(default="", compare=False)

    @property
    def conditions(self) -> dict[str, str | int]:
        """Those that it names."""
        given = {"task": self.task, "quality": self.quality, "size": self.size, "min_pixels": self.min_pixels}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return " ".join(f"{name}={value}" for name, value in self.conditions.items()) or "any"

    def matches(self, task: str, quality: str, sizes: Sizes) -> bool:
        """Whether all that it names is so."""
        return (
            self.task in (None, task)
            and self.quality in (None, quality)
            and (self.size is None or self.size in sizes.names)
            and (self.min_pixels is None or self.min_pixels <= sizes.pixels)
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the price depends on. A ``quality`` or ``sizes`` of None is left to the provider."""

    task: str
    quality: str | None
    sizes: Sizes | None


@dataclass(frozen=True, slots=True)
class Price:
    """The ``rule`` that an image falls under, and the quota units that it costs."""

    rule: str
    units: int


class PriceTable:
    """The rules of one model, sorted, each with its price after ``token_multiplier``."""

    def __init__(
        self, rules: Iterable[Rule], token_multiplier: Decimal, four_k_long_edge: int, *, in_words: bool = False
    ) -> None:
        """``four_k_long_edge`` is in pixels. ``in_words`` is whether the provider is asked for 2K where a client asks
        for its pixels: a rule for the word then is one for them, too.
        """
        # The first that matches wins: the one with most conditions, and of those the dearest.
        self.rules = tuple(sorted(rules, key=lambda rule: (-len(rule.conditions), -rule.base_units)))
        self._four_k_long_edge = four_k_long_edge
        self.in_words = in_words
        self._prices = {rule: Price(rule.name, unit_price(rule.base_units, token_multiplier)) for rule in self.rules}
        self._default = Price(DEFAULT, unit_price(BASE_UNITS, token_multiplier))
        self._default_4k = Price(DEFAULT, unit_price(BASE_UNITS_4K, token_multiplier))
        self._qualities = frozenset(rule.quality for rule in self.rules if rule.quality is not None)
        self._qualities_written = {rule.quality: rule.quality_written for rule in self.rules if rule.quality_written}
        self._as_written = frozenset(rule.quality_written for rule in self.rules)
        self._names = frozenset({FOUR_K, *(rule.size for rule in self.rules if rule.size is not None)})
        self._edges = sorted({rule.min_pixels for rule in self.rules if rule.min_pixels is not None})
        self._known: dict[Wanted, Price] = {}
        self._given = (self.rules, token_multiplier, four_k_long_edge, in_words)

    def __eq__(self, other: object) -> bool:
        """By what it was made of: a model whose configuration is read again is the same model."""
        return self._given == other._given if isinstance(other, PriceTable) else NotImplemented

    def __hash__(self) -> int:
        """As it is compared."""
        return hash(self._given)

    @property
    def least_units(self) -> int:
        """What no image costs less than."""
        return min([self._default.units, *(price.units for price in self._prices.values())])

    def units_of(self, rule: Rule) -> int:
        """What an image costs under one of its rules, in quota units."""
        return self._prices[rule].units

    def quality_of(self, text: object) -> str | None:
        """A quality as rules are compared with it; None for what leaves it open."""
        word = plain(text) if isinstance(text, str) else ""
        return None if word in OPEN_WORDS else word

    def quality_written(self, text: str) -> str:
        """A quality as its provider knows it, where a rule names it; any other is left as it is."""
        if text in self._as_written:
            return text
        return self._qualities_written.get(plain(text), text)

    def sizes_of(self, *texts: str | None) -> Sizes | None:
        """The sizes that these name; None where all of them leave it open."""
        names: set[str] = set()
        pixels = 0
        for text in texts:
            word = plain(text or "")
            if word in OPEN_WORDS:
                continue
            names.add(word)
            if is_4k(word, self._four_k_long_edge):
                names.add(FOUR_K)
            if (size := _pixels.fullmatch(word)) is not None:
                pixels = max(pixels, int(size[1]) * int(size[2]))
                if self.in_words:
                    names.add(plain(to_image_config(word, self._four_k_long_edge).get("image_size", word)))
        return Sizes(frozenset(names), pixels) if names else None

    def price(self, wanted: Wanted) -> Price:
        """What an image costs; where something is left open, the dearest price that it may come to."""
        known = self._as_rules_see(wanted)
        found = self._known.get(known)
        if found is None:
            if len(self._known) == _KNOWN_LIMIT:
                self._known.clear()
            found = self._known[known] = self._work_out(known)
        return found

    def winner(self, task: str, quality: str, sizes: Sizes) -> Rule | None:
        """The rule that such an image falls under; None where none matches."""
        return next((rule for rule in self.rules if rule.matches(task, quality, sizes)), None)

    def may_match(self, rule: Rule, wanted: Wanted) -> bool:
        """Whether a rule matches what is named, and may match what is left open."""
        quality, sizes = wanted.quality, wanted.sizes
        its_quality = (rule.quality or OTHER) if quality is None else quality
        return rule.matches(wanted.task, its_quality, self._sizes_for(rule) if sizes is None else sizes)

    def useless(self) -> Iterator[Rule]:
        """Rules that never win: another one always matches with them, or they ask for what cannot be."""
        for rule in self.rules:
            quality, sizes = rule.quality or OTHER, self._sizes_for(rule)
            tasks = TASKS if rule.task is None else (rule.task,)
            # An equal one before it has the same price, and is another object.
            if not any(self.winner(task, quality, sizes) is rule for task in tasks):
                yield rule

    def _as_rules_see(self, wanted: Wanted) -> Wanted:
        quality, sizes = wanted.quality, wanted.sizes
        if quality is not None and quality not in self._qualities:
            quality = OTHER
        if sizes is not None:
            edge = max((each for each in self._edges if each <= sizes.pixels), default=0)
            sizes = Sizes(sizes.names & self._names, edge)
        return Wanted(wanted.task, quality, sizes)

    def _work_out(self, wanted: Wanted) -> Price:
        task, quality, sizes = wanted.task, wanted.quality, wanted.sizes
        prices = [self._named(task, OTHER if quality is None else quality, Sizes() if sizes is None else sizes)]
        if quality is None or sizes is None:
            # Each rule may come to apply as far as its own conditions go, unless what is named speaks against it.
            for rule in self.rules:
                its_quality = (rule.quality or OTHER) if quality is None else quality
                its_sizes = self._sizes_for(rule) if sizes is None else sizes
                if rule.matches(task, its_quality, its_sizes):
                    prices.append(self._named(task, its_quality, its_sizes))
        return max(prices, key=lambda price: price.units)

    def _named(self, task: str, quality: str, sizes: Sizes) -> Price:
        rule = self.winner(task, quality, sizes)
        if rule is not None:
            return self._prices[rule]
        return self._default_4k if FOUR_K in sizes.names else self._default

    def _sizes_for(self, rule: Rule) -> Sizes:
        """The least that a rule's own conditions ask of a size."""
        named = self.sizes_of(rule.size) or Sizes()
        # A word may stand beside pixels, or for them.
        if rule.min_pixels is None or named.pixels:
            return named
        edge = self._four_k_long_edge
        # So many pixels do not fit below the edge.
        is_large = edge > 0 and (edge - 1) ** 2 < rule.min_pixels
        return Sizes(named.names | ({FOUR_K} if is_large else set()), rule.min_pixels)
