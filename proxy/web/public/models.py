"""``GET /v1/models`` and ``GET /v1/models/{id}``: the models that the caller's key may use."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

from aiohttp import web

from proxy.domain.catalog import Catalog, Model
from proxy.domain.errors import ModelNotFound, ShuttingDown
from proxy.domain.headers import read_credential
from proxy.domain.limits import Caller
from proxy.domain.money import NO_MONEY, Money
from proxy.domain.parsing.json_text import lasting_json
from proxy.metering.store import Store
from proxy.telemetry.observation import OBSERVATION, OK
from proxy.web.public.wire import ModelList, ModelView
from proxy.web.server.routes import Access, Route

MODELS = "/v1/models"


class ModelRoutes:
    """Handlers of the models API."""

    def __init__(self, store: Store, catalog: Catalog, money: Money = NO_MONEY) -> None:
        """List ``catalog``, with prices in quota units and in ``money``."""
        self._money = money
        self._store = store
        self._catalog = catalog

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        show_errors = (ModelNotFound, ShuttingDown)
        return (
            Route("GET", MODELS, self.list, Access.KEY, {200: ModelList}, errors=(ShuttingDown,)),
            Route("GET", f"{MODELS}/{{model:.+}}", self.show, Access.KEY, {200: ModelView}, errors=show_errors),
        )

    async def list(self, request: web.Request) -> web.Response:
        """Every model that the key may use, in OpenAI's list shape."""
        caller = await read_own_key(request, self._store)
        models = [
            self._shape(name, model) for name, model in self._catalog.names(time()) if caller.may_use(name, model.id)
        ]
        return json_response({"object": "list", "data": models})

    async def show(self, request: web.Request) -> web.Response:
        """One model; one that the key may not use is not there for it."""
        caller = await read_own_key(request, self._store)
        name = request.match_info["model"]
        model = self._catalog.get(name)
        if not caller.may_use(name, model.id):
            raise ModelNotFound(f"The model '{name}' does not exist for this key.", param="model")
        self._catalog.check_offered(name, time())
        return json_response(self._shape(name, model))

    def _shape(self, name: str, model: Model) -> dict[str, Any]:
        shape: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": model.created,
            "owned_by": model.owned_by,
            "token_multiplier": format(model.token_multiplier.normalize(), "f"),
            **costs_view(model, self._money),
        }
        if name != model.id:
            shape["alias_of"] = model.id
        retirement = self._catalog.retirement(name)
        if retirement is not None:
            shape["retires"] = retirement.day
            if retirement.replaced_by is not None:
                shape["replaced_by"] = retirement.replaced_by
        return shape


def costs_view(model: Model, money: Money) -> dict[str, Any]:
    """What a model takes, and what an image costs: the first of its ``prices`` that matches."""
    standard: list[dict[str, Any]] = [
        {"size": "4K", "quota_units": model.unit_price_4k},
        {"quota_units": model.unit_price},
    ]
    own, prices = [], model.prices
    if prices is not None:
        own = [{**rule.conditions, "quota_units": prices.table.units_of(rule)} for rule in prices.table.rules]
    sizes = model.sizes or tuple(dict.fromkeys(str(row["size"]) for row in own if "size" in row))
    view: dict[str, Any] = {
        "prices": [money.beside(row, "quota_units") for row in (*own, *standard)],
        "sizes": list(sizes),
        "qualities": list(dict.fromkeys(str(row["quality"]) for row in own if "quality" in row)),
        "parameters": sorted(model.parameters),
        "settled_by": "images" if prices is None else prices.settling.by.value,
    }
    if prices is not None and prices.reference_units:
        view["reference_image"] = money.beside({"quota_units": prices.reference_units}, "quota_units")
    return view


async def read_own_key(request: web.Request, store: Store) -> Caller:
    """Whose key the request is made with, or InvalidApiKey."""
    caller = await store.read_own_key(read_credential(request.headers))
    observation = request[OBSERVATION]
    observation.key_id, observation.outcome = caller.key.id, OK
    return caller


def json_response(content: Any, status: int = 200) -> web.Response:
    """``content`` as JSON, which its connection holds until the next answer."""
    return web.Response(status=status, body=lasting_json(content), content_type="application/json")
