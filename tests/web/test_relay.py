"""One answer on its way to one client: whatever happens at which await, what came is written down once, and truly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import orjson
import pytest
from aiohttp import web

from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.writing import ImagesHead
from proxy.domain.billing.pricing import Terms
from proxy.domain.billing.settlement import Delivery, Outcome
from proxy.domain.errors import ClientGone, ProviderRefusal, UpstreamTimeout, UpstreamTruncated, UpstreamUncertain
from proxy.telemetry.observation import Observation
from proxy.upstream.dialects.openai import READING
from proxy.upstream.exchange import Exchange
from proxy.web import relay as module
from proxy.web.relay import Relay, RelayLimits
from tests.support.virtual_time import now_s, run

QUIET = RelayLimits(write_timeout_s=60, keep_alive_s=0)
LIMITS = RelayLimits(write_timeout_s=60, keep_alive_s=15, json_keep_alive_s=20)
IMAGE = b'{"created":1,"data":[{"url":"https://images.example/1.png"}]}'
LARGE = b'{"created":1,"data":[{"b64_json":"%b"},{"b64_json":"B"}]}' % (b"A" * 100_000)
EVENT = b'data: {"type":"image_generation.completed","b64_json":"AAAA"}\n\n'
REFUSAL = ProviderRefusal("no", provider_status=400, provider_code=None, param=None)


class Watch:
    """A watchdog that notes what it is told."""

    def __init__(self) -> None:
        self.granted_s = 0.0
        self.on_expiry: Callable[[], None] | None = None

    def phase(self, _limit_s: float, on_expiry: Callable[[], None], *, counted: bool = True) -> None:
        self.on_expiry = on_expiry

    def grant(self, seconds: float) -> None:
        self.granted_s += seconds


class Upstream:
    """An exchange whose provider answers with ``steps``: pieces, errors, and seconds of waiting."""

    def __init__(self, *steps: bytes | BaseException | float, stream: bool = False, enter_s: float = 0.0) -> None:
        self.steps = list(steps)
        self.stream = stream
        self.enter_s = enter_s
        self.is_whole = False
        self.is_open = False
        self.watchdog = Watch()

    async def __aenter__(self) -> Self:
        await asyncio.sleep(self.enter_s)
        self.is_open = True
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.is_open = False

    async def answer(self) -> Any:
        events = any(isinstance(step, bytes) and step.startswith(b"data:") for step in self.steps)
        return read_images(READING, ImagesHead(1), comes_as_events=events, stream=self.stream)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, bytes):
                return step
            await asyncio.sleep(step)
        return b""


class Interrupted(Upstream):
    """One whose provider sends ``steps`` and then nothing more, so that its watchdog ends it."""

    async def read(self) -> bytes:
        if self.steps:
            return await super().read()
        raise asyncio.CancelledError

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        if isinstance(error[1], asyncio.CancelledError):
            raise UpstreamTimeout("late")


class Transport:
    """The client's connection."""

    is_aborted = False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.is_aborted = True


class Request:
    """The client's request, for as long as it stays."""

    def __init__(self) -> None:
        self.transport: Transport | None = Transport()


class Response:
    """What the client gets, as it comes; ``leaves_after`` so many pieces it is gone."""

    leaves_after: int | None = None
    made: Sequence[Response] = ()

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.pieces: list[tuple[float, bytes]] = []
        self.end = b""
        Response.made = [*Response.made, self]

    async def prepare(self, _request: object) -> None:
        await asyncio.sleep(0)

    def put(self, _piece: bytes) -> bool:
        return False

    async def pass_on(self, piece: bytes) -> None:
        await asyncio.sleep(0)
        if self.leaves_after is not None and len(self.pieces) >= self.leaves_after:
            raise ConnectionResetError
        self.pieces.append((now_s(), piece))

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces) + self.end


@pytest.fixture(autouse=True)
def _responses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "StreamedResponse", Response)
    monkeypatch.setattr(Response, "made", ())
    monkeypatch.setattr(Response, "leaves_after", None)


class Play:
    """One answer, asked for."""

    def __init__(
        self, upstream: Upstream, *, limits: RelayLimits = QUIET, images_most: int = 16, kept: int = 0
    ) -> None:
        self.upstream = upstream
        self.request = Request()
        self.delivery = Delivery(Terms(kept_answer_bytes=kept))
        self.observation = Observation("req_1", "/v1/images/generations")
        self._limits, self._images_most = limits, images_most

    async def answer(self) -> web.StreamResponse:
        relay = Relay(
            cast("web.Request", self.request),
            self.observation,
            cast("Exchange", self.upstream),
            self._limits,
            self.delivery,
            is_stream=self.upstream.stream,
            images_most=self._images_most,
        )
        return await relay.answer()

    def body(self) -> bytes:
        answered: Any = run(self.answer())
        return bytes(answered.body)


def test_a_small_answer_is_given_whole_and_kept() -> None:
    play = Play(Upstream(IMAGE[:20], IMAGE[20:]), kept=1_000)
    body = play.body()
    assert orjson.loads(body) == orjson.loads(IMAGE)
    assert (play.delivery.outcome, play.delivery.images, play.delivery.whole) == (Outcome.DELIVERED, 1, True)
    assert (play.delivery.body, play.upstream.is_whole, play.upstream.is_open) == (body, True, False)
    assert Response.made == ()


def test_a_large_answer_flows_and_its_end_is_left_to_whoever_settles() -> None:
    play = Play(Upstream(*(LARGE[at : at + 40_000] for at in range(0, len(LARGE), 40_000))), kept=1_000)
    assert orjson.loads(play.body())["data"][1] == {"b64_json": "B"}
    (response,) = Response.made
    assert response.end.endswith(b"}")
    assert (play.delivery.images, play.delivery.body) == (2, None)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_anything_was_sent_is_raised(*, stream: bool) -> None:
    for error, outcome in ((REFUSAL, Outcome.REFUSED), (UpstreamTimeout("late"), Outcome.FAILED)):
        play = Play(Upstream(error, stream=stream))
        with pytest.raises(type(error)):
            run(play.answer())
        assert (play.delivery.outcome, play.delivery.images, Response.made) == (outcome, 0, ())


def test_an_answer_that_breaks_off_while_it_is_held_is_closed() -> None:
    two = b'{"data":[{"url":"https://images.example/1.png"},{"url":"https://images.exa'
    play = Play(Upstream(two, UpstreamTimeout("late")), kept=1_000)
    body = play.body()
    assert len(orjson.loads(body)["data"]) == 1
    assert (play.delivery.outcome, play.delivery.images, play.delivery.body) == (Outcome.TRUNCATED, 1, body)
    assert not play.upstream.is_whole


TWO_LARGE = b'{"created":1,"data":[{"b64_json":"%b"},{"b64_json":"%b"}]}' % (b"A" * 100_000, b"B" * 100_000)
BETWEEN = TWO_LARGE.index(b'"', 50_000) + 1
BROKEN = [UpstreamTimeout("late"), UpstreamUncertain("it broke"), REFUSAL, None]


@pytest.mark.parametrize("error", BROKEN, ids=repr)
@pytest.mark.parametrize("left", [0, 1, 2, 20])
def test_an_answer_that_breaks_off_between_two_images_is_closed_though_it_flows(
    left: int, error: Exception | None
) -> None:
    steps = [TWO_LARGE[:90_000], TWO_LARGE[90_000 : BETWEEN + left]]
    play = Play(Upstream(*steps, *([] if error is None else [error])), kept=200_000)
    transport = play.request.transport
    body = play.body()
    assert orjson.loads(body) == {"created": 1, "data": [{"b64_json": "A" * 100_000}]}
    assert transport is not None
    assert not transport.is_aborted
    assert (play.delivery.outcome, play.delivery.images, play.delivery.body) == (Outcome.TRUNCATED, 1, body)
    assert not play.upstream.is_whole


@pytest.mark.parametrize("error", BROKEN, ids=repr)
@pytest.mark.parametrize("end", [90_000, BETWEEN - 1, BETWEEN + 20_000, len(TWO_LARGE) - 4])
def test_an_answer_that_breaks_off_in_an_image_that_flows_is_cut(end: int, error: Exception | None) -> None:
    steps = [TWO_LARGE[:70_000], TWO_LARGE[70_000:end]]
    play = Play(Upstream(*steps, *([] if error is None else [error])))
    transport = play.request.transport
    run(play.answer())
    assert transport is not None
    assert transport.is_aborted
    nothing = Outcome.REFUSED if error is REFUSAL else Outcome.FAILED
    expected = (Outcome.TRUNCATED, 1) if end > BETWEEN else (nothing, 0)
    assert (play.delivery.outcome, play.delivery.images) == expected


@pytest.mark.parametrize("limits", [QUIET, LIMITS])
@pytest.mark.parametrize(("end", "is_closed"), [(30, False), (BETWEEN, True), (BETWEEN + 20_000, False)])
def test_an_answer_that_its_provider_leaves_in_its_middle_is_closed_where_that_can_be(
    limits: RelayLimits, end: int, *, is_closed: bool
) -> None:
    play = Play(Interrupted(TWO_LARGE[:end]), limits=limits)
    transport = play.request.transport
    assert transport is not None
    if end < BETWEEN:
        with pytest.raises(UpstreamTimeout):
            run(play.answer())
        assert (play.delivery.outcome, play.delivery.images) == (Outcome.FAILED, 0)
        return
    body = play.body()
    assert transport.is_aborted is not is_closed
    if is_closed:
        assert orjson.loads(body) == {"created": 1, "data": [{"b64_json": "A" * 100_000}]}
    assert (play.delivery.outcome, play.delivery.images) == (Outcome.TRUNCATED, 1)


def test_a_small_answer_that_its_provider_leaves_in_its_middle_is_closed() -> None:
    play = Play(Interrupted(IMAGE[:-2]), kept=1_000)
    body = play.body()
    assert orjson.loads(body)["data"] == orjson.loads(IMAGE)["data"]
    assert (play.delivery.outcome, play.delivery.images, play.delivery.body) == (Outcome.TRUNCATED, 1, body)


def test_too_many_images_in_an_answer_that_flows_are_cut_and_not_charged() -> None:
    images = b",".join(b'{"b64_json":"%b%d"}' % (b"A" * 70_000, number) for number in range(6))
    play = Play(Upstream(b'{"data":[' + images), images_most=4)
    transport = play.request.transport
    run(play.answer())
    assert transport is not None
    assert transport.is_aborted
    assert (play.delivery.images, play.delivery.outcome) == (4, Outcome.TRUNCATED)


def test_more_images_than_may_come_break_it_off_and_are_not_charged() -> None:
    many = b'{"data":[%b]}' % b",".join(b'{"url":"https://images.example/%d"}' % number for number in range(9))
    play = Play(Upstream(b" " * 70_000 + many), images_most=4)
    with pytest.raises(UpstreamTruncated):
        run(play.answer())
    assert (play.delivery.images, play.delivery.outcome) == (4, Outcome.TRUNCATED)


def test_events_flow_and_an_error_after_them_is_an_event() -> None:
    play = Play(Upstream(EVENT, REFUSAL, stream=True))
    body = play.body()
    assert body.count(b"event: image_generation.completed") == 1
    assert body.rstrip().splitlines()[-2] == b"event: error"
    assert (play.delivery.images, play.delivery.outcome) == (1, Outcome.TRUNCATED)


@pytest.mark.parametrize(
    ("stream", "sign", "times"),
    [(False, b" ", [20, 40, 60, 80, 100]), (True, b": keep-alive\n", [15, 30, 45, 60, 75, 90, 105])],
)
def test_signs_of_life_come_in_time_until_it_begins(*, stream: bool, sign: bytes, times: list[int]) -> None:
    play = Play(Upstream(IMAGE, stream=stream, enter_s=110), limits=LIMITS)
    run(play.answer())
    (response,) = Response.made
    assert [(at, piece) for at, piece in response.pieces if piece == sign] == [(time, sign) for time in times]
    assert play.delivery.outcome is Outcome.DELIVERED


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_after_a_sign_of_life_stands_in_the_answer(*, stream: bool) -> None:
    play = Play(Upstream(REFUSAL, stream=stream, enter_s=50), limits=LIMITS)
    body = play.body()
    assert b'"provider_refusal"' in body
    assert play.delivery.outcome is Outcome.REFUSED
    assert play.observation.error == REFUSAL.code


def test_where_the_client_has_left_the_provider_is_read_to_its_end() -> None:
    for leaves_after in (0, 1, 2):
        Response.leaves_after = leaves_after
        play = Play(Upstream(*(LARGE[at : at + 9_000] for at in range(0, len(LARGE), 9_000))))
        run(play.answer())
        assert play.upstream.steps == []
        assert (play.delivery.outcome, play.delivery.images) == (Outcome.ABANDONED, 2)


def test_a_client_that_left_before_is_no_error_in_an_answer() -> None:
    play = Play(Upstream(ClientGone(), stream=True, enter_s=50), limits=LIMITS)
    with pytest.raises(ClientGone):
        run(play.answer())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limits", [QUIET, LIMITS])
def test_cancelled_at_any_await_it_has_written_down_what_had_come(limits: RelayLimits, *, stream: bool) -> None:
    """The images of a whole piece count, whenever it is broken off; nothing stays open, and no cancellation is lost."""
    pieces = [EVENT, EVENT.replace(b"AAAA", b"BBBB")] if stream else [LARGE[:80_000], LARGE[80_000:]]
    turn = 0
    while True:
        play = Play(Upstream(*pieces, stream=stream, enter_s=50), limits=limits)

        async def cancelled_at(turn: int, play: Play = play) -> bool:
            task = asyncio.create_task(play.answer())
            for _ in range(turn):
                if task.done():
                    return False
                await asyncio.sleep(0 if turn < 400 else 1)
            if task.done():
                return False
            task.cancel()
            await asyncio.wait((task,))
            return task.cancelled()

        was_cancelled = run(cancelled_at(turn))
        assert not play.upstream.is_open
        read = len(pieces) - sum(isinstance(step, bytes) for step in play.upstream.steps)
        assert play.delivery.images <= 2
        if play.delivery.ended and was_cancelled:
            assert play.delivery.images >= (read - 1 if stream else 0)
            assert play.delivery.outcome in (Outcome.TRUNCATED, Outcome.FAILED, Outcome.ABANDONED)
        if not was_cancelled:
            assert play.delivery.images == 2
            break
        turn += 1
    assert turn > 4


def test_the_error_of_a_fault_of_ours_is_not_swallowed() -> None:
    play = Play(Upstream(EVENT, RuntimeError("a bug"), stream=True))
    transport = play.request.transport
    with pytest.raises(RuntimeError):
        run(play.answer())
    assert transport is not None
    assert transport.is_aborted
    assert play.delivery.images == 1
