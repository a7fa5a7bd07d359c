"""What is on offer, for people: models with prices and places, what a request would cost, and recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.domain.billing.estimates import Question, estimate
from proxy.domain.catalog import Catalog, Model
from proxy.domain.errors import ModelNotFound
from proxy.domain.money import Money
from proxy.domain.prices.table import TASKS
from proxy.web.admin.queries import StrictQuery, read_query
from proxy.web.console.wire import OfferList, PriceView, RecipeList
from proxy.web.public.models import costs_view, json_response
from proxy.web.server.routes import Access, Route, Scope

COUNT_LIMIT = 1_000
TEXT_LIMIT = 40


def _count(text: object) -> object:
    if not isinstance(text, str):
        return text
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= COUNT_LIMIT):
        raise ValueError(f"should be from 0 to {COUNT_LIMIT:,}")
    return int(text[:9])


def _positive(text: object) -> object:
    if text == "0":
        raise ValueError(f"should be from 1 to {COUNT_LIMIT:,}")
    return _count(text)


def _task(text: object) -> object:
    if text not in TASKS:
        raise ValueError(f"should be one of {', '.join(TASKS)}")
    return text


Count = Annotated[
    int, BeforeValidator(_count), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": COUNT_LIMIT})
]
Positive = Annotated[
    int, BeforeValidator(_positive), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": COUNT_LIMIT})
]
Word = Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT)]
TaskOf = Annotated[str, BeforeValidator(_task), WithJsonSchema({"type": "string", "enum": list(TASKS)})]


class PriceQuery(StrictQuery):
    """``GET /admin/v1/price``: a request as somebody imagines it."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    task: TaskOf = "generation"
    n: Positive | None = None
    size: Word | None = None
    quality: Word | None = None
    image_size: Word | None = None
    references: Count = 0
    images: Count | None = None


class OfferRoutes:
    """Handlers of what belongs to no team."""

    def __init__(self, catalog: Catalog, money: Money, recipes: Mapping[str, str], *, by_delivered: bool) -> None:
        """Tell of ``catalog``; ``recipes`` are texts by name, ``by_delivered`` how images are charged."""
        self._catalog = catalog
        self._money = money
        self._recipes = [
            {"name": name, "about": text.partition("\n")[0].removeprefix("# "), "toml": text}
            for name, text in recipes.items()
        ]
        self._by_delivered = by_delivered

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        read, anybody = Access.VIEWER, Scope.ANYBODY
        return (
            Route("GET", "/admin/v1/models", self.list, read, {200: OfferList}, scope=anybody),
            Route(
                *("GET", "/admin/v1/price", self.price, read, {200: PriceView}),
                query=PriceQuery,
                errors=(ModelNotFound,),
                scope=anybody,
            ),
            Route("GET", "/admin/v1/recipes", self.show_recipes, read, {200: RecipeList}, scope=anybody),
        )

    async def list(self, _request: web.Request) -> web.Response:
        """Every model and alias with its prices, and where it is made."""
        return json_response({"data": [self._view(name, model) for name, model in self._catalog.all_names()]})

    async def price(self, request: web.Request) -> web.Response:
        """What a request would reserve and be charged, by which rule and why. Nothing is sent anywhere."""
        query = read_query(request, PriceQuery)
        given = {name: getattr(query, name) for name in ("n", "size", "quality", "image_size")}
        question = Question(given, query.task, query.references, query.images)
        model = self._catalog.get(query.model)
        return json_response(estimate(question, model, self._money, by_delivered=self._by_delivered))

    async def show_recipes(self, _request: web.Request) -> web.Response:
        """Configurations of providers that work as they are."""
        return json_response({"data": self._recipes})

    def _view(self, name: str, model: Model) -> dict[str, Any]:
        places = [(each.provider, each.upstream_model) for each in model.deployments] or [
            (model.provider, model.upstream_model)
        ]
        view: dict[str, Any] = {
            "id": name,
            "deployments": [{"provider": provider, "upstream_model": other} for provider, other in places],
            "token_multiplier": format(model.token_multiplier.normalize(), "f"),
            **costs_view(model, self._money),
        }
        if name != model.id:
            view["alias_of"] = model.id
        if (retirement := self._catalog.retirement(name)) is not None:
            view["retires"] = retirement.day
        return view
