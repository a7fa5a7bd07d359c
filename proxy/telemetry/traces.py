"""Traces by OpenTelemetry: a span for each request, and below it one each to admit, to ask the provider, to settle.

The only file that knows the library, and imported only where traces are on. Attributes are those of the semantic
conventions for HTTP (https://opentelemetry.io/docs/specs/semconv/http/http-spans/), and our own under ``lightmeter.``.
No header, no query and no body becomes one. The trace's context is the W3C's (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDictProxy
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_PATH, URL_SCHEME
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from yarl import URL

from proxy.domain.billing.pricing import Quote
from proxy.domain.billing.settlement import Outcome, Settlement
from proxy.domain.errors import ProxyError
from proxy.domain.requests.idempotency import AlreadyAnswered
from proxy.telemetry.observation import OBSERVATION, Observation
from proxy.telemetry.version import package_version

logger = logging.getLogger(__name__)

QUEUE_SPANS = 4_096
"""Spans that wait to be sent; what comes beyond them is dropped."""

BATCH_SPANS = 512
SEND_TIMEOUT_S = 10.0
ATTRIBUTE_LENGTH = 256
KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
BROKEN_OFF = frozenset({Outcome.TRUNCATED, Outcome.FAILED})


class _TracedRequest:
    """One request while it runs."""

    __slots__ = ("context", "task", "upstream")

    def __init__(self, span: Span) -> None:
        self.context = set_span_in_context(span, Context())
        # Tasks that outlive a request inherit its context variables; what they do later is not the request's.
        self.task = asyncio.current_task()
        self.upstream: Span | None = None

    @property
    def is_ours(self) -> bool:
        return self.task is not None and self.task is asyncio.current_task()

    def end_upstream(self, error_type: str = "") -> None:
        span, self.upstream = self.upstream, None
        if span is not None:
            if error_type:
                _fail(span, error_type)
            span.end()


_current: ContextVar[_TracedRequest | None] = ContextVar("traced_request", default=None)


class _Headers(Getter[CIMultiDictProxy[str]]):
    """Reads a request's headers."""

    def get(self, carrier: CIMultiDictProxy[str], key: str) -> list[str] | None:
        """All values of a header; of ``traceparent`` there may be one only."""
        values = carrier.getall(key, None)
        return None if values is None or (key == "traceparent" and len(values) > 1) else list(values)

    def keys(self, carrier: CIMultiDictProxy[str]) -> list[str]:
        """The names of all headers."""
        return list(carrier)


class Traces:
    """Makes the spans of one process and sends them, in batches and from a thread of its own."""

    def __init__(self, *, endpoint: str, sample_ratio: float, service_name: str) -> None:
        """Send to ``endpoint`` by OTLP over HTTP.

        Of all traces, ``sample_ratio``, 0 to 1, are sampled, whoever began them; one that its client does not sample
        never is. They are sent every 5 s, or as often as OpenTelemetry's own OTEL_BSP_SCHEDULE_DELAY (milliseconds)
        says.
        """
        # The library would log what clients send in these headers.
        logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
        version = package_version()
        # Whoever can reach the listener can set the flag that asks for sampling, before any key is looked at.
        by_ratio = TraceIdRatioBased(sample_ratio)
        self._provider = TracerProvider(
            sampler=ParentBased(by_ratio, remote_parent_sampled=by_ratio),
            resource=Resource.create({SERVICE_NAME: service_name, SERVICE_VERSION: version}),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attribute_length=ATTRIBUTE_LENGTH),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=endpoint, timeout=SEND_TIMEOUT_S),
                max_queue_size=QUEUE_SPANS,
                max_export_batch_size=BATCH_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("lightmeter", version)
        self._propagator = TraceContextTextMapPropagator()
        self._headers = _Headers()

    async def close(self, timeout_s: float) -> None:
        """Send what is left, for at most ``timeout_s`` seconds."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):
                # The loop may have ended before.
                loop.call_soon_threadsafe(sent.set)

        # Not the loop's own threads: the process would wait for those.
        threading.Thread(target=send, name="last traces", daemon=True).start()
        try:
            async with asyncio.timeout(timeout_s):
                await sent.wait()
        except TimeoutError:
            logger.warning("the last traces were not sent within %g seconds, and are lost", timeout_s)

    # --- The request --------------------------------------------------------------------------------------------------

    def middleware(self) -> Middleware:
        """The middleware; it stands outside of what observes the request."""

        @web.middleware
        async def trace_request(request: web.Request, handler: Handler) -> web.StreamResponse:
            span = self._begin(request)
            traced = _TracedRequest(span)
            token = _current.set(traced)
            error_type = ""
            try:
                return await handler(request)
            except BaseException as error:
                error_type = type(error).__qualname__
                raise
            finally:
                _current.reset(token)
                traced.end_upstream(error_type)
                traced.task = None
                if span.is_recording():
                    _describe(span, request.get(OBSERVATION), error_type)
                span.end()

        return trace_request

    def _begin(self, request: web.Request) -> Span:
        method, resource = request.method, request.match_info.route.resource
        attributes: dict[str, str] = {
            HTTP_REQUEST_METHOD: method,
            NETWORK_PROTOCOL_VERSION: f"{request.version.major}.{request.version.minor}",
            URL_PATH: request.rel_url.raw_path,
            URL_SCHEME: request.scheme,
        }
        name = method
        if method not in KNOWN_METHODS:
            name = "HTTP"
            attributes |= {HTTP_REQUEST_METHOD: "_OTHER", HTTP_REQUEST_METHOD_ORIGINAL: method}
        if resource is not None:
            name = f"{name} {resource.canonical}"
            attributes[HTTP_ROUTE] = resource.canonical
        context = self._propagator.extract(request.headers, Context(), self._headers)
        return self._tracer.start_span(name, context, SpanKind.SERVER, attributes)

    # --- The store ----------------------------------------------------------------------------------------------------

    @contextmanager
    def admitting(self, model: str, quote: Quote) -> Iterator[None]:
        """A span of the current request; a limit that refuses it is no error of the span's."""
        request = _current.get()
        if request is None or not request.is_ours:
            yield
            return
        attributes: dict[str, str | int] = {"lightmeter.model": model, "lightmeter.reserved_units": quote.units}
        with self._child("admit", request, attributes):
            yield

    @contextmanager
    def settling(self, settlement: Settlement) -> Iterator[None]:
        """A span of the current request. What is settled again for another one has no span."""
        request = _current.get()
        if request is None or not request.is_ours:
            yield
            return
        delivery = settlement.delivery
        request.end_upstream(delivery.outcome.value if delivery.outcome in BROKEN_OFF else "")
        attributes: dict[str, str | int] = {
            "lightmeter.outcome": delivery.outcome.value,
            "lightmeter.images": delivery.images,
            "lightmeter.charged_units": settlement.charged_units,
        }
        with self._child("settle", request, attributes):
            yield

    @contextmanager
    def _child(self, name: str, request: _TracedRequest, attributes: dict[str, str | int]) -> Iterator[None]:
        span = self._tracer.start_span(name, request.context, SpanKind.INTERNAL, attributes)
        try:
            yield
        except AlreadyAnswered:
            raise
        except ProxyError as error:
            if error.wire_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                _fail(span, error.code)
            else:
                span.set_attribute("lightmeter.error", error.code)
            raise
        except BaseException as error:
            _fail(span, type(error).__qualname__)
            raise
        finally:
            span.end()

    # --- The provider -------------------------------------------------------------------------------------------------

    def ask(self, method: str, url: URL) -> Mapping[str, str]:
        """A provider is asked: the headers that pass the trace on.

        The span lasts until the answer has been read: to the settlement, or to the next request for the same client.
        """
        request, headers = _current.get(), dict[str, str]()
        if request is None or request.task is None:
            return headers
        request.end_upstream()
        url = url.with_query(None).with_user(None)
        attributes: dict[str, str | int] = {
            HTTP_REQUEST_METHOD: method,
            SERVER_ADDRESS: url.host or "",
            SERVER_PORT: url.port or 0,
            URL_FULL: str(url),
        }
        # The path is one of the configuration's, so that the name's values are few.
        name = f"{method} {url.path}"
        span = request.upstream = self._tracer.start_span(name, request.context, SpanKind.CLIENT, attributes)
        self._propagator.inject(headers, set_span_in_context(span, Context()))
        return headers

    def answered(self, status: int) -> None:
        """The provider's answer has begun."""
        request = _current.get()
        if request is None or request.upstream is None:
            return
        request.upstream.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
        if status >= HTTPStatus.BAD_REQUEST:
            request.end_upstream(str(status))

    def not_answered(self, error: BaseException) -> None:
        """The provider has not answered."""
        request = _current.get()
        if request is not None:
            request.end_upstream(type(error).__qualname__)


def _describe(span: Span, observation: Observation | None, error_type: str) -> None:
    """Write down how a request went. Only a fault of the server's side is an error, as the conventions have it."""
    if observation is not None:
        span.set_attributes(_facts(observation))
        if observation.status:
            span.set_attribute(HTTP_RESPONSE_STATUS_CODE, observation.status)
        if observation.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            error_type = error_type or observation.error or str(observation.status)
        elif observation.outcome in BROKEN_OFF and observation.status == HTTPStatus.OK:
            # The answer had begun.
            error_type = error_type or observation.outcome
    if error_type:
        _fail(span, error_type)


def _facts(observation: Observation) -> dict[str, Any]:
    facts = {
        "lightmeter.request_id": observation.request_id,
        "lightmeter.key_id": observation.key_id,
        "lightmeter.model": observation.model,
        "lightmeter.provider": observation.provider,
        "lightmeter.outcome": observation.outcome,
        "lightmeter.error": observation.error,
    }
    figures = {"lightmeter.images": observation.images, "lightmeter.charged_units": observation.charged_units}
    return {name: value for name, value in facts.items() if value} | figures


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))
