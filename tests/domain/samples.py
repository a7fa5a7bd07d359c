"""A model to price, a reservation to settle, and the contract's tables."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Reservation
from proxy.domain.catalog import BASE_UNITS, BASE_UNITS_4K, Model, unit_price
from proxy.domain.requests.image import KNOWN_PARAMETERS
from proxy.upstream.bodies.outgoing import OutgoingBody

CONTRACT = Path(__file__).parent.parent / "contract"


def contract_rows(file: str, table: str) -> list[dict[str, Any]]:
    """One table of the contract's data; a table without rows would prove nothing."""
    rows: list[dict[str, Any]] = json.loads((CONTRACT / file).read_text(encoding="utf-8"))[table]
    assert rows
    return rows


def written(body: bytes | OutgoingBody) -> Any:
    """What a provider is sent, as JSON; of a form, its pieces."""
    if isinstance(body, bytes):
        return orjson.loads(body)
    return [piece.decode() for piece in body.pieces if isinstance(piece, bytes)]


def make_model(multiplier: str | Decimal = "1", **fields: Any) -> Model:
    token_multiplier = Decimal(multiplier)
    return Model(
        **{
            "id": "acme/image-1",
            "provider": "acme",
            "upstream_model": "image-1",
            "token_multiplier": token_multiplier,
            "parameters": KNOWN_PARAMETERS,
            "unit_price": unit_price(BASE_UNITS, token_multiplier),
            "unit_price_4k": unit_price(BASE_UNITS_4K, token_multiplier),
            **fields,
        }
    )


def make_reservation(quote: Quote) -> Reservation:
    return Reservation(
        id="req_1",
        team="acme",
        key_id="acme_0123456789",
        endpoint="generations",
        model="acme/image-1",
        quote=quote,
        admitted_ms=1_764_000_000_000,
        remaining_units=None,
    )


def make_quote(images: int, unit_price_units: int) -> Quote:
    return Quote(images, unit_price_units, images * unit_price_units, Tier.STANDARD)
