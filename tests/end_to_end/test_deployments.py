"""Budget, pauses, slots and probes of deployments, over sockets, at providers that do what each test says."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.deployments import SPARE, deployed
from tests.support.gateways import ALL_PARAMETERS, Answer, RunningGateway, SampleProvider, sample_provider
from tests.support.processes import wait_for
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

MODEL = 'model="acme/image-1"'


def value(gateway: RunningGateway, sample: str) -> float:
    """A metric as it is now; 0 where it has not been counted yet."""
    found = re.search(rf"^lightmeter_{re.escape(sample)} (\S+)$", gateway.metrics(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def attempts(answer: Answer) -> str:
    return answer.headers["x-lightmeter-attempts"]


def code(answer: Answer) -> str:
    return str(answer.json["error"]["code"])


def wait_for_requests(providers: Sequence[ScriptedProvider], counts: tuple[int, ...]) -> None:
    wait_for(lambda: tuple(each.received for each in providers) == counts, f"requests at providers: {counts}")


class LeavingClient:
    """One that asks, and leaves when it is told."""

    def __init__(self, gateway: RunningGateway, key: str) -> None:
        address = urlsplit(gateway.url)
        body = json.dumps({"model": "acme/image-1", "prompt": "a cube"})
        self._socket = socket.create_connection((address.hostname, address.port or 0), timeout=20)
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: lightmeter\r\nAuthorization: Bearer {key}\r\n"
        rest = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        self._socket.sendall((head + rest).encode())

    def leave(self) -> None:
        self._socket.close()


# --- The retry budget -------------------------------------------------------------------------------------------------


def test_an_outage_under_load_brings_no_more_retries_than_are_saved_up(tmp_path: Path) -> None:
    held, requests = threading.Event(), 60
    with (
        scripted_provider(lambda _: Reply(503, held=held)) as first,
        scripted_provider(lambda _: Reply()) as second,
        deployed(tmp_path, {"url": first.url}, {"url": second.url, "deployment": SPARE}) as gateway,
        ThreadPoolExecutor(requests) as clients,
    ):
        key = gateway.make_key()
        # All are there before the first fails, so that no breaker opens in between.
        asked = [clients.submit(gateway.generate, key) for _ in range(requests)]
        wait_for(lambda: first.received == requests, "all requests at the first one")
        began = monotonic()
        held.set()
        counts = Counter((future.result().status, attempts(future.result())) for future in asked)
        took_s = monotonic() - began
        retries = second.received
        assert 10 <= retries <= 10 + took_s
        assert counts == {(200, "2"): retries, (502, "1"): requests - retries}
        assert value(gateway, 'retries_total{reason="unavailable"}') == retries
        assert value(gateway, "retries_over_budget_total") == requests - retries
        # Each provider's requests are its own, in the metrics as on its socket.
        assert value(gateway, f'upstream_requests_total{{{MODEL},provider="place0",status="503"}}') == requests
        assert value(gateway, f'upstream_requests_total{{{MODEL},provider="place1",status="200"}}') == retries
        assert value(gateway, f'upstream_duration_seconds_count{{{MODEL},provider="place0"}}') == requests
        assert value(gateway, f'upstream_attempts_total{{{MODEL},provider="place0",result="failed"}}') == requests
        outcomes = Counter((entry["outcome"], entry["charged"]) for entry in gateway.ledger(key))
        assert outcomes == {("delivered", 5_000): retries, ("failed", 0): requests - retries}
        gateway.check_books(key)


def test_requests_bring_a_fifth_of_a_retry_each(tmp_path: Path) -> None:
    requests, saved, expected = 100, 10.0, 0
    for number in range(requests):
        saved = min(10, saved + 0.2)
        if number % 5 < 2 and saved >= 1:
            saved, expected = saved - 1, expected + 1
    with (
        # Too few for a breaker, and more than the budget allows.
        scripted_provider(lambda number: Reply(503 if number % 5 < 2 else 200)) as first,
        scripted_provider(lambda _: Reply()) as second,
        deployed(tmp_path, {"url": first.url}, {"url": second.url, "deployment": SPARE}) as gateway,
    ):
        key = gateway.make_key()
        began = monotonic()
        failed = sum(gateway.generate(key).status == 502 for _ in range(requests))
        took_s = monotonic() - began
        assert first.received == requests
        assert expected <= second.received <= expected + took_s
        assert failed == 40 - second.received == value(gateway, "retries_over_budget_total")
        assert second.received == value(gateway, 'retries_total{reason="unavailable"}')
        gateway.check_books(key)


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "form", [lambda: "1", lambda: formatdate(int(time()) + 2, usegmt=True)], ids=["seconds", "date"]
)
def test_a_deployment_is_left_alone_for_as_long_as_it_asks(
    tmp_path: Path, status: int, form: Callable[[], str]
) -> None:
    with (
        scripted_provider(lambda _: Reply(status, {"Retry-After": form()})) as first,
        scripted_provider(lambda _: Reply()) as second,
        deployed(tmp_path, {"url": first.url}, {"url": second.url, "deployment": SPARE}) as gateway,
    ):
        key = gateway.make_key()
        began = monotonic()
        assert attempts(gateway.generate(key)) == "2"
        first.script = lambda _: Reply()
        assert [attempts(gateway.generate(key)) for _ in range(3)] == ["1"] * 3
        assert (first.received, second.received) == (1, 4)
        assert value(gateway, f'deployment_state{{{MODEL},provider="place0"}}') == 2

        def is_back() -> bool:
            return gateway.generate(key).status == 200 and first.received == 2

        wait_for(is_back, "the end of the pause")
        # A date has no parts of a second, and may have lost almost one.
        assert 0.99 <= monotonic() - began <= 10
        assert value(gateway, f'deployment_state{{{MODEL},provider="place0"}}') == 0
        gateway.check_books(key)


@pytest.mark.parametrize(
    ("replies", "first_answer", "wait_s"),
    [
        ([(429, "20"), (429, "40")], (429, "upstream_rate_limit"), 20),
        ([(429, "40"), (429, "20")], (429, "upstream_rate_limit"), 20),
        ([(429, "40"), (503, "20")], (502, "upstream_error"), 20),
        ([(503, "20"), (429, "40")], (429, "upstream_rate_limit"), 20),
    ],
)
def test_where_all_have_asked_for_a_pause_the_client_waits_for_the_first(
    tmp_path: Path, replies: list[tuple[int, str]], first_answer: tuple[int, str], wait_s: int
) -> None:
    with ExitStack() as stack:
        made = [Reply(status, {"Retry-After": text}) for status, text in replies]
        one = stack.enter_context(scripted_provider(lambda _: made[0]))
        other = stack.enter_context(scripted_provider(lambda _: made[1]))
        spare = {"url": other.url, "deployment": SPARE}
        gateway = stack.enter_context(deployed(tmp_path, {"url": one.url}, spare))
        key = gateway.make_key(5_000)
        answers = [gateway.generate(key) for _ in range(3)]
        assert (answers[0].status, code(answers[0])) == first_answer
        assert [(answer.status, code(answer)) for answer in answers[1:]] == [(429, "upstream_rate_limit")] * 2
        assert [attempts(answer) for answer in answers] == ["2", "0", "0"]
        told = [int(answer.headers["Retry-After"]) for answer in answers if answer.status == 429]
        assert all(wait_s - 5 <= seconds <= wait_s for seconds in told)
        assert (one.received, other.received) == (1, 1)
        assert {entry["charged"] for entry in gateway.ledger(key)} == {0}
        assert gateway.quota(key)["remaining"] == 5_000
        gateway.check_books(key)


def test_some_pause_and_others_have_failed_too_often(tmp_path: Path) -> None:
    with (
        scripted_provider(lambda _: Reply(429, {"Retry-After": "60"})) as first,
        scripted_provider(lambda _: Reply(500)) as second,
        deployed(tmp_path, {"url": first.url}, {"url": second.url, "deployment": SPARE}) as gateway,
    ):
        key = gateway.make_key(5_000)
        answers = [gateway.generate(key) for _ in range(6)]
        assert {(answer.status, code(answer)) for answer in answers} == {(502, "upstream_error")}
        assert [attempts(answer) for answer in answers] == ["2", "1", "1", "1", "1", "0"]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 5
        assert (first.received, second.received) == (1, 5)
        assert [entry["outcome"] for entry in gateway.ledger(key)].count("unreachable") == 1
        gateway.check_books(key)


# --- Limits in flight -------------------------------------------------------------------------------------------------


def test_at_its_limit_the_next_one_is_chosen_and_then_none(tmp_path: Path) -> None:
    held = threading.Event()
    with (
        scripted_provider(lambda _: Reply(held=held)) as first,
        scripted_provider(lambda _: Reply(held=held)) as second,
        deployed(
            tmp_path,
            {"url": first.url, "deployment": {"max_in_flight": 1}},
            {"url": second.url, "deployment": {"max_in_flight": 2, **SPARE}},
        ) as gateway,
        ThreadPoolExecutor(3) as clients,
    ):
        key = gateway.make_key(100_000)
        asked: list[Future[Answer]] = []
        for places in [(1, 0), (1, 1), (1, 2)]:
            asked.append(clients.submit(gateway.generate, key))
            wait_for_requests((first, second), places)
        for _ in range(3):
            refused = gateway.generate(key)
            assert (refused.status, code(refused), attempts(refused)) == (502, "upstream_error", "0")
            assert refused.headers["Retry-After"] == "1"
            assert gateway.quota(key)["reserved"] == 15_000
        held.set()
        assert [(future.result().status, attempts(future.result())) for future in asked] == [(200, "1")] * 3
        again = [future.result() for future in [clients.submit(gateway.generate, key) for _ in range(3)]]
        assert {answer.status for answer in again} == {200}
        assert (first.most_at_once, second.most_at_once) == (1, 2)
        assert Counter(entry["outcome"] for entry in gateway.ledger(key)) == {"delivered": 6, "unreachable": 3}
        gateway.check_books(key)


@pytest.mark.parametrize("way", ["broken", "status", "late", "malformed", "cancel", "finish"])
def test_a_slot_is_given_back_however_a_request_ends(tmp_path: Path, way: str) -> None:
    held = threading.Event()
    replies = {
        "broken": Reply(broken=True),
        "status": Reply(500),
        "malformed": Reply(body=b'{"data": ['),
    }
    with (
        scripted_provider(lambda _: replies.get(way, Reply(held=held))) as provider,
        deployed(
            tmp_path,
            {"url": provider.url, "deployment": {"max_in_flight": 1}, "provider": {"first_byte_timeout": 0.3}}
            if way == "late"
            else {"url": provider.url, "deployment": {"max_in_flight": 1}},
            accounting={"client_gone": way} if way in ("cancel", "finish") else {},
        ) as gateway,
    ):
        key = gateway.make_key(100_000)
        for number in range(3):
            if way in ("cancel", "finish"):
                held.clear()
                client = LeavingClient(gateway, key)
                wait_for_requests((provider,), (number + 1,))
                client.leave()
                if way == "finish":
                    held.set()
                wait_for(lambda: gateway.quota(key)["reserved"] == 0, "the settlement")
            else:
                assert gateway.generate(key).status in (502, 504)
            assert provider.received == number + 1
        held.set()
        provider.script = lambda _: Reply()
        assert gateway.generate(key).status == 200
        charges = Counter(entry["charged"] for entry in gateway.ledger(key))
        # For a client that has left, the images were made, whether or not the gateway had noticed by then.
        assert charges == ({5_000: 4} if way == "finish" else {0: 3, 5_000: 1})
        gateway.check_books(key)


# --- Probes -----------------------------------------------------------------------------------------------------------


def test_one_probe_at_a_time_and_one_whose_client_leaves_is_no_verdict(tmp_path: Path) -> None:
    held = threading.Event()
    state = f'deployment_state{{{MODEL},provider="place0"}}'
    with (
        scripted_provider(lambda _: Reply(503)) as first,
        scripted_provider(lambda _: Reply()) as second,
        deployed(
            tmp_path,
            {"url": first.url},
            {"url": second.url, "deployment": SPARE},
            accounting={"client_gone": "cancel"},
        ) as gateway,
        ThreadPoolExecutor(10) as clients,
    ):
        key = gateway.make_key()
        assert [attempts(gateway.generate(key)) for _ in range(6)] == ["2"] * 5 + ["1"]
        assert value(gateway, state) == 2
        first.script = lambda _: Reply(held=held)
        wait_for(lambda: value(gateway, state) == 1, "the time of the breaker to be over")
        prober = LeavingClient(gateway, key)
        wait_for(lambda: first.received == 6, "the probe")
        others = [future.result() for future in [clients.submit(gateway.generate, key) for _ in range(10)]]
        assert {(answer.status, attempts(answer)) for answer in others} == {(200, "1")}
        assert first.received == 6
        prober.leave()
        wait_for(
            lambda: value(gateway, f'upstream_attempts_total{{{MODEL},provider="place0",result="neither"}}') == 1,
            "the end of the probe",
        )
        assert value(gateway, state) == 1
        # The place is free again: of ten at once, one is the next probe.
        at_once = [clients.submit(gateway.generate, key) for _ in range(10)]
        wait_for(lambda: first.received == 7, "the second probe")
        wait_for(lambda: sum(future.done() for future in at_once) == 9, "all others")
        assert (first.received, value(gateway, state)) == (7, 1)
        held.set()
        assert {future.result().status for future in at_once} == {200}
        assert gateway.generate(key).status == 200
        assert (first.received, value(gateway, state)) == (8, 0)
        gateway.check_books(key)


# --- Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spare_works", [True, False])
def test_another_takes_over_after_a_stream_has_begun_with_comments(
    quiet_provider: SampleProvider, tmp_path: Path, *, spare_works: bool
) -> None:
    with ExitStack() as stack:
        slow = stack.enter_context(sample_provider(tmp_path, "--delay-ms", "700", "--status", "503"))
        spare_url = (
            quiet_provider.url if spare_works else stack.enter_context(scripted_provider(lambda _: Reply(503))).url
        )
        gateway = stack.enter_context(
            deployed(
                tmp_path,
                {"url": slow.url},
                {"url": spare_url, "deployment": SPARE},
                server={"stream_keepalive_seconds": 0.1},
                model={"parameters": [*ALL_PARAMETERS, "stream"]},
            )
        )
        key = gateway.make_key(100_000)
        answer = gateway.generate(key, stream=True)
        assert answer.status == 200
        # One was asked when the headers were sent, and two when all was over: the number would be wrong.
        assert "x-lightmeter-attempts" not in answer.headers
        assert answer.body.startswith(b":")
        events: list[dict[str, Any]] = [
            json.loads(line.removeprefix(b"data: ")) for line in answer.body.splitlines() if line.startswith(b"data: {")
        ]
        (entry,) = gateway.ledger(key)
        if spare_works:
            assert [event["type"] for event in events] == ["image_generation.completed"]
            assert (entry["outcome"], entry["charged"], entry["provider"]) == ("delivered", 5_000, "place1")
        else:
            assert [event["error"]["code"] for event in events] == ["upstream_error"]
            assert (entry["outcome"], entry["charged"], entry["provider"]) == ("failed", 0, "place1")
        assert entry["attempts"] == 2
        assert value(gateway, f'upstream_requests_total{{{MODEL},provider="place0",status="503"}}') == 1
        wait_for(lambda: '"attempts":2' in gateway.server.output, "the request's line")
        gateway.check_books(key)


def test_a_stream_that_nothing_came_before_tells_of_its_attempts(
    quiet_provider: SampleProvider, tmp_path: Path
) -> None:
    model = {"parameters": [*ALL_PARAMETERS, "stream"]}
    with (
        scripted_provider(lambda _: Reply(503)) as first,
        deployed(
            tmp_path, {"url": first.url}, {"url": quiet_provider.url, "deployment": SPARE}, model=model
        ) as gateway,
    ):
        answer = gateway.generate(gateway.make_key(), stream=True)
        assert (answer.status, attempts(answer)) == (200, "2")
