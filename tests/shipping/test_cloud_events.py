from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import orjson
import pytest

from proxy.shipping.batch import Batch
from proxy.shipping.cloud_events import CloudEvents, Credentials
from proxy.shipping.errors import ShippingError, Unavailable
from proxy.shipping.source import Head
from tests.shipping.books import Ledgers
from tests.support.event_receiver import Receiver, event_receiver
from tests.support.processes import wait_for

NOVEMBER = 1_794_000_000_000
NOBODY = Credentials()


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with event_receiver(tmp_path) as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
        yield running


def batch(count: int, **facts: object) -> Batch:
    made, after = Batch(), None
    for number in range(count):
        entry = {"id": f"acme_{NOVEMBER}-{number}", "team": "acme", "key": "acme_k", "kind": "request", "at": "2026"}
        made.add({**entry, **facts}, after)
        after = entry["id"]
    return made


def sink_of(receiver: Receiver, credentials: Credentials = NOBODY, timeout_s: float = 5) -> CloudEvents:
    return CloudEvents(receiver.url, source="/test", credentials=credentials, timeout_s=timeout_s)


async def test_an_event_is_what_cloudevents_says(receiver: Receiver) -> None:
    key = base64.b64encode(b"the key of the tests").decode()
    sink = sink_of(receiver, Credentials("a-token", f"whsec_{key}"))
    await sink.write(batch(2, reason="☺"), None)
    await sink.write(batch(1, key="", kind="grant"), None)
    await sink.close()
    (headers, body), (_, grant) = receiver.requests
    assert headers["Content-Type"] == "application/cloudevents-batch+json"
    assert headers["Authorization"] == "Bearer a-token"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.digest(b"the key of the tests", signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    first, _second = orjson.loads(body)
    assert first.pop("data") == batch(2, reason="☺").entries[0]
    assert first == {
        "specversion": "1.0", "id": f"acme_{NOVEMBER}-0", "source": "/test", "type": "lightmeter.ledger.request",
        "subject": "acme_k", "time": "2026", "datacontenttype": "application/json", "partitionkey": "acme",
    }  # fmt: skip
    (event,) = orjson.loads(grant)
    assert (event["type"], event["subject"]) == ("lightmeter.ledger.grant", "acme")


async def test_what_was_answered_is_not_sent_again_and_large_batches_are_cut(receiver: Receiver) -> None:
    receiver.body_limit = 2_500
    sink, twenty = sink_of(receiver), batch(20)
    await sink.write(twenty, None)
    taken = [len(orjson.loads(body)) for _headers, body in receiver.requests if len(body) <= receiver.body_limit]
    assert receiver.ids() == [entry["id"] for entry in twenty.entries]
    assert len(taken) >= 2
    receiver.events.clear()
    receiver.faults[:] = ["ok", "500"]
    with pytest.raises(Unavailable, match=r"answers 500 \(not now, sorrynot now"):
        await sink.write(twenty, None)
    half = len(receiver.events)
    assert 0 < half < 20
    await sink.write(twenty, None)
    assert receiver.ids() == [entry["id"] for entry in twenty.entries]
    receiver.body_limit = 10
    with pytest.raises(Unavailable, match=r"no body of .* bytes, that of a single entry"):
        await sink.write(batch(1), None)
    await sink.close()


async def test_every_other_answer_is_tried_again_as_it_asks(receiver: Receiver) -> None:
    sink = sink_of(receiver)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for fault, words, wait_s in (
        ("503 after 7", "answers 503", 7),
        (f"429 after {date}", "answers 429", 90),
        ("401", "answers 401", None),
        ("301", "answers 301", None),
        ("lost", "gives no answer", None),
    ):
        receiver.faults[:] = [fault]
        with pytest.raises(Unavailable, match=words) as failed:
            await sink.write(batch(1), None)
        assert failed.value.wait_s == (wait_s if wait_s is None else pytest.approx(wait_s, abs=5)), fault
    await sink.close()


async def test_a_receiver_of_nobody_known_gets_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    sink = sink_of(receiver)
    with pytest.raises(Unavailable, match="certificate"):
        await sink.write(batch(1), None)
    await sink.close()
    assert receiver.requests == []


def test_addresses_and_keys_that_cannot_be(receiver: Receiver) -> None:
    for url, words in (
        ("http://example.com/", "begins with https://"),
        ("https://", "begins with https://"),
        ("https://user:secret@example.com/", "holds a password"),
    ):
        with pytest.raises(ShippingError, match=words):
            CloudEvents(url, source="/", credentials=NOBODY, timeout_s=1)
    with pytest.raises(ShippingError, match="not base64"):
        sink_of(receiver, Credentials(signing_key="whsec_not base64"))
    CloudEvents("http://localhost:1/", source="/", credentials=NOBODY, timeout_s=1)


async def test_places_are_the_gateways(receiver: Receiver) -> None:
    sink = sink_of(receiver)
    heads = [Head("acme", None, None, "acme_1-0", 0), Head("new", None, None, None, 0)]
    assert await sink.places(heads) == {"acme": "acme_1-0"}


@pytest.mark.slow
def test_a_receiver_that_fails_in_every_way_gets_each_entry_at_least_once(ledgers: Ledgers, receiver: Receiver) -> None:
    for team in ("acme", "other"):
        ledgers.spend(team)
        ledgers.fill(team, 100)
    receiver.faults[:] = ["ok", "lost", "500", "ok", "slow", "503 after 1", "lost", "429", "ok", "404"]
    receiver.slow_s = 1.5
    variables = {"SSL_CERT_FILE": str(receiver.certificate), "LIGHTMETER_SHIP_BEARER": "the-bearer-of-the-tests"}
    shipper = ledgers.shipper(receiver.url, "--batch", "20", "--timeout", "1", variables=variables)
    wanted = ledgers.entries()
    try:
        wait_for(lambda: len(receiver.faults) < 6, "faults")
        # Killed between an answer and its report, or anywhere else.
        shipper.process.kill()
        shipper.process.wait()
        shipper = ledgers.shipper(receiver.url, "--batch", "20", "--timeout", "1", variables=variables)
        wait_for(partial(has_all, receiver, set(wanted)), "every entry")
        # The last report comes after the last answer.
        wait_for(partial(is_reported, ledgers), "the reports")
    finally:
        assert shipper.stop() == 0, shipper.output
    ids = receiver.ids()
    assert set(ids) == set(wanted)
    assert len(ids) > len(wanted)
    assert {event["id"]: event["data"] for event in receiver.events} == wanted
    # Whoever drops what it has sees each team's entries in order.
    for team in ("acme", "other"):
        seen = list(dict.fromkeys(each for each in ids if each.startswith(team)))
        assert seen == [each for each in wanted if each.startswith(team)]
    assert "the-bearer-of-the-tests" not in shipper.output
    before = len(receiver.requests)
    assert ledgers.shipped(receiver.url, **variables)["entries"] == 0
    assert len(receiver.requests) == before
    receiver.faults[:] = ["403"] * 50
    ledgers.fill("acme", 1)
    refused = ledgers.ship(receiver.url, "--patience", "1", **variables)
    assert (refused.returncode, "answers 403" in refused.stderr, "given up" in refused.stderr) == (1, True, True)


def has_all(receiver: Receiver, wanted: set[str]) -> bool:
    return wanted <= set(receiver.ids())


def is_reported(ledgers: Ledgers) -> bool:
    heads = ledgers.gateway.admin("GET", "/admin/v1/ledger/heads?shipper=https").json["data"]
    return all(head["shipped"] == head["last"] for head in heads)
