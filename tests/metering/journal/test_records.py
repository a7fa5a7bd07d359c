from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import Quote, Tier, TierCharge
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Served, settle
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.journal.records import JournalRecord, Posting, Void, read_records, write_record

names = st.text("abcdefghij0123456789_-/", min_size=1, max_size=30)
counts = st.integers(0, 2**53 - 1)
small = st.integers(0, 10_000)
charges = st.builds(TierCharge, st.sampled_from(Tier), small, counts)


@st.composite
def postings(draw: st.DrawFn) -> Posting:
    images, unit_price = draw(small), draw(st.integers(0, 10**9))
    reservation = Reservation(
        id=draw(names),
        team=draw(names),
        key_id=draw(names),
        endpoint="/v1/images/generations",
        model=draw(names),
        quote=Quote(
            images=images,
            unit_price=unit_price,
            units=images * unit_price,
            tier=draw(st.sampled_from(Tier)),
            rule=draw(st.sampled_from(["", "quality=high size=4k"])),
        ),
        admitted_ms=draw(counts),
        remaining_units=None,
        idempotency=draw(st.none() | st.builds(Idempotency, names, names)),
        asked_model=draw(st.just("") | names),
    )
    usage = draw(st.none() | st.just(b'{"total_tokens": 7, "text": "\xc3\xa9\\n"}'))
    delivery = Delivery(
        sizes=draw(st.just(()) | st.just(((1024, 1024), None))),
        outcome=draw(st.sampled_from(Outcome)),
        images=draw(small),
        served=Served(
            draw(st.text(max_size=20).filter(lambda text: text.isprintable())),
            draw(st.integers(0, 599)),
            draw(st.integers(1, 9)),
            draw(counts),
        ),
        provider_usage=usage,
        ended=True,
        whole=draw(st.booleans()),
    )
    settlement = replace(
        settle(reservation, delivery),
        charged_units=draw(counts),
        charged_by=draw(st.just(()) | st.tuples(charges) | st.tuples(charges, charges)),
        basis=draw(st.sampled_from([None, {"by": "usage", "tokens": {"output_image": 7}}])),
    )
    return Posting(settlement.without_answer())


voids = st.builds(Void, names, names, names)
everything: st.SearchStrategy[JournalRecord] = st.one_of(postings(), voids)


@given(st.lists(everything, max_size=5), st.integers(0, 100))
def test_what_is_written_is_read_back(owed: list[JournalRecord], room: int) -> None:
    content = b"".join(map(write_record, owed)) + b"\0" * room
    assert read_records(content) == (owed, 0)


@given(everything, everything, st.data())
def test_a_last_record_that_was_torn_is_left_out(
    first: JournalRecord, second: JournalRecord, data: st.DataObject
) -> None:
    whole, torn = write_record(first), write_record(second)
    written = data.draw(st.integers(1, len(torn) - 2))
    content = whole + torn[:written] + b"\0" * (len(torn) - written + 10)
    assert read_records(content) == ([first], 1)


@given(st.lists(everything, min_size=3, max_size=3), st.data())
def test_a_hole_costs_only_the_records_that_it_is_in(owed: list[JournalRecord], data: st.DataObject) -> None:
    lines = [write_record(each) for each in owed]
    start = data.draw(st.integers(0, len(lines[1]) - 2))
    end = data.draw(st.integers(start + 1, len(lines[1]) - 1))
    damaged = lines[1][:start] + b"\0" * (end - start) + lines[1][end:]
    found, count = read_records(lines[0] + damaged + lines[2])
    assert found[0] == owed[0]
    assert found[-1] == owed[2]
    assert len(found) == 2
    assert count <= 1


@given(everything, st.data())
def test_a_record_that_was_changed_is_left_out(owed: JournalRecord, data: st.DataObject) -> None:
    line = bytearray(write_record(owed))
    at = data.draw(st.integers(0, len(line) - 2))
    line[at] ^= data.draw(st.sampled_from([1, 2, 4, 16]))
    found, _damaged = read_records(bytes(line))
    # What is left is what was written, or nothing: a changed letter in the checksum may be the same number.
    assert found in ([], [owed])


@given(st.binary(max_size=300))
def test_any_bytes_at_all_can_be_read(content: bytes) -> None:
    assert read_records(content)[0] == []
