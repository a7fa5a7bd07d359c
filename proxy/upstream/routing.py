"""Which deployment of a model gets a request. Pure policy: no I/O, and the time is passed in.

A deployment is available while its breaker lets requests through, the provider has not asked for a
pause, and it has room. Of those of the lowest priority, one that has the least in flight for its weight is chosen.
Where they differ by less than one request at the lightest of them, that is alike: two at a deployment of weight 20 are
no more than none at one of weight 1. Of those that are alike, weights are kept by stride scheduling (Waldspurger,
1995), so that a quiet gateway shares by weight as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from proxy.domain.catalog import Deployment, Model


class Result(StrEnum):
    """How an attempt ended. ``NEITHER`` tells nothing of the deployment: the client left, or the gateway stopped."""

    OK = "ok"
    FAILED = "failed"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    NEITHER = "neither"


class State(IntEnum):
    """Of a breaker; the number is the metric's."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and how it closes again.

    It opens after ``consecutive`` failures on end, or where at least ``error_rate`` of at least ``least_requests`` in
    the last ``window_s`` seconds failed. After ``open_s`` seconds it lets ``probes`` requests through at a time;
    ``successes`` of them close it, and a failure opens it for twice as long, at most ``open_limit_s``. A provider's
    Retry-After pauses a deployment for at most ``pause_limit_s``.
    """

    consecutive: int = 5
    error_rate: float = 0.5
    least_requests: int = 20
    window_s: float = 30.0
    open_s: float = 5.0
    open_limit_s: float = 120.0
    probes: int = 1
    successes: int = 2
    pause_limit_s: float = 300.0


BREAKER = BreakerPolicy()
SLICES = 10
"""Of the window; the oldest is forgotten as a whole."""


class Window:
    """Requests and failures of the last seconds."""

    __slots__ = ("_counts", "_slice", "_slice_s")

    def __init__(self, window_s: float) -> None:
        """Remember ``window_s`` seconds, to a tenth."""
        self._slice_s = window_s / SLICES
        self._slice = 0
        self._counts = [[0, 0] for _ in range(SLICES)]

    def add(self, now_s: float, *, failed: bool) -> None:
        """Count a request that has ended."""
        self._turn(now_s)
        counts = self._counts[self._slice % SLICES]
        counts[0] += 1
        counts[1] += failed

    def totals(self, now_s: float) -> tuple[int, int]:
        """How many requests ended, and how many of them by a failure."""
        self._turn(now_s)
        return sum(counts[0] for counts in self._counts), sum(counts[1] for counts in self._counts)

    def clear(self) -> None:
        """Forget all."""
        self._counts = [[0, 0] for _ in range(SLICES)]

    def _turn(self, now_s: float) -> None:
        current = int(now_s / self._slice_s)
        for passed in range(max(self._slice + 1, current - SLICES + 1), current + 1):
            self._counts[passed % SLICES] = [0, 0]
        self._slice = max(self._slice, current)


class Breaker:
    """Keeps requests from a deployment that fails, and tries it again with few."""

    __slots__ = ("_consecutive", "_open_s", "_open_until_s", "_policy", "_probing", "_state", "_successes", "_window")

    def __init__(self, policy: BreakerPolicy = BREAKER) -> None:
        """Begin closed."""
        self._policy = policy
        self._window = Window(policy.window_s)
        self._state = State.CLOSED
        self._consecutive = 0
        self._successes = 0
        self._probing = 0
        self._open_s = policy.open_s
        self._open_until_s = 0.0

    def state(self, now_s: float) -> State:
        """An open breaker is half-open once its time is over."""
        if self._state is State.OPEN and now_s >= self._open_until_s:
            self._state, self._successes, self._probing = State.HALF_OPEN, 0, 0
        return self._state

    def allows(self, now_s: float) -> bool:
        """Whether a request may be sent now."""
        state = self.state(now_s)
        return state is State.CLOSED or (state is State.HALF_OPEN and self._probing < self._policy.probes)

    def opens_again_s(self, now_s: float) -> float:
        """Seconds until it may be tried."""
        return max(0.0, self._open_until_s - now_s) if self._state is State.OPEN else 0.0

    def begin(self, now_s: float) -> bool:
        """A request is sent; true where it is a probe, which ``end`` has to be told."""
        if self.state(now_s) is not State.HALF_OPEN:
            return False
        self._probing += 1
        return True

    def end(self, now_s: float, *, failed: bool | None, probe: bool) -> None:
        """The request has ended; ``failed`` None tells nothing of the deployment."""
        state = self.state(now_s)
        if probe and state is State.HALF_OPEN:
            self._probing = max(0, self._probing - 1)
        if failed is None:
            return
        if state is State.CLOSED:
            self._count(now_s, failed=failed)
        elif state is State.HALF_OPEN and probe:
            # What was sent before it opened tells of the time before.
            self._judge_probe(now_s, failed=failed)

    def _count(self, now_s: float, *, failed: bool) -> None:
        policy = self._policy
        self._window.add(now_s, failed=failed)
        self._consecutive = self._consecutive + 1 if failed else 0
        if not failed:
            return
        requests, failures = self._window.totals(now_s)
        too_many = requests >= policy.least_requests and failures >= policy.error_rate * requests
        if too_many or self._consecutive >= policy.consecutive:
            self._open(now_s)

    def _judge_probe(self, now_s: float, *, failed: bool) -> None:
        if failed:
            self._open_s = min(2 * self._open_s, self._policy.open_limit_s)
            self._open(now_s)
            return
        self._successes += 1
        if self._successes >= self._policy.successes:
            self._state, self._consecutive, self._open_s = State.CLOSED, 0, self._policy.open_s
            self._window.clear()

    def _open(self, now_s: float) -> None:
        self._state, self._open_until_s = State.OPEN, now_s + self._open_s


class RetryBudget:
    """A token bucket for second tries, so that an outage does not multiply the load.

    Each request brings ``share`` of a retry, and each second ``floor_per_s``; at most ``limit`` are saved up.
    """

    __slots__ = ("_at_s", "_tokens", "floor_per_s", "limit", "share")

    def __init__(self, share: float = 0.2, floor_per_s: float = 1.0, limit: float = 10.0) -> None:
        """Begin with a full bucket."""
        self.share, self.floor_per_s, self.limit = share, floor_per_s, limit
        self._tokens = limit
        self._at_s = -math.inf

    def request(self) -> None:
        """A request has come."""
        self._tokens = min(self.limit, self._tokens + self.share)

    def take(self, now_s: float) -> bool:
        """Whether one more try is within the budget, which then pays for it."""
        self._tokens = min(self.limit, self._tokens + self.floor_per_s * max(0.0, now_s - self._at_s))
        self._at_s = max(self._at_s, now_s)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Target:
    """A deployment and how it is doing."""

    __slots__ = ("breaker", "deployment", "in_flight", "index", "passed", "paused_until_s", "stride")

    def __init__(self, index: int, deployment: Deployment, policy: BreakerPolicy, stride: int) -> None:
        """Begin with nothing in flight. ``index`` is its place in the configuration, ``stride`` goes by 1 / weight."""
        self.index = index
        self.deployment = deployment
        self.breaker = Breaker(policy)
        self.in_flight = 0
        self.paused_until_s = 0.0
        self.stride = stride
        self.passed = 0
        """Virtual time: each request moves it by a stride."""

    @property
    def load(self) -> int:
        """What is in flight for its weight, in strides."""
        return self.in_flight * self.stride

    def available(self, now_s: float) -> bool:
        """Whether it may get a request now."""
        limit = self.deployment.max_in_flight
        has_room = limit is None or self.in_flight < limit
        return has_room and now_s >= self.paused_until_s and self.breaker.allows(now_s)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that is in flight at a deployment; ``Balancer.end`` is told of its end, once."""

    target: Target
    probe: bool


class Balancer:
    """The deployments of one model."""

    def __init__(self, model: Model, policy: BreakerPolicy = BREAKER) -> None:
        """Begin with every breaker closed. ``models`` are the model as each deployment knows it."""
        self.model = model
        self.models = tuple(
            replace(model, provider=one.provider, upstream_model=one.upstream_model) for one in model.deployments
        )
        # Strides are whole numbers, so that equal shares compare as equal.
        common = math.lcm(*(one.weight for one in model.deployments))
        self.targets = tuple(
            Target(index, one, policy, common // one.weight) for index, one in enumerate(model.deployments)
        )
        self.budget = RetryBudget()
        self._policy = policy
        # Of each priority its own: the main ones' requests would lift all spares alike, and one would get everything.
        self._virtual_times = dict.fromkeys((one.priority for one in model.deployments), 0)

    def begin(self, now_s: float, tried: frozenset[int] = frozenset()) -> Attempt | None:
        """Choose a deployment whose index is not in ``tried``, and count the request as in flight there."""
        available = [one for one in self.targets if one.available(now_s)]
        untried = [one for one in available if one.index not in tried]
        if not untried:
            return None
        priority = min(one.deployment.priority for one in untried)
        peers = [one for one in available if one.deployment.priority == priority]
        # One that was away for long does not catch up on what it missed.
        for target in peers:
            target.passed = max(target.passed, self._virtual_times[priority])
        self._virtual_times[priority] = min(target.passed for target in peers)
        choices = [one for one in untried if one.deployment.priority == priority]
        least, one_request = min(one.load for one in choices), max(one.stride for one in choices)
        # Always the very least would be the lightest one too often, which is often without any.
        alike = (one for one in choices if one.load < least + one_request)
        chosen = min(alike, key=lambda one: (one.passed, one.index))
        chosen.passed += chosen.stride
        chosen.in_flight += 1
        return Attempt(chosen, chosen.breaker.begin(now_s))

    def has_another(self, now_s: float, tried: frozenset[int]) -> bool:
        """Whether there is an available deployment that is not in ``tried``."""
        return any(one.index not in tried and one.available(now_s) for one in self.targets)

    def end(self, attempt: Attempt, now_s: float, result: Result, retry_after_s: float | None = None) -> None:
        """The request has ended; ``retry_after_s`` is what the provider asked for."""
        target = attempt.target
        target.in_flight -= 1
        # A rate limit is the provider at work: it pauses, and the breaker learns nothing.
        failed = {Result.OK: False, Result.FAILED: True, Result.UNREACHABLE: True}.get(result)
        target.breaker.end(now_s, failed=failed, probe=attempt.probe)
        if retry_after_s is not None:
            until_s = now_s + min(retry_after_s, self._policy.pause_limit_s)
            target.paused_until_s = max(target.paused_until_s, until_s)

    def available_in_s(self, now_s: float, besides: Target | None = None) -> float:
        """Seconds until a deployment that is closed to requests may be tried; 0 where one only lacks room.

        ``besides`` is not looked at; infinite where there is no other.
        """
        return min(
            (
                max(target.paused_until_s - now_s, target.breaker.opens_again_s(now_s), 0.0)
                for target in self.targets
                if target is not besides
            ),
            default=math.inf,
        )

    def all_paused(self, now_s: float) -> bool:
        """Whether every provider has asked for a pause."""
        return all(now_s < target.paused_until_s for target in self.targets)

    def states(self, now_s: float) -> Iterator[tuple[str, State]]:
        """Each provider's breaker; a deployment that pauses counts as open."""
        for target in self.targets:
            paused = now_s < target.paused_until_s
            yield target.deployment.provider, State.OPEN if paused else target.breaker.state(now_s)
