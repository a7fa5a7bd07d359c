"""Requests and faults by chance, the same for the same seed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

DURATION_S = 2.5
ORDERS = 40
GATEWAYS = 2
KEYS = 4

STORE_FAULTS = (
    "kill_store",
    "store_reset",
    "store_half_close",
    "store_stall",
    "store_away",
    "store_slow",
    "store_pause",
    "scripts_flushed",
    "admit_reply_lost",
    "settle_reply_lost",
    "renew_reply_lost",
)
GATEWAY_FAULTS = ("kill_gateway", "kill_gateway", "stop_gateway", "freeze_gateway", "kill_both")
PROVIDER_FAULTS = (
    "provider_reset",
    "provider_half_close",
    "provider_stall",
    "provider_away",
    "provider_slow",
    "provider_reply_lost",
)
ANSWERS = (
    *("delay_ms=50",) * 4,
    "delay_ms=300",
    "delay_ms=1500",
    "delay_ms=100 image_bytes=100000",
    "image_bytes=40000 chunk_bytes=20000 chunk_delay_ms=60",
    "image_bytes=1000000",
    "images=0",
    "images=1",
    "images=6",
    "status=400",
    "status=500",
    "malformed",
    "drop_connection",
    "truncate_after=150 image_bytes=60",
    "image_bytes=100000 truncate_after=150000",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong ``at_s`` seconds after the start; where it lasts, for ``lasts_s``."""

    at_s: float
    kind: str
    lasts_s: float
    gateway: int


@dataclass(frozen=True, slots=True)
class Order:
    """A client's request, sent ``sends`` times with one Idempotency-Key where that is more than once."""

    at_s: float
    number: int
    gateway: int
    key: int
    images: int
    answer: str
    leaves_after_s: float | None
    sends: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that happens in one round."""

    seed: int
    faults: tuple[Fault, ...]
    orders: tuple[Order, ...]

    def describe(self) -> str:
        """What to read when a round has failed."""
        lines = [
            f"  {fault.at_s:.2f} s: {fault.kind} of {fault.gateway} for {fault.lasts_s:.2f} s" for fault in self.faults
        ]
        return "\n".join([f"seed {self.seed}, {len(self.orders)} requests in {DURATION_S} s", *lines])


def make_schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    random = Random(seed)  # noqa: S311 - it has to be repeatable
    faults = sorted(_faults(random), key=lambda fault: fault.at_s)
    return Schedule(seed, tuple(faults), tuple(_order(random, number) for number in range(ORDERS)))


def _faults(random: Random) -> Iterator[Fault]:
    for kinds, most in ((STORE_FAULTS, 3), (GATEWAY_FAULTS, 2), (PROVIDER_FAULTS, 2)):
        for _ in range(random.randint(1, most)):
            yield Fault(
                at_s=random.uniform(0.1, DURATION_S),
                kind=random.choice(kinds),
                lasts_s=random.choice((0.05, 0.3, 0.8, 1.5)),
                gateway=random.randrange(GATEWAYS),
            )


def _order(random: Random, number: int) -> Order:
    return Order(
        at_s=random.uniform(0.0, DURATION_S),
        number=number,
        gateway=random.randrange(GATEWAYS),
        key=random.randrange(KEYS),
        images=random.randint(1, 4),
        answer=random.choice(ANSWERS),
        leaves_after_s=random.choice((None, None, None, None, 0.02, 0.2)),
        sends=random.choice((1, 1, 1, 2, 3)),
    )
