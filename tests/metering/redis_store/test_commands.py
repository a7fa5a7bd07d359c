from __future__ import annotations

import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.api_key import Credential
from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Settlement
from proxy.domain.people import Person
from proxy.domain.requests.idempotency import Idempotency, IdempotencyResult, IdempotencyState, KeptAnswer
from proxy.metering.redis.connection import unpack
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store.commands import COUNTS_USERS, NOTHING, Commands
from proxy.metering.redis_store.facts import settlement_facts
from proxy.metering.redis_store.keys import user_id
from proxy.metering.store import Details

CREDENTIAL = Credential("acme", "acme_0123456789", "5e" * 32)
ENDPOINT, MODEL = "/v1/images/generations", "vendor/bild-ü"
IDEMPOTENCY = Idempotency("aa" * 32, "bb" * 32)
IDS = st.from_regex(r"req_[0-9a-f]{1,24}", fullmatch=True)
UNITS = st.integers(0, 2**53 - 1)


def commands(*, charge_expired: bool = False) -> Commands:
    return Commands(lease_ms=30_000, settled_ids_ms=60_000, burst_us=5, charge_expired=charge_expired)


def head(script: str, keys: int) -> list[bytes]:
    return [b"EVALSHA", load_script(script).sha1.encode(), b"%d" % keys]


@given(ids=st.lists(IDS, min_size=1, max_size=4), units=UNITS, charge_expired=st.booleans())
def test_an_admission_has_its_own_id_in_each_place(ids: list[str], units: int, charge_expired: bool) -> None:
    made, quote = commands(charge_expired=charge_expired), Quote(2, 7, units, Tier.FOUR_K)
    expired = b',"expired":"charge"' if charge_expired else b""
    facts = (
        '{"key":"acme_0123456789","endpoint":"/v1/images/generations","model":"vendor/bild-ü","requested_images":2,'
        '"tier":"4k","unit_price":7'
    ).encode() + b"%b}" % expired
    for name in ids:
        assert unpack(made.admit(name, CREDENTIAL, ENDPOINT, MODEL, quote)) == [
            *head("admit", 4),
            b"lm:{acme}:key:acme_0123456789",
            b"lm:{acme}:reservation:" + name.encode(),
            b"lm:{acme}:leases",
            b"lm:{acme}:team",
            name.encode(),
            b"5e" * 32,
            MODEL.encode(),
            facts,
            struct.pack(">5q", units, 2, 30_000, 1, 5),
        ]


def test_requests_that_differ_in_anything_have_admissions_of_their_own() -> None:
    made, quote = commands(), Quote(1, 7, 7, Tier.STANDARD)
    before = made.admit("req_1", CREDENTIAL, ENDPOINT, MODEL, quote)
    others = (
        made.admit("req_2", CREDENTIAL, ENDPOINT, MODEL, quote),
        made.admit("req_1", Credential("acme", "acme_0123456789", "5f" * 32), ENDPOINT, MODEL, quote),
        made.admit("req_1", Credential("acme", "acme_9876543210", "5e" * 32), ENDPOINT, MODEL, quote),
        made.admit("req_1", CREDENTIAL, "/v1/images/edits", MODEL, quote),
        made.admit("req_1", CREDENTIAL, ENDPOINT, "another", quote),
        made.admit("req_1", CREDENTIAL, ENDPOINT, MODEL, Quote(1, 7, 8, Tier.STANDARD)),
        made.admit("req_1", CREDENTIAL, ENDPOINT, MODEL, quote, IDEMPOTENCY),
    )
    assert len({before, *others}) == len(others) + 1
    assert made.admit("req_1", CREDENTIAL, ENDPOINT, MODEL, quote) == before


PEOPLE = st.builds(
    Person, st.text(max_size=9), st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=2).map(tuple)
)


@given(name=IDS, person=PEOPLE, units=UNITS, charge_expired=st.booleans(), counts=st.booleans())
def test_an_admission_for_somebody_says_whom_it_is_for_and_is_the_same_otherwise(
    name: str, person: Person, units: int, charge_expired: bool, counts: bool
) -> None:
    made, quote, details = (
        commands(charge_expired=charge_expired),
        Quote(2, 7, units, Tier.FOUR_K),
        Details(person=person),
    )
    ordinary = unpack(made.admit(name, CREDENTIAL, ENDPOINT, MODEL, quote))
    facts = {**orjson.loads(ordinary[10]), **person.facts()}
    learnt = COUNTS_USERS if counts else NOTHING
    found = unpack(made.admit(name, CREDENTIAL, ENDPOINT, MODEL, quote, None, details, learnt))
    user = user_id(person.user).encode()
    keys = [b"lm:{acme}:user:acme_0123456789:" + user, b"lm:{acme}:user::" + user] if counts else []
    at = 7 + len(keys)
    assert orjson.loads(found[at + 3]) == facts
    assert found[:2] == ordinary[:2]
    assert found[2:at] == [b"%d" % (4 + len(keys)), *ordinary[3:7], *keys]
    assert found[at : at + 3] + found[at + 4 : at + 5] == ordinary[7:10] + ordinary[11:]
    assert found[at + 5 :] == ([b"", b"", b"", b"", user] if counts else [])


@pytest.mark.parametrize("found", ["", "not found"])
@pytest.mark.parametrize("answer", [None, KeptAnswer(200, b"{}")])
@given(name=IDS, charged=UNITS)
def test_a_settlement_has_all_its_facts(answer: KeptAnswer | None, found: str, name: str, charged: int) -> None:
    ending = None if answer is None else IdempotencyResult(IDEMPOTENCY, IdempotencyState.DONE, answer)
    quote = Quote(1, 7, 7, Tier.STANDARD)
    reservation = Reservation(name, "acme", "acme_0123456789", ENDPOINT, MODEL, quote, 86_400_000, None)
    settlement = Settlement(reservation, Delivery(outcome=Outcome.DELIVERED, images=3), charged, ending=ending)
    made = commands()
    last = [] if ending is None else [b"bb" * 32, b"done", b"200 {}", b"86400000"]
    for _ in range(2):
        assert unpack(made.settle(settlement, found)) == [
            *head("settle", 8 if ending is None else 9),
            b"lm:{acme}:key:acme_0123456789",
            b"lm:{acme}:reservation:" + name.encode(),
            b"lm:{acme}:leases",
            b"lm:{acme}:usage:acme_0123456789",
            b"lm:{acme}:ledger",
            b"lm:{acme}:team",
            b"lm:{acme}:usage",
            b"lm:{acme}:refunds",
            *([] if ending is None else [b"lm:{acme}:idempotency:acme_0123456789:" + b"aa" * 32]),
            name.encode(),
            b"%d" % charged,
            b"%d" % max(0, charged - 7),
            b"3",
            MODEL.encode(),
            b"1970-01-02",
            b"60000",
            b"acme_0123456789",
            b"delivered",
            settlement_facts(settlement),
            b"86400000",
            *([found.encode()] if found or last else []),
            *last,
        ]
