"""One request to one provider.

The library's errors end here; what leaves is of ``domain.errors``. A POST is never sent twice to one provider: a
connection that breaks after the request may have been sent is an error, for the provider may be at work on it. When
another deployment may be asked is decided in ``failover``.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from time import perf_counter, time
from types import TracebackType
from typing import Self

from yarl import URL

from proxy.domain.answers.answer import EVENT_STREAM, JSON, Answer
from proxy.domain.answers.chat.writing import ChatHead
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.writing import ImagesHead, settings_asked
from proxy.domain.billing.settlement import Served
from proxy.domain.catalog import Model
from proxy.domain.errors import (
    NoConnectionLeft,
    NoCredentials,
    ProviderOutOfCredit,
    ProxyError,
    UploadsUnavailable,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUncertain,
    UpstreamUnreachable,
)
from proxy.domain.headers import retry_after_seconds
from proxy.domain.requests.chat import ChatRequest, no_chat
from proxy.domain.requests.image import ImageRequest, Task
from proxy.telemetry.observation import Observation
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.bodies.payload import digest_of, pieces_of
from proxy.upstream.client import ProviderClient
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed
from proxy.upstream.connection.response import Response
from proxy.upstream.connection.upload import Upload
from proxy.upstream.decompression import BodyReader, decompressed, too_long
from proxy.upstream.errors.failures import error_in_answer
from proxy.upstream.errors.library import after_it_may_have_been_sent, before_it_was_sent, describe, without_frames
from proxy.upstream.errors.reports import begins_as_error, read_report
from proxy.upstream.watchdog import Watchdog

logger = logging.getLogger(__name__)

Asked = ImageRequest | ChatRequest

_BLANKS = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_MARKS = (b"{", b"[")
_BEGINS = (_BYTE_ORDER_MARK, b"data:", b"event:", b"id:", b"retry:")
_event_line = re.compile(rb"(?:data|event|id|retry)?:")
ERROR_BODY_BYTES = 65_536
SAID_BYTES = 4_096
SUCCESSES = range(200, 300)


class Exchange:
    """One request to a provider and its answer: a context that holds the connection.

    Entering it sends the request and waits until its answer begins; it raises UpstreamUnreachable, UpstreamError,
    UpstreamTimeout, or what the dialect makes of a status that is not a 2xx, or of an error in its place.
    """

    __slots__ = (
        "_asked", "_begin", "_body", "_body_reader", "_model", "_observation", "_response", "_served",
        "_size", "_url", "client", "failure", "is_whole", "said", "watchdog",
    )  # fmt: skip

    def __init__(
        self,
        client: ProviderClient,
        asked: Asked,
        model: Model,
        url: URL,
        body: bytes | OutgoingBody,
        served: Served,
        observation: Observation,
    ) -> None:
        """Prepare a POST of ``body``, in which ``asked`` is written down; nothing is sent yet.

        ``served`` gets who was asked. Whoever reads the answer sets ``is_whole`` where nothing of it is missing, and
        ``failure`` to what the provider reports in it.
        """
        self.client = client
        self._asked = asked
        self._model = model
        self._url = url
        self._body = body
        self._served = served
        self.is_whole = False
        self.failure: ProxyError | None = None
        self.said = b""
        """All of a small answer, or its beginning, for whoever finds nothing in it."""
        self._begin = b""
        self._observation = observation
        self._response: Response | None = None
        self._size = 0
        self._body_reader: BodyReader | None = None
        self.watchdog = Watchdog(client.watch, client.provider.total_timeout_s)

    async def __aenter__(self) -> Self:
        """Send the request; the answer is a 2xx, and its body does not begin with an error."""
        self._served.provider = self.client.provider.name
        self._observation.provider_error = ""
        # The time of waiting for a connection is not the provider's.
        self.watchdog.grant(await self.client.take_connection())
        await self.watchdog.__aenter__()
        try:
            await self._send()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the connection back where the body was read to its end, and close it where it was not."""
        reported = self.failure or error
        if isinstance(reported, ProxyError):
            self._note(reported)
        self._body = b""
        # It reads through this: together they would stay until the garbage collector comes.
        self._body_reader = None
        response = self._response
        if response is not None:
            response.close()
        self.client.give_connection_back()
        await self.watchdog.__aexit__(kind, error, trace)

    def end_when(self, is_moot: Callable[[], bool]) -> None:
        """Raise ClientGone in the task as soon as nobody wants the answer any more."""
        self.watchdog.end_when(is_moot)

    @property
    def retry_after_s(self) -> int | None:
        """The seconds of the answer's ``Retry-After``, where it has one."""
        return None if self._response is None else retry_after_seconds(self._response.headers, time())

    @property
    def content_type(self) -> str:
        """The kind of the body, without its parameters."""
        return "" if self._response is None else self._response.content_type

    async def answer(self) -> Answer:
        """What reads the body: feed it the pieces that ``read`` gives.

        What the body is its first bytes say, whatever its Content-Type does. Raises what ``read`` does.
        """
        comes_as_events = await self.begin()
        asked, dialect = self._asked, self.client.dialect
        if not isinstance(asked, ChatRequest):
            settings = settings_asked(asked.fields) if asked.stream else {}
            head = ImagesHead(int(time()), str(asked.task), settings, self.client.shows_tokens)
            return read_images(dialect.reading, head, comes_as_events=comes_as_events, stream=asked.stream)
        chat = dialect.chat
        if chat is None:
            raise no_chat()
        chat_head = ChatHead(f"chatcmpl-{self._observation.request_id}", int(time()), asked.model or self._model.id)
        return chat.read(asked, chat_head, comes_as_events=comes_as_events)

    async def begin(self) -> bool:
        """Wait for the first bytes that say something; whether they are those of events, or of one document."""
        begin = self._begin or await self._read_begin()
        self._begin = begin
        if begin[:1] in _JSON_MARKS:
            return False
        return self.content_type == EVENT_STREAM or _event_line.match(begin) is not None

    async def _read_begin(self) -> bytes:
        """The first bytes that say something, without a byte order mark (RFC 8259 section 8.1) and blanks before it."""
        begin = await self.read()
        if begin[:1] in _JSON_MARKS:
            return begin
        while True:
            said = begin.lstrip(_BLANKS)
            while said.startswith(_BYTE_ORDER_MARK):
                said = said.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANKS)
            if said and not any(mark != said and mark.startswith(said) for mark in _BEGINS):
                return said
            piece = await self.read()
            if not piece:
                return said
            begin = said + piece

    async def read(self) -> bytes:
        """The next piece of the body, nothing at its end.

        Raises UpstreamError or UpstreamTimeout where it breaks off, or is longer than ``max_response``.
        """
        if self._begin:
            begin, self._begin = self._begin, b""
            return begin
        reader = self._body_reader
        if reader is None:
            raise RuntimeError("an exchange is read from after it was entered")
        return await (self._read_as_sent() if reader.is_plain else reader.read())

    async def _read_as_sent(self) -> bytes:
        response, limit_bytes = self._response, self.client.provider.max_response_bytes
        if response is None:
            raise RuntimeError("an exchange is read from after it was entered")
        if response.is_at_end:
            return b""
        began = perf_counter()
        self.watchdog.phase(self.client.provider.idle_timeout_s, self._interrupt)
        try:
            piece = await response.read()
        except AnswerBroken as error:
            raise UpstreamUncertain("The provider's answer broke off.") from without_frames(error)
        finally:
            self._observation.provider_s += perf_counter() - began
        self._size += len(piece)
        if self._size > limit_bytes:
            raise too_long(limit_bytes)
        return piece

    async def _send(self) -> None:
        client, headers = self.client, None
        if client.signs:
            headers = await self._sign()
        elif client.changing is not None:
            self._url, headers = await client.let_in(self._url)
        self.watchdog.phase(client.provider.first_byte_timeout_s, self._interrupt)
        body, self._body = self._body, b""
        if isinstance(body, bytes):
            asking = client.http.post(self._url, body, headers)
        else:
            asking = self._send_files(body, headers)
        # What has been sent is not held until it is answered.
        del body
        began = perf_counter()
        try:
            response = await asking
        except ConnectFailed as error:
            without_frames(error)
            raise self._unreachable(error) from None
        except AnswerBroken as error:
            without_frames(error)
            logger.warning("provider %s broke the connection: %s", client.provider.name, describe(error))
            raise after_it_may_have_been_sent(error) from None
        finally:
            self._observation.provider_s += perf_counter() - began
        self._response = response
        self._served.status = response.status
        self._body_reader = BodyReader(response.head.encoding, self._read_as_sent, client.provider.max_response_bytes)
        if response.status not in SUCCESSES:
            raise await self._refusal(response)
        reported = await self._error_at_the_begin()
        if reported is not None:
            raise reported

    async def _error_at_the_begin(self) -> ProxyError | None:
        """The error that the body of a 2xx consists of, where it begins as one; ``read`` gives again what was read."""
        said = await self._read_begin()
        while (is_error := begins_as_error(said)) and len(said) <= ERROR_BODY_BYTES and (piece := await self.read()):
            said += piece
        self._begin = said
        self.said = said if len(said) <= SAID_BYTES else b""
        if not is_error or len(said) > ERROR_BODY_BYTES:
            return None
        report = read_report(said)
        return error_in_answer(report) if report.says_anything else None

    def _unreachable(self, error: ConnectFailed) -> UpstreamUnreachable:
        unreachable = before_it_was_sent(error)
        if isinstance(unreachable, NoConnectionLeft):
            logger.error(
                "no descriptor is left for a connection to provider %s: raise the limit (LimitNOFILE of systemd, "
                "ulimit -n), or lower server.max_connections",
                self.client.provider.name,
            )
        else:
            logger.warning("provider %s cannot be reached: %s", self.client.provider.name, describe(error))
        return unreachable

    async def _send_files(self, body: OutgoingBody, credentials: Mapping[str, str] | None) -> Response:
        upload = Upload(pieces_of(body), body.size_bytes, self._uploaded)
        headers = {**(credentials or {}), "Content-Type": body.content_type}
        del body
        try:
            return await self.client.http.post_upload(self._url, upload, headers)
        except AnswerBroken:
            unreadable = upload.unreadable
            if unreadable is None:
                raise
        logger.error("an upload cannot be read any more: look at the disk of server.upload_folder", exc_info=unreadable)
        raise UploadsUnavailable from unreadable

    async def _sign(self) -> Mapping[str, str]:
        """The headers that say who asks for just this body."""
        body = self._body
        kind = JSON if isinstance(body, bytes) else body.content_type
        try:
            digest = await digest_of(body)
        except (OSError, ValueError) as error:
            logger.exception("an upload cannot be read any more: look at the disk of server.upload_folder")
            raise UploadsUnavailable from error
        return await self.client.sign(self._url, kind, digest)

    def _uploaded(self) -> None:
        # What a provider takes slowly is not an answer that is late.
        if self._response is None:
            self.watchdog.phase(self.client.provider.first_byte_timeout_s, self._interrupt)

    async def _refusal(self, response: Response) -> ProxyError:
        client = self.client
        self.watchdog.phase(client.provider.idle_timeout_s, self._interrupt)
        body = bytearray()
        try:
            while len(body) < ERROR_BODY_BYTES and (piece := await response.read()):
                body += piece
        except AnswerBroken:
            logger.warning("provider %s broke its refusal off", client.provider.name)
        said = decompressed(response.head.encoding, bytes(body), ERROR_BODY_BYTES)
        return client.dialect.read_refusal(response.status, response.headers, said)

    def _note(self, error: ProxyError) -> None:
        """Tell the operator what the provider says of an error, and of what only the operator can mend."""
        provider, said = self.client.provider.name, error.provider_error
        self._observation.provider_error = said
        if isinstance(error, ProviderOutOfCredit):
            self.client.metrics.out_of_credit(provider)
            logger.error(
                "provider %s refuses this gateway's account (%d, %s): look there at its credit, quota and billing, and "
                "at the countries that it may be used from",
                provider,
                self._served.status,
                said or "no code",
            )
        elif isinstance(error, UpstreamMisconfigured) and not isinstance(error, NoCredentials):
            logger.error(
                "provider %s answers %d: check its base_url, its upstream_model and its key (api_key_env or auth) (%s)",
                provider,
                self._served.status,
                said or "no code",
            )

    def _interrupt(self) -> None:
        self.watchdog.interrupt(UpstreamTimeout("The provider took too long to answer."))


def ask(client: ProviderClient, asked: Asked, model: Model, served: Served, observation: Observation) -> Exchange:
    """Ask a provider for images, or for the next message of a chat, as its dialect does; nothing is sent yet."""
    dialect = client.dialect
    path: str
    body: bytes | OutgoingBody
    if isinstance(asked, ChatRequest):
        chat = dialect.chat
        if chat is None:
            raise no_chat()
        path, body = chat.path(asked, model), chat.write(asked, model)
    else:
        path = dialect.images_path(asked, model)
        if asked.task is Task.GENERATION:
            body = dialect.write_generation(asked, model)
        else:
            body = dialect.write_edit(asked, model, secrets.token_hex(16))
    kind: type[Exchange] = client.exchange_kind or Exchange
    return kind(client, asked, model, client.url(path, model.upstream_model), body, served, observation)
