"""US dollars beside quota units: shown, and read where a limit is given in them. Units stay the only truth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

USD_PATTERN = r"\$(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?"
"""How dollars are written: ``$250``, ``$0.05``."""

_usd = re.compile(f"-?{USD_PATTERN}")
_MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Money:
    """``units_per_usd`` is what a US dollar is in quota units; None where that is not set, and none are shown."""

    units_per_usd: Decimal | None = None

    def usd(self, units: int) -> str | None:
        """So many units in dollars, to the millionth: at least two places, as ``0.05`` and ``12.345``."""
        if self.units_per_usd is None:
            return None
        with localcontext() as context:
            context.prec = 60
            dollars = (units / self.units_per_usd).quantize(_MICRO, ROUND_HALF_EVEN)
        whole, _, fraction = f"{abs(dollars):f}".partition(".")
        return f"{'-' if dollars < 0 else ''}{whole}.{fraction.rstrip('0').ljust(2, '0')}"

    def units(self, text: str) -> int:
        """The quota units of dollars written as ``$250``, rounded towards zero. Raises ValueError."""
        if not _usd.fullmatch(text):
            raise ValueError('should be a whole number of quota units, or US dollars like "$250" or "$0.05"')
        if self.units_per_usd is None:
            raise ValueError("is in US dollars: set accounting.units_per_usd of the gateway, or give quota units")
        with localcontext() as context:
            context.prec = 60
            units = Decimal(text.replace("$", "")) * self.units_per_usd
            return int(units.to_integral_value(ROUND_DOWN))

    def beside(self, view: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """``view`` with dollars beside each of ``names`` that it has: ``charged`` and ``charged_usd``."""
        shown = dict(view)
        if self.units_per_usd is not None:
            for name in names:
                if name in view:
                    shown[f"{name}_usd"] = None if view[name] is None else self.usd(view[name])
        return shown


NO_MONEY = Money()
"""Where nobody has said what a unit is worth."""
