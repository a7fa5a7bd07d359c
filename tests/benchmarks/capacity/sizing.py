"""From measured costs and assumptions to cores, shards, machines and dollars. Pure.

Each line of the result has its value and how it was worked out. Values are worked out from figures as they are stated,
rounded, so that a reader gets the same from what stands in the manual.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

DAY_S = 86_400
MICRO = 10**6
GIGA = 10**9
LARGE_ANSWER_BYTES = 4_000_000


def stated(text: str, default: float | None = None) -> Any:
    """A field with the words that stand beside its value in the manual."""
    metadata = {"text": text}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, in whole microseconds of processor time and whole bytes."""

    admit_us: float = stated("store: one admission, every limit on key and team, µs of its core")
    settle_us: float = stated("store: one settlement, with its ledger entry, µs of its core")
    small_us: float = stated("gateway: one request whose answer is an address, µs of a core")
    large_us: float = stated("gateway: one request whose answer is 4 MB of base64, µs of a core")
    entry_bytes: float = stated("store: a ledger entry with the provider's usage and the image's size, bytes")
    settled_id_bytes: float = stated("store: a settled id, bytes")
    idempotency_bytes: float = stated("store: an idempotency record without its answer, bytes")
    key_bytes: float = stated("store: a key with every limit that has been used, bytes")
    team_bytes: float = stated("store: a team with every limit that has been used, bytes")
    connection_bytes: float = stated("gateway: an idle connection of a client, bytes")
    in_flight_bytes: float = stated("gateway: a request that waits for its provider, beside its connection, bytes")
    worker_bytes: float = stated("gateway: a worker without load, bytes")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What nobody can measure for another: the load, the rest left free, the machines and their price."""

    images_per_request: float = stated("images of one request", 1)
    render_seconds: float = stated("seconds that a provider takes for a request", 20)
    idle_connections: float = stated("idle connections of clients for each request in flight", 1)
    idempotent_share: float = stated("share of requests with an Idempotency-Key", 0.1)
    ledger_days: float = stated("days that ledger entries stay in the store", 1)
    settled_id_days: float = stated("days that settled ids stay (accounting.settled_ids_seconds)", 1)
    keys: float = stated("keys", 100_000)
    teams: float = stated("teams", 1_000)
    replicas: float = stated("replicas of each shard", 1)
    busy_share: float = stated("share of a core, and of a network card, that is planned to be used", 0.5)
    full_share: float = stated("share of the memory of a store that is planned to be used", 0.7)
    shard_gb: float = stated("GB of memory of the largest shard", 32)
    machine_vcpus: float = stated("vCPUs of a machine", 16)
    machine_gb: float = stated("GB of memory of a machine", 64)
    machine_gbit: float = stated("Gbit/s of a machine's network card", 25)
    usd_per_vcpu_month: float = stated("dollars of a vCPU for a month", 25)
    usd_per_gb_month: float = stated("dollars of a GB of memory for a month", 3.5)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the result: its value, in the unit that its name says, and the arithmetic that led to it."""

    name: str
    value: float
    arithmetic: str


def texts_of(kind: type[Figures] | type[Assumptions]) -> dict[str, str]:
    """The words beside each value, by the name of its field."""
    return {each.name: str(each.metadata["text"]) for each in fields(kind)}


def size(images: int, figures: Figures, assumed: Assumptions) -> list[Line]:
    """What so many images a second need."""
    return [*_gateways(images, figures, assumed), *_stores(images, figures, assumed)]


def show(value: float) -> str:
    """A number as the manual writes it: whole where it is, else with as many places as say something."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def _gateways(images: int, figures: Figures, assumed: Assumptions) -> Iterator[Line]:
    rate = images / assumed.images_per_request
    yield Line("requests/s", rate, f"{show(images)} ÷ {show(assumed.images_per_request)}")
    kinds = {"addresses": (figures.small_us, 0), "4 MB answers": (figures.large_us, LARGE_ANSWER_BYTES)}
    needed = {}
    for kind, (cost_us, _size) in kinds.items():
        cores = rate * cost_us / MICRO / assumed.busy_share
        needed[kind] = math.ceil(cores)
        how = f"{show(rate)} × {show(cost_us)} µs ÷ 10^6 ÷ {show(assumed.busy_share)} = {show(cores)}, rounded up"
        yield Line(f"gateway cores, {kind}", needed[kind], how)
    flying = rate * assumed.render_seconds
    yield Line("requests in flight", flying, f"{show(rate)} × {show(assumed.render_seconds)} s")
    each = figures.in_flight_bytes + figures.connection_bytes * (1 + assumed.idle_connections)
    workers = needed["addresses"]
    memory = (flying * each + workers * figures.worker_bytes) / GIGA
    yield Line(
        "gateway memory, GB",
        memory,
        f"({show(flying)} × ({show(figures.in_flight_bytes)} + {show(figures.connection_bytes)} × "
        f"{show(1 + assumed.idle_connections)}) + {show(workers)} workers × {show(figures.worker_bytes)}) ÷ 10^9",
    )
    for kind, (_cost, answer_bytes) in kinds.items():
        gbit = rate * answer_bytes * 8 / GIGA / assumed.busy_share
        parts = [needed[kind] / assumed.machine_vcpus, memory / assumed.machine_gb, gbit / assumed.machine_gbit]
        how = (
            f"the largest of {show(needed[kind])} cores ÷ {show(assumed.machine_vcpus)}, "
            f"{show(memory)} GB ÷ {show(assumed.machine_gb)}, {show(gbit)} Gbit/s ÷ {show(assumed.machine_gbit)}; "
            "rounded up, at least 2"
        )
        yield Line(f"gateway machines, {kind}", max(2, math.ceil(max(parts))), how)
    for kind in kinds:
        price = needed[kind] * assumed.usd_per_vcpu_month + memory * assumed.usd_per_gb_month
        yield Line(
            f"dollars a month for gateways, {kind}",
            round(price),
            f"{show(needed[kind])} × {show(assumed.usd_per_vcpu_month)} + "
            f"{show(memory)} GB × {show(assumed.usd_per_gb_month)}",
        )


def _stores(images: int, figures: Figures, assumed: Assumptions) -> Iterator[Line]:
    rate = images / assumed.images_per_request
    both_us = figures.admit_us + figures.settle_us
    cores = rate * both_us / MICRO / assumed.busy_share
    how = (
        f"{show(rate)} × ({show(figures.admit_us)} + {show(figures.settle_us)}) µs ÷ 10^6 ÷ {show(assumed.busy_share)}"
    )
    yield Line("store cores", cores, how)
    requests = rate * DAY_S
    kept = (
        assumed.ledger_days * figures.entry_bytes
        + assumed.settled_id_days * figures.settled_id_bytes
        + assumed.idempotent_share * figures.idempotency_bytes
    )
    accounts = assumed.keys * figures.key_bytes + assumed.teams * figures.team_bytes
    memory = (requests * kept + accounts) / GIGA / assumed.full_share
    yield Line(
        "store memory, GB",
        memory,
        f"({show(rate)} × {show(DAY_S)} s × ({show(assumed.ledger_days)} × {show(figures.entry_bytes)} + "
        f"{show(assumed.settled_id_days)} × {show(figures.settled_id_bytes)} + "
        f"{show(assumed.idempotent_share)} × {show(figures.idempotency_bytes)}) + "
        f"{show(assumed.keys)} × {show(figures.key_bytes)} + {show(assumed.teams)} × {show(figures.team_bytes)}) "
        f"÷ 10^9 ÷ {show(assumed.full_share)}",
    )
    shards = max(math.ceil(cores), math.ceil(memory / assumed.shard_gb))
    how = f"the larger of {show(cores)} cores and {show(memory)} GB ÷ {show(assumed.shard_gb)}, rounded up"
    yield Line("store shards", shards, how)
    copies = 1 + assumed.replicas
    together = max(1, math.floor(assumed.machine_gb / assumed.shard_gb))
    yield Line(
        "store machines",
        max(copies, math.ceil(shards * copies / together)),
        f"{show(shards)} × {show(copies)} ÷ {show(together)} shards on a machine, rounded up, at least {show(copies)}",
    )
    how = f"{show(memory)} GB × {show(copies)} × {show(assumed.usd_per_gb_month)}"
    yield Line("dollars a month for the store's memory", round(memory * copies * assumed.usd_per_gb_month), how)
