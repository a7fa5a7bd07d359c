"""The product: read a request, price it, admit it, let it be forwarded, and settle it.

Everything that costs quota goes through here, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.api_key import Credential
from proxy.domain.catalog import Catalog, Model
from proxy.domain.chat_request import ChatRequest, check_chat
from proxy.domain.errors import ClientGone, InvalidRequest, ProxyError
from proxy.domain.headers import parse_authorization
from proxy.domain.idempotency import HEADER, AlreadyAnswered, KeptAnswer, parse_idempotency
from proxy.domain.image_request import ImageRequest, check_n, check_stream
from proxy.domain.image_size import DeliveredPrices
from proxy.domain.image_sizing import asked_size
from proxy.domain.pricing import price
from proxy.domain.settlement import Delivery
from proxy.metering.meter import Meter
from proxy.metering.request_body import read_json_body
from proxy.telemetry.observation import OBSERVATION, OK, Observation

Asked = ImageRequest | ChatRequest
Parser = Callable[[bytes], Asked]


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much of a request is read (bytes) and for how long (seconds)."""

    max_body_bytes: int
    body_timeout_s: float


@dataclass(frozen=True, slots=True)
class MeteredRequest:
    """An admitted request, on its way to a provider. Its handler fills in ``delivery``."""

    asked: Asked
    model: Model
    delivery: Delivery


METERED = web.RequestKey("metered", MeteredRequest)


def metering(
    meter: Meter,
    catalog: Catalog,
    parsers: Mapping[str, Parser],
    limits: BodyLimits,
    *,
    by_delivered_size: bool = False,
) -> Middleware:
    """The middleware, for the routes that ``parsers`` names; images are charged by the size asked for, or delivered."""

    @web.middleware
    async def meter_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        parse = parsers.get(request.path)
        if parse is None or request.method != "POST":
            return await handler(request)
        observation = request[OBSERVATION]
        credential = parse_authorization(request.headers.getall("Authorization", ()))
        idempotency = None
        try:
            body = await _read(request, observation, limits)
            asked, model = _understand(parse(body), catalog)
            if HEADER in request.headers:
                idempotency = parse_idempotency(request.headers.getall(HEADER), request.path, body)
        except ProxyError:
            await _tell_a_bad_key_first(meter, credential, observation)
            raise
        observation.key_id, observation.model = credential.key_id, model.id
        quote = price(asked, model)
        if request.transport is None:
            raise ClientGone
        try:
            async with meter.admit(credential, observation, model.id, quote, idempotency) as delivery:
                delivery.asked_size = asked_size(asked.size, asked.image_size)
                if by_delivered_size:
                    delivery.delivered_prices = DeliveredPrices(
                        model.unit_price, model.unit_price_4k, model.four_k_long_edge, quote.unit_price
                    )
                request[METERED] = MeteredRequest(asked, model, delivery)
                return await handler(request)
        except AlreadyAnswered as before:
            observation.outcome = OK
            return _give_again(before.answer)

    return meter_request


async def _read(request: web.Request, observation: Observation, limits: BodyLimits) -> bytes:
    began = perf_counter()
    try:
        return await read_json_body(request, limit_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    finally:
        observation.client_s += perf_counter() - began


def _understand(asked: Asked, catalog: Catalog) -> tuple[Asked, Model]:
    model_id = asked.model or catalog.default_model
    if model_id is None:
        raise InvalidRequest(
            "Missing required parameter: 'model'; GET /v1/models lists those there are.", param="model"
        )
    model = catalog.get(model_id)
    if isinstance(asked, ChatRequest):
        check_chat(asked, model)
    else:
        check_n(asked, model.max_n)
        check_stream(asked, model.parameters)
    return asked, model


def _give_again(answer: KeptAnswer) -> web.Response:
    headers = {"Idempotency-Replayed": "true"}
    if answer.status != HTTPStatus.OK:
        # Whoever asks again with the same key gets the same answer again.
        headers["x-should-retry"] = "false"
    return web.Response(status=answer.status, body=answer.body, content_type="application/json", headers=headers)


async def _tell_a_bad_key_first(meter: Meter, credential: Credential, observation: Observation) -> None:
    """A stranger learns that its key is bad, not which models there are. Good requests pay no round trip for this."""
    await meter.store.read_own_key(credential)
    observation.key_id = credential.key_id
