from __future__ import annotations

from proxy.domain.billing.settlement import Delivery, settle
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.ledger.walk import Span
from tests.metering.conftest import Bench


async def test_the_ledger_comes_in_pages_that_hold_each_entry_once(bench: Bench) -> None:
    wanted = []
    for team in ("a", "b"):
        key = await bench.make_key(team=team)
        for number in range(7):
            reservation = await bench.admit(key, f"req_{team}{number}", 5_000)
            await bench.store.settle(settle(reservation, Delivery(images=number % 2)))
            wanted.append(f"req_{team}{number}")
    for limit in (1, 3, 7, 100):
        found: list[str] = []
        cursor = None
        while True:
            page = await bench.ledger.list_entries(LedgerFilter(), cursor=cursor, limit=limit)
            found += [entry.facts["request"] for entry in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == wanted


async def test_the_ledger_is_searched_by_key_outcome_and_time(bench: Bench) -> None:
    key, other = await bench.make_key(), await bench.make_key()
    for number, credential in enumerate((key, other, key)):
        reservation = await bench.admit(credential, f"req_{number}", 5_000)
        delivery = Delivery(images=number)
        delivery.end(complete=True)
        await bench.store.settle(settle(reservation, delivery))

    async def requests(**wanted: str | Span) -> list[str]:
        page = await bench.ledger.list_entries(LedgerFilter(team="acme", **wanted), cursor=None, limit=10)  # type: ignore[arg-type]
        return [entry.facts["request"] for entry in page.items]

    assert await requests(key_id=key.key_id) == ["req_0", "req_2"]
    assert await requests(outcome="empty") == ["req_0"]
    assert await requests(key_id=key.key_id, outcome="delivered") == ["req_2"]
    everything = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10)
    assert await requests(span=Span(everything.items[-1].at_ms + 1)) == []
    assert await requests(span=Span(everything.items[0].at_ms)) == ["req_0", "req_1", "req_2"]
