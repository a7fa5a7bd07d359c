"""The product: read a request, price it, admit it, let it be forwarded, and settle it.

Everything that costs quota goes through here, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter, time
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.api_key import Credential
from proxy.domain.billing.offers import Offer, as_taken, check_takes, offers_instead
from proxy.domain.billing.pricing import Terms, agree, price
from proxy.domain.billing.settlement import Delivery
from proxy.domain.catalog import Catalog, Model
from proxy.domain.errors import ClientGone, InvalidApiKey, InvalidRequest, ProxyError, UnsupportedMediaType
from proxy.domain.headers import read_credential
from proxy.domain.limits import Caller, check_can_pay
from proxy.domain.people import People
from proxy.domain.records import record
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.edit import kind_of_field, request_of_form
from proxy.domain.requests.idempotency import HEADER, AlreadyAnswered, Idempotency, KeptAnswer, parse_idempotency
from proxy.domain.requests.image import ImageRequest, Task
from proxy.metering.meter import Meter
from proxy.telemetry.observation import OBSERVATION, OK, Observation
from proxy.web.intake.body_memory import BodyMemory
from proxy.web.intake.form_reader import MULTIPART
from proxy.web.intake.large_json import SMALL_BODY_BYTES, LargeJsonReader
from proxy.web.intake.receiving import Receiving
from proxy.web.intake.request_body import JSON, BodyLimits, read_json_body
from proxy.web.intake.spool import Spool, Spools
from proxy.web.intake.uploads import UploadLimits, read_form

Asked = ImageRequest | ChatRequest
Parser = Callable[[bytes | dict[str, Any]], Asked]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a route takes: JSON that is read by ``parse``, a form that asks for ``form``, or either of them."""

    parse: Parser | None = None
    form: Task | None = None


@record
class MeteredRequest:
    """An admitted request, on its way to a provider. Its relay fills in ``delivery``."""

    asked: Asked
    model: Model
    delivery: Delivery


ANYBODY = People()

METERED = web.RequestKey("metered", MeteredRequest)


def metering(
    meter: Meter,
    catalog: Catalog,
    endpoints: Mapping[str, Endpoint],
    reader: RequestReader,
    *,
    by_delivered_size: bool = False,
    people: People = ANYBODY,
) -> Middleware:
    """The middleware, for the routes of ``endpoints``; images are charged by the size asked for, or delivered.

    ``people`` says whom a request is for.
    """

    @web.middleware
    async def meter_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        endpoint = endpoints.get(request.path)
        if endpoint is None or request.method != "POST":
            return await handler(request)
        credential = read_credential(request.headers)
        if endpoint.form is not None and request.content_type == MULTIPART:
            caller = await _look_at_the_key(meter, credential, request, least_units=catalog.least_units)
            with reader.receiving.one(caller):
                async with reader.spools.open(credential.key_id) as spool:
                    return await meter_one(request, handler, credential, endpoint, spool)
        if (request.content_length or SMALL_BODY_BYTES + 1) <= SMALL_BODY_BYTES:
            return await meter_one(request, handler, credential, endpoint)
        check_key = partial(_look_at_the_key, meter, credential, request, least_units=catalog.least_units)
        with reader.large(credential.key_id, check_key) as source:
            return await meter_one(request, handler, credential, endpoint, source)

    async def meter_one(
        request: web.Request,
        handler: Handler,
        credential: Credential,
        endpoint: Endpoint,
        source: Spool | LargeJsonReader | None = None,
    ) -> web.StreamResponse:
        observation = request[OBSERVATION]
        try:
            asked, identity = await reader.read(request, endpoint, source)
            observation.person = people.read(request.headers, asked.fields, credential.team)
            model, alias = _model_of(asked, catalog)
            as_it_came, asked = asked, as_taken(asked, model)
            idempotency = _idempotency_of(request, identity, people)
            quote = price(asked, model)
        except ProxyError as error:
            # Who is told that the key is bad, or had it checked for a large body, is not looked up again.
            if not (observation.key_id or isinstance(error, InvalidApiKey)):
                await _check_key_first(meter, credential, observation)
            raise
        observation.key_id, observation.model = credential.key_id, model.id
        kept_answer_bytes = 0 if idempotency is None else meter.answer_bytes
        terms = agree(asked, model, quote, by_delivered_size=by_delivered_size, kept_answer_bytes=kept_answer_bytes)
        others = _instead_of(model, as_it_came, catalog, terms, by_delivered_size=by_delivered_size)
        if request.transport is None:
            raise ClientGone
        try:
            async with meter.admit(
                credential, observation, model.id, quote, idempotency, terms, alias, others
            ) as delivery:
                request[METERED] = MeteredRequest(asked, model, delivery)
                return await handler(request)
        except AlreadyAnswered as before:
            observation.outcome = OK
            return _give_again(before.answer)

    return meter_request


class RequestReader:
    """Reads a request from its client, who may be slow, or send too much."""

    def __init__(
        self, limits: BodyLimits, upload_limits: UploadLimits, spools: Spools, memory: BodyMemory, catalog: Catalog
    ) -> None:
        """JSON is read within ``limits``, into ``memory`` where it is large; forms within ``upload_limits``, their
        files into ``spools``, with unknown fields where a model of ``catalog`` takes such.
        """
        self._catalog = catalog
        self.spools = spools
        self.memory = memory
        self.receiving = Receiving()
        self._limits = limits
        self._upload_limits = upload_limits

    @contextmanager
    def large(self, key_id: str, check_key: Callable[[], Awaitable[Caller]]) -> Iterator[LargeJsonReader]:
        """What reads a body that may be large, and asks ``check_key`` before it holds much of it."""
        with self.memory.open(key_id) as held, ExitStack() as counted:

            async def begin() -> None:
                counted.enter_context(self.receiving.one(await check_key()))

            yield LargeJsonReader(self._limits.max_body_bytes, self._upload_limits.patience, held, begin)

    async def read(
        self, request: web.Request, endpoint: Endpoint, source: Spool | LargeJsonReader | None
    ) -> tuple[Asked, bytes]:
        """What is asked for, by a form where ``source`` is a spool; and what makes it the same as another request."""
        began = perf_counter()
        body: bytes | dict[str, Any]
        try:
            # To ask of anything else whether it is of this protocol takes long.
            if source is not None and isinstance(source, Spool) and endpoint.form is not None:
                return await self._read_form(request, endpoint.form, source)
            if endpoint.parse is None or (endpoint.form is not None and request.content_type != JSON):
                raise _wrong_kind(request.content_type, endpoint)
            if isinstance(source, LargeJsonReader):
                body, identity = await source.read(request, hashes=HEADER in request.headers)
            else:
                body = identity = await read_json_body(
                    request, limit_bytes=self._limits.max_body_bytes, timeout_s=self._limits.body_timeout_s
                )
        finally:
            request[OBSERVATION].client_s += perf_counter() - began
        return endpoint.parse(body), identity

    async def _read_form(self, request: web.Request, task: Task, spool: Spool) -> tuple[Asked, bytes]:
        hashes = HEADER in request.headers
        kinds = partial(kind_of_field, task=task, takes_unknown=self._catalog.takes_unknown)
        form = await read_form(request, self._upload_limits, spool, kinds, hashes=hashes)
        return request_of_form(form.texts, form.files, task), form.identity() if hashes else b""


def _idempotency_of(request: web.Request, identity: bytes, people: People) -> Idempotency | None:
    headers = request.headers
    if HEADER not in headers:
        return None
    return parse_idempotency(headers.getall(HEADER), request.path, identity, people.said_by_header(headers))


def _wrong_kind(given: str, endpoint: Endpoint) -> UnsupportedMediaType:
    wanted = f"a form with the header 'Content-Type: {MULTIPART}'"
    if endpoint.parse is not None:
        wanted += f", or JSON with 'Content-Type: {JSON}'"
    return UnsupportedMediaType(f"The body is '{given}'; send {wanted}.")


def _model_of(asked: Asked, catalog: Catalog) -> tuple[Model, str | None]:
    """The model, which answers such requests, and the name by which the client asks for it if that is another one."""
    model_id = asked.model or catalog.default_model
    if model_id is None:
        raise InvalidRequest(
            "Missing required parameter: 'model'; GET /v1/models lists those there are.", param="model"
        )
    model = catalog.get(model_id)
    if catalog.retirements:
        catalog.check_offered(model_id, time())
    check_takes(asked, model)
    return model, None if model_id == model.id else model_id


def _instead_of(
    model: Model, asked: Asked, catalog: Catalog, terms: Terms, *, by_delivered_size: bool
) -> tuple[Offer, ...]:
    if not model.fallback:
        return ()
    others = catalog.instead_of(model, time())
    return offers_instead(asked, model, others, terms, by_delivered_size=by_delivered_size)


def _give_again(answer: KeptAnswer) -> web.Response:
    headers = {"Idempotency-Replayed": "true"}
    if answer.status != HTTPStatus.OK:
        # Whoever asks again with the same key gets the same answer again.
        headers["x-should-retry"] = "false"
    return web.Response(status=answer.status, body=answer.body, content_type="application/json", headers=headers)


async def _look_at_the_key(meter: Meter, credential: Credential, request: web.Request, *, least_units: int) -> Caller:
    """Only who has a key, and something left on it, may fill the disk."""
    caller = await _check_key_first(meter, credential, request[OBSERVATION])
    # What was answered before may be asked for again without paying.
    if HEADER not in request.headers:
        check_can_pay(caller, least_units)
    return caller


async def _check_key_first(meter: Meter, credential: Credential, observation: Observation) -> Caller:
    """A stranger learns that its key is bad, not which models there are. Good requests pay no round trip for this."""
    caller = await meter.store.read_own_key(credential)
    observation.key_id = credential.key_id
    return caller
