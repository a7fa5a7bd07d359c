"""The middleware that costs quota: what is asked of the store, when, and what is reserved for which request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from proxy.app import ENDPOINTS
from proxy.domain.api_key import make_key_text
from proxy.domain.billing.offers import Offer
from proxy.domain.billing.pricing import Quote, Terms
from proxy.domain.billing.settlement import Delivery
from proxy.domain.catalog import Ability, Alias, Catalog
from proxy.domain.errors import (
    ClientGone,
    InsufficientQuota,
    InvalidApiKey,
    InvalidRequest,
    ModelNotFound,
    ProxyError,
    RequestTimeout,
    UnsupportedMediaType,
)
from proxy.domain.limits import Caller, Limits, QuotaUsage
from proxy.domain.requests.idempotency import AlreadyAnswered, Idempotency, KeptAnswer
from proxy.domain.retirement import Retirement
from proxy.metering.meter import Meter
from proxy.telemetry.observation import OBSERVATION, OK, Observation
from proxy.web.intake.body_memory import BodyMemory
from proxy.web.intake.body_pieces import Patience
from proxy.web.intake.form_reader import FormLimits
from proxy.web.intake.request_body import BodyLimits
from proxy.web.intake.spool import Spools
from proxy.web.intake.uploads import UploadLimits
from proxy.web.middleware.metering import METERED, RequestReader, metering
from proxy.web.public.images import CHAT, EDITS, GENERATIONS
from tests.domain.samples import make_model
from tests.support.virtual_time import run

MIB = 2**20
KEY = make_key_text("acme_0123456789", lambda characters: characters[3])
CATALOG = Catalog(
    [
        make_model(id="acme/image-1", max_n=4),
        make_model("2.5", id="acme/image-2", max_n=4, abilities=frozenset(Ability)),
    ],
    aliases=[Alias("image-latest", "acme/image-2")],
)
BODY = b'{"model":"acme/image-2","prompt":"a lighthouse","n":3}'
FORM = "multipart/form-data; boundary=b"


class Store:
    """Knows the key, or says what is wrong with it."""

    def __init__(self, calls: list[str], wrong: ProxyError | None, remaining: int) -> None:
        self._calls, self._wrong, self._remaining = calls, wrong, remaining

    async def read_own_key(self, _credential: object) -> Caller:
        self._calls.append("key")
        await asyncio.sleep(0)
        if self._wrong is not None:
            raise self._wrong
        account = mock.Mock(quotas={"quota_units": QuotaUsage(self._remaining, 0, 0)}, limits=Limits(), held=0)
        return Caller(account, account)


class Admissions:
    """A meter that notes what it is asked to admit, and settles into ``settled``."""

    answer_bytes = 1_000

    def __init__(
        self, *, key: ProxyError | None = None, remaining: int = 10**9, admit: BaseException | None = None
    ) -> None:
        self.calls: list[str] = []
        self.store = Store(self.calls, key, remaining)
        self.quote: Quote | None = None
        self.terms: Terms | None = None
        self.alias: str | None = None
        self.fallbacks: tuple[Offer, ...] = ()
        self.idempotency: Idempotency | None = None
        self.settled: list[Delivery] = []
        self._wrong = admit

    @asynccontextmanager
    async def admit(
        self,
        _credential: object,
        _observation: object,
        model: str,
        quote: Quote,
        idempotency: Idempotency | None,
        terms: Terms,
        alias: str | None,
        fallbacks: tuple[Offer, ...],
    ) -> AsyncIterator[Delivery]:
        self.alias, self.fallbacks = alias, fallbacks
        self.calls.append(f"admit {model}")
        self.quote, self.idempotency, self.terms = quote, idempotency, terms
        if self._wrong is not None:
            raise self._wrong
        delivery = Delivery(terms)
        try:
            yield delivery
        finally:
            self.settled.append(delivery)


@pytest.fixture(name="reader")
def _reader(tmp_path: Path) -> Iterator[RequestReader]:
    limits = UploadLimits(FormLimits(4, MIB, MIB), 4 * MIB, Patience(60, 5, 1_000))
    spools = Spools(tmp_path, max_disk_bytes=8 * MIB)
    memory = BodyMemory(8 * MIB, max_body_bytes=4 * MIB)
    yield RequestReader(BodyLimits(4 * MIB, 5.0), limits, spools, memory, CATALOG)
    assert (spools.disk_bytes, memory.held_bytes) == (0, 0)
    spools.close()


class Exchange:
    """One request through the middleware, and what was then forwarded."""

    def __init__(self, reader: RequestReader, meter: Admissions, catalog: Catalog = CATALOG, **middleware: Any) -> None:
        self.meter = meter
        self.forwarded: list[web.Request] = []
        self.observation = Observation("req_1", GENERATIONS)
        self._middleware = metering(cast("Meter", meter), catalog, ENDPOINTS, reader, **middleware)
        self.raises: BaseException | None = None

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        self.forwarded.append(request)
        if self.raises is not None:
            raise self.raises
        return web.Response(text="forwarded")

    def send(
        self,
        body: bytes | None = BODY,
        *,
        path: str = GENERATIONS,
        method: str = "POST",
        length: int | None = None,
        is_gone: bool = False,
        **more: str,
    ) -> web.Response:
        """Without a ``body``, nothing of it ever comes."""

        async def sending() -> web.StreamResponse:
            content = StreamReader(mock.create_autospec(BaseProtocol, instance=True), 2**16)
            if body is not None:
                content.feed_data(body)
                content.feed_eof()
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
            headers["Content-Length"] = str(len(body or b"") if length is None else length)
            headers |= {name.replace("_", "-"): text for name, text in more.items()}
            request = make_mocked_request(method, path, headers, payload=content)
            if is_gone:
                request.protocol.transport = None
            request[OBSERVATION] = self.observation
            return await self._middleware(request, self._forward)

        return cast("web.Response", run(sending()))


@contextmanager
def refused(error: type[BaseException], exchange: Exchange) -> Iterator[None]:
    """Refused so, with nothing reserved and nothing forwarded."""
    with pytest.raises(error):
        yield
    assert exchange.forwarded == []
    assert exchange.meter.settled == []
    assert not any(call.startswith("admit") for call in exchange.meter.calls)


def test_a_good_small_request_asks_the_store_once(reader: RequestReader) -> None:
    exchange = Exchange(reader, Admissions())
    assert exchange.send().text == "forwarded"
    assert exchange.meter.calls == ["admit acme/image-2"]
    assert exchange.meter.quote is not None
    assert exchange.meter.quote.units == 3 * CATALOG.get("acme/image-2").unit_price
    assert exchange.meter.quote.images == 3
    (forwarded,) = exchange.forwarded
    assert forwarded[METERED].delivery is exchange.meter.settled[0]
    assert (exchange.observation.key_id, exchange.observation.model) == ("acme_0123456789", "acme/image-2")


def test_a_request_by_an_alias_is_one_of_its_model_and_says_the_name(reader: RequestReader) -> None:
    for name, alias in ((b"acme/image-2", None), (b"image-latest", "image-latest")):
        exchange = Exchange(reader, Admissions())
        exchange.send(BODY.replace(b"acme/image-2", name))
        assert exchange.meter.calls == ["admit acme/image-2"]
        assert exchange.meter.alias == alias
        assert exchange.observation.model == "acme/image-2"


def test_the_models_that_may_stand_in_are_offered_as_they_take_the_request(reader: RequestReader) -> None:
    models = [
        make_model(id="a", fallback=("b", "c", "latest")),
        make_model("3", id="b"),
        make_model(id="c", max_n=2),
        make_model("0.5", id="d"),
    ]
    ended = Retirement("1970-01-02", 86_400)
    for retirements, expected in (({}, {"b": 45_000, "d": 7_500}), ({"latest": ended}, {"b": 45_000})):
        catalog = Catalog(models, aliases=[Alias("latest", "d")], retirements=retirements)
        exchange = Exchange(reader, Admissions(), catalog)
        exchange.send(BODY.replace(b"acme/image-2", b"a"))
        assert {offer.model.id: offer.quote.units for offer in exchange.meter.fallbacks} == expected
        assert exchange.meter.calls == ["admit a"]


def test_what_costs_nothing_passes_without_a_key(reader: RequestReader) -> None:
    for path, method in (("/v1/models", "GET"), ("/v1/models", "POST"), (GENERATIONS, "GET"), ("/healthz", "GET")):
        exchange = Exchange(reader, Admissions())
        assert exchange.send(path=path, method=method, Authorization="").text == "forwarded"
        assert exchange.meter.calls == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"model":"acme/image-9","prompt":"x"}', ModelNotFound),
        (b'{"prompt":"x"}', InvalidRequest),
        (b'{"model":"acme/image-1","prompt":"x","n":5}', InvalidRequest),
        (b'{"model":"acme/image-1","prompt":"x","n":0}', InvalidRequest),
        (b"{", InvalidRequest),
    ],
)
def test_a_bad_request_is_told_only_to_who_has_a_key(
    reader: RequestReader, body: bytes, error: type[ProxyError]
) -> None:
    known = Exchange(reader, Admissions())
    with refused(error, known):
        known.send(body)
    assert known.meter.calls == ["key"]
    stranger = Exchange(reader, Admissions(key=InvalidApiKey("unknown")))
    with refused(InvalidApiKey, stranger):
        stranger.send(body)


def test_a_key_that_is_none_asks_nobody(reader: RequestReader) -> None:
    for authorization in ("", "Bearer sk-1", KEY[:-1], f"Bearer {KEY[:-1]}!"):
        exchange = Exchange(reader, Admissions())
        with refused(InvalidApiKey, exchange):
            exchange.send(Authorization=authorization)
        assert exchange.meter.calls == []


@pytest.mark.parametrize(
    ("path", "kind"), [(GENERATIONS, "application/json"), (CHAT, "application/json"), (EDITS, FORM)]
)
def test_a_large_body_is_not_waited_for_where_the_key_will_not_do(reader: RequestReader, path: str, kind: str) -> None:
    stranger = Exchange(reader, Admissions(key=InvalidApiKey("unknown")))
    poor = Exchange(reader, Admissions(remaining=CATALOG.least_units - 1))
    for exchange, error in ((stranger, InvalidApiKey), (poor, InsufficientQuota)):
        with refused(error, exchange):
            exchange.send(None, path=path, length=2 * MIB, Content_Type=kind)
        assert exchange.meter.calls == ["key"]


def test_a_large_body_has_its_key_looked_at_once_and_then_is_admitted(reader: RequestReader) -> None:
    exchange = Exchange(reader, Admissions())
    prompt = b'{"model":"acme/image-1","prompt":"%b"}' % (b"x" * 70_000)
    exchange.send(prompt)
    assert exchange.meter.calls == ["key", "admit acme/image-1"]


def test_a_body_that_does_not_come_is_given_up_and_reserves_nothing(reader: RequestReader) -> None:
    for length in (100, 2 * MIB):
        exchange = Exchange(reader, Admissions())
        with refused(RequestTimeout, exchange):
            exchange.send(None, length=length)
        assert exchange.meter.calls == ["key"]


def test_what_no_route_takes_is_refused_by_its_kind(reader: RequestReader) -> None:
    for path, kind in ((GENERATIONS, FORM), (CHAT, FORM), ("/v1/images/variations", "application/json")):
        exchange = Exchange(reader, Admissions())
        with refused(UnsupportedMediaType, exchange):
            exchange.send(path=path, Content_Type=kind)
        assert exchange.meter.calls == ["key"]


def test_a_client_that_left_while_it_was_read_is_not_admitted(reader: RequestReader) -> None:
    exchange = Exchange(reader, Admissions())
    with refused(ClientGone, exchange):
        exchange.send(is_gone=True)
    assert exchange.meter.calls == []


def test_what_was_answered_before_is_given_again_and_forwarded_to_nobody(reader: RequestReader) -> None:
    for status, again in ((200, None), (400, "false")):
        exchange = Exchange(reader, Admissions(admit=AlreadyAnswered(KeptAnswer(status, b'{"kept":1}'))))
        response = exchange.send(Idempotency_Key="one")
        assert (response.status, response.body) == (status, b'{"kept":1}')
        assert response.headers["Idempotency-Replayed"] == "true"
        assert response.headers.get("x-should-retry") == again
        assert (exchange.forwarded, exchange.observation.outcome) == ([], OK)


def test_only_who_may_ask_again_has_the_answer_kept(reader: RequestReader) -> None:
    kept = {}
    for name in ("with", "without"):
        exchange = Exchange(reader, Admissions())
        if name == "with":
            exchange.send(Idempotency_Key="one")
        else:
            exchange.send()
        assert exchange.meter.terms is not None
        kept[name] = (exchange.meter.terms.kept_answer_bytes, exchange.meter.idempotency is not None)
    assert kept == {"with": (1_000, True), "without": (0, False)}


def test_two_requests_are_the_same_by_path_and_body(reader: RequestReader) -> None:
    edit = b'{"model":"acme/image-2","prompt":"a lighthouse","n":3,"images":[{"image_url":"https://a.example/1.png"}]}'
    seen = []
    for path, body in ((EDITS, edit), (EDITS, edit), (EDITS, edit + b" "), (GENERATIONS, BODY)):
        exchange = Exchange(reader, Admissions())
        exchange.send(body, path=path, Idempotency_Key="one")
        seen.append(exchange.meter.idempotency)
    assert seen[0] == seen[1]
    assert seen[1] != seen[2]
    assert seen[2] != seen[3]


@pytest.mark.parametrize("error", [RuntimeError, ClientGone, asyncio.CancelledError])
def test_whatever_forwarding_raises_is_settled_once_and_raised(
    reader: RequestReader, error: type[BaseException]
) -> None:
    exchange = Exchange(reader, Admissions())
    exchange.raises = error()
    with pytest.raises(error):
        exchange.send()
    assert len(exchange.meter.settled) == 1


def test_a_refused_admission_forwards_nothing(reader: RequestReader) -> None:
    exchange = Exchange(reader, Admissions(admit=InsufficientQuota("empty")))
    with pytest.raises(InsufficientQuota):
        exchange.send()
    assert (exchange.forwarded, exchange.meter.settled) == ([], [])
