"""What a destination has to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from proxy.shipping.batch import Batch
from proxy.shipping.source import Head


class Sink(Protocol):
    """A destination. What it has been given is durable there when ``write`` returns."""

    async def places(self, heads: Sequence[Head]) -> Mapping[str, str]:
        """The last entry of each of these teams that the destination has. Raises Unavailable or ShippingError."""

    async def write(self, batch: Batch, units_per_usd: Decimal | None) -> int:
        """Take a batch whole or not at all; the number of its entries that were there already.

        May be called again with a batch of which nobody knows what became. Raises Unavailable, PlaceMoved or
        ShippingError.
        """

    async def close(self) -> None:
        """Let go of everything."""
