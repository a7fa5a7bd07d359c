"""Which deployment of a model gets a request. Pure policy: no I/O, and the time is passed in.

A deployment is available to a key while its breaker lets the key's requests through, the provider has not asked for a
pause, and it has room. Of those of the lowest priority, one that has the least in flight for its weight is chosen.
Where they differ by less than one request at the lightest of them, that is alike: two at a deployment of weight 20 are
no more than none at one of weight 1. Of those that are alike, weights are kept by stride scheduling (Waldspurger,
1995), so that a quiet gateway shares by weight as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from proxy.domain.catalog import Deployment, Model
from proxy.domain.records import record
from proxy.upstream.breaker import BREAKER, BreakerPolicy, FairBreaker, Probes, Result, State


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


class SharedInFlight(Protocol):
    """What all processes of a gateway have in flight at one deployment."""

    @property
    def used(self) -> int:
        """All of it."""

    def take(self, amount: int, limit: int) -> bool:
        """Have ``amount`` more, unless that would be more than ``limit`` together."""

    def give(self, amount: int) -> None:
        """Have ``amount`` less."""


class Target:
    """A deployment and how it is doing."""

    __slots__ = (
        "_limited_key_id", "_limited_until_s", "_policy", "_shared", "breaker", "deployment", "in_flight", "index",
        "last_key_id", "passed", "paused_until_s", "stride",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        deployment: Deployment,
        policy: BreakerPolicy,
        stride: int,
        shared: SharedInFlight | None = None,
    ) -> None:
        """Begin with nothing in flight. ``index`` is its place in the configuration, ``stride`` goes by 1 / weight.

        Where several processes ask it, ``shared`` is what they have in flight together.
        """
        self._shared = shared
        self.index = index
        self.deployment = deployment
        self.breaker = FairBreaker(policy)
        self.in_flight = 0
        self.paused_until_s = 0.0
        """For all keys."""
        self.last_key_id = ""
        self.stride = stride
        self.passed = 0
        """Virtual time: each request moves it by a stride."""
        self._policy = policy
        self._limited_key_id: str | None = None
        self._limited_until_s = -math.inf

    def available(self, now_s: float, key_id: str) -> bool:
        """Whether it may get a request of this key now."""
        limit = self.deployment.max_in_flight
        has_room = limit is None or (self.in_flight if self._shared is None else self._shared.used) < limit
        return has_room and not self.is_paused(now_s, key_id) and self.breaker.allows(now_s, key_id)

    def enter(self) -> bool:
        """Count one more in flight; False where other processes have taken the last room meanwhile."""
        limit = self.deployment.max_in_flight
        if self._shared is not None and limit is not None and not self._shared.take(1, limit):
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Count one less."""
        self.in_flight -= 1
        if self._shared is not None and self.deployment.max_in_flight is not None:
            self._shared.give(1)

    @property
    def load(self) -> int:
        """What is in flight for its weight, in strides."""
        return self.in_flight * self.stride

    def is_paused(self, now_s: float, key_id: str) -> bool:
        """Whether the provider has asked for a pause that is this key's as well."""
        return self.pause_s(now_s, key_id) > 0

    def pause_s(self, now_s: float, key_id: str) -> float:
        """Seconds that are left of a pause for this key."""
        own_until_s = self._limited_until_s if key_id == self._limited_key_id else 0.0
        return max(self.paused_until_s, own_until_s) - now_s

    def pause(self, now_s: float, key_id: str, seconds: float) -> None:
        """The provider has asked for a pause in its answer to this key.

        Mostly it means its whole account, but it may mean what this client asked for, and a client may choose that. So
        the key itself pauses for all of it. The others pause for ``first_pause_s`` at most, and for more only where
        another key had one before that one's pause was over: then until the earlier of the two ends. Told to
        the same key again, it is no news, and stops nobody else.
        """
        until_s = now_s + min(seconds, self._policy.pause_limit_s)
        if key_id == self._limited_key_id:
            self._limited_until_s = max(self._limited_until_s, until_s)
            return
        agreed_s = max(self._limited_until_s, now_s + self._policy.first_pause_s)
        self.paused_until_s = max(self.paused_until_s, min(until_s, agreed_s))
        self._limited_key_id, self._limited_until_s = key_id, until_s

    def state(self, now_s: float) -> State:
        """As the key meets it whose request was the last to be sent there; a pause counts as open."""
        paused = self.is_paused(now_s, self.last_key_id)
        return State.OPEN if paused else self.breaker.state(now_s, self.last_key_id)


@record
class Attempt:
    """A request that is in flight at a deployment; ``Balancer.end`` has to be called at its end, once."""

    target: Target
    key_id: str
    probes: Probes


class Balancer:
    """The deployments of one model."""

    def __init__(
        self,
        model: Model,
        policy: BreakerPolicy = BREAKER,
        share: Callable[[Deployment], SharedInFlight | None] = lambda _deployment: None,
    ) -> None:
        """Begin with every breaker closed. ``models`` are the model as each deployment knows it.

        What other processes have in flight at a deployment is known by ``share``.
        """
        self.model = model
        self.models = tuple(
            replace(model, provider=one.provider, upstream_model=one.upstream_model, wording=one.wording)
            for one in model.deployments
        )
        # Strides are whole numbers, so that equal shares compare as equal.
        common = math.lcm(*(one.weight for one in model.deployments))
        self.targets = tuple(
            Target(index, one, policy, common // one.weight, share(one)) for index, one in enumerate(model.deployments)
        )
        self.budget = RetryBudget()
        # Of each priority its own: the main ones' requests would lift all spares alike, and one would get everything.
        self._virtual_times = dict.fromkeys((one.priority for one in model.deployments), 0)

    def begin(self, now_s: float, key_id: str, tried: frozenset[int] = frozenset()) -> Attempt | None:
        """Choose a deployment whose index is not in ``tried``, and count the key's request as in flight there."""
        available = [one for one in self.targets if one.available(now_s, key_id)]
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
        if not chosen.enter():
            return self.begin(now_s, key_id, tried | {chosen.index})
        chosen.passed += chosen.stride
        chosen.last_key_id = key_id
        return Attempt(chosen, key_id, chosen.breaker.begin(now_s, key_id))

    def has_another(self, now_s: float, key_id: str, tried: frozenset[int]) -> bool:
        """Whether there is a deployment, available to this key, that is not in ``tried``."""
        return any(one.index not in tried and one.available(now_s, key_id) for one in self.targets)

    def end(self, attempt: Attempt, now_s: float, result: Result, retry_after_s: float | None = None) -> None:
        """The request has ended; ``retry_after_s`` is what the provider asked for."""
        target = attempt.target
        target.leave()
        target.breaker.end(now_s, attempt.key_id, result, attempt.probes)
        if retry_after_s is not None:
            target.pause(now_s, attempt.key_id, retry_after_s)

    def available_in_s(self, now_s: float, key_id: str, besides: Target | None = None) -> float:
        """Seconds until a deployment that is closed to this key may be tried; 0 where one only lacks room.

        ``besides`` is not looked at; infinite where there is no other.
        """
        return min(
            (
                max(target.pause_s(now_s, key_id), target.breaker.opens_again_s(now_s, key_id), 0.0)
                for target in self.targets
                if target is not besides
            ),
            default=math.inf,
        )

    def all_paused(self, now_s: float, key_id: str) -> bool:
        """Whether every provider has asked for a pause that is this key's as well."""
        return all(target.is_paused(now_s, key_id) for target in self.targets)

    def states(self, now_s: float) -> Iterator[tuple[str, State]]:
        """Each provider's state, for its metric."""
        for target in self.targets:
            yield target.deployment.provider, target.state(now_s)
