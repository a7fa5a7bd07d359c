"""When a deployment that fails is left alone, and for whom. Pure policy: no I/O, and the time is passed in."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from proxy.domain.records import record


class Result(StrEnum):
    """How an attempt ended. ``NEITHER`` says nothing about the deployment: the client left, or the gateway stopped."""

    OK = "ok"
    FAILED = "failed"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    OUT_OF_CREDIT = "out_of_credit"
    NEITHER = "neither"


# A rate limit is the provider at work: it pauses, and the breaker learns nothing.
_FAILED = {Result.OK: False, Result.FAILED: True, Result.UNREACHABLE: True, Result.OUT_OF_CREDIT: True}


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
    Retry-After pauses a deployment for at most ``pause_limit_s``, and on one key's word alone for ``first_pause_s``.
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
    first_pause_s: float = 5.0


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

    def copy(self) -> Window:
        """One that has seen the same."""
        return deepcopy(self)

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

    def __init__(self, policy: BreakerPolicy = BREAKER, window: Window | None = None, consecutive: int = 0) -> None:
        """Begin closed, with what has been seen before: a window, and ``consecutive`` failures on end."""
        self._policy = policy
        self._window = window or Window(policy.window_s)
        self._state = State.CLOSED
        self._consecutive = consecutive
        self._successes = 0
        self._probing = 0
        self._open_s = policy.open_s
        self._open_until_s = 0.0

    def after_a_failure(self) -> Breaker:
        """A closed one that has seen the same, of which the last was its first failure."""
        return Breaker(self._policy, self._window.copy(), 1)

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
        """A request is sent; true where it is a probe, which ``end`` needs."""
        if self.state(now_s) is not State.HALF_OPEN:
            return False
        self._probing += 1
        return True

    def end(self, now_s: float, *, failed: bool | None, probe: bool) -> None:
        """The request has ended; ``failed`` None says nothing about the deployment."""
        state = self.state(now_s)
        if probe and state is State.HALF_OPEN:
            self._probing = max(0, self._probing - 1)
        if failed is None:
            return
        if state is State.CLOSED:
            self._count(now_s, failed=failed)
        elif state is State.HALF_OPEN and probe:
            # What was sent before it opened says something about the time before.
            self._judge_probe(now_s, failed=failed)

    def open_at_once(self, now_s: float) -> None:
        """Open for ``open_limit_s``: it need not fail again to be known."""
        self._open_s = self._policy.open_limit_s
        self._open(now_s)

    def end_run(self) -> None:
        """The failures were not on end."""
        self._consecutive = 0

    def refuse_probe(self, now_s: float, other: Breaker) -> None:
        """Open, where it is closed, as ``other`` would by a probe that failed."""
        if self.state(now_s) is State.CLOSED:
            self._open_s = min(2 * other._open_s, self._policy.open_limit_s)
            self._open(now_s)

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


@record
class Probes:
    """Whose probe a request is: that of the breaker for all, and that of one key's own breaker."""

    shared: bool
    own: Breaker | None


class FairBreaker:
    """A breaker that no key alone can open for others.

    A client may choose that its requests fail: by a prompt that the provider always answers with a 500. So of the
    failures of one key only the first counts for all, until another key's request fails: a key's failures count at most
    once more than those of everybody else. All of them count in a breaker of the key's own, which keeps out that key
    alone. Where only one key asks, that one opens as ever, and the next key finds out for itself. For each failure that
    did not count, one of the key's successes does not count either: it would hide the failures of others.

    That no connection could be had is no client's doing, and always counts. Nor is it that a provider refuses the
    gateway's account, which it then does for everybody: the first such answer opens the breaker for all. Where a key's
    probe fails and its last request did so too, the key's own breaker opens, and others may send the next probe.

    One key is remembered, the one that failed last, so that memory does not grow with keys.
    """

    __slots__ = ("_failing", "_own", "_shared", "_uncounted")

    def __init__(self, policy: BreakerPolicy = BREAKER) -> None:
        """Begin closed. ``policy.consecutive`` is at least 2: one failure would be one key's."""
        self._shared = Breaker(policy)
        self._failing: str | None = None
        self._own = Breaker(policy)
        self._uncounted = 0

    def state(self, now_s: float, key_id: str) -> State:
        """As requests of this key meet it."""
        shared = self._shared.state(now_s)
        return max(shared, self._own.state(now_s)) if key_id == self._failing else shared

    def allows(self, now_s: float, key_id: str) -> bool:
        """Whether a request of this key may be sent now."""
        return self._shared.allows(now_s) and (key_id != self._failing or self._own.allows(now_s))

    def opens_again_s(self, now_s: float, key_id: str) -> float:
        """Seconds until this key may try it."""
        shared_s = self._shared.opens_again_s(now_s)
        return max(shared_s, self._own.opens_again_s(now_s)) if key_id == self._failing else shared_s

    def begin(self, now_s: float, key_id: str) -> Probes:
        """A request is sent; ``end`` needs what this returns."""
        own = self._own if key_id == self._failing and self._own.begin(now_s) else None
        return Probes(self._shared.begin(now_s), own)

    def end(self, now_s: float, key_id: str, result: Result, probes: Probes) -> None:
        """The request has ended."""
        failed = _FAILED.get(result)
        again = key_id == self._failing
        if again:
            self._own.end(now_s, failed=failed, probe=probes.own is self._own)
        closed = self._shared.state(now_s) is State.CLOSED
        if result is Result.OUT_OF_CREDIT:
            self._shared.end(now_s, failed=None, probe=probes.shared)
            if closed or probes.shared:
                self._shared.open_at_once(now_s)
        elif again and result is Result.FAILED:
            self._uncounted += 1
            self._shared.end(now_s, failed=None, probe=probes.shared)
            if probes.shared:
                self._own.refuse_probe(now_s, self._shared)
        elif again and result is Result.OK and closed and self._uncounted:
            self._uncounted -= 1
            self._shared.end_run()
        else:
            self._shared.end(now_s, failed=failed, probe=probes.shared)
            # What was sent before it opened says something about the time before.
            if result is Result.FAILED and (closed or probes.shared):
                self._failing, self._own, self._uncounted = key_id, self._shared.after_a_failure(), 0
