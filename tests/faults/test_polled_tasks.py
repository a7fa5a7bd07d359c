"""kill -9 of the gateway at each step of a task that its provider has accepted: its successor settles what was made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scene import PRICE, SETTLE, Scene, held, outcomes, scene
from tests.support.gateways import Answer, RunningGateway, SampleProvider, ask
from tests.support.polled_provider import Look, PolledProvider, polled_provider
from tests.support.processes import wait_for

LEASE_S = 20
"""Longer than a restart takes: a request whose successor comes in time has one entry, as any other."""


@pytest.fixture
def polled() -> Iterator[PolledProvider]:
    """A provider whose tasks stay pending until they are released."""
    with polled_provider() as running:
        yield running


def settings_of(polled: PolledProvider) -> dict[str, Any]:
    return {
        "dialect": polled.dialect,
        "base_url": polled.url + ("" if polled.dialect == "fal" else "/v1"),
        "result_hosts": [polled.url],
        "poll_interval": 0.05,
        "max_poll_interval": 0.1,
        "total_timeout": 60,
    }


class Play:
    """A scene whose gateways ask ``polled``."""

    def __init__(self, made: Scene, polled: PolledProvider, provider: dict[str, Any]) -> None:
        self.scene = made
        self.polled = polled
        self._provider = provider
        self.gateway = self.start(warm_up=True)
        self.key = self.gateway.make_key(10 * PRICE)
        polled.reset()
        polled.holds = True

    def start(self, name: str = "gateway", *, warm_up: bool = False) -> RunningGateway:
        """A gateway; one of the same name goes on with the same data folder."""
        return self.scene.start_gateway(name, warm_up=warm_up, provider=self._provider)

    def begin(self, n: int = 1) -> None:
        """A request whose tasks the provider is at work on, and the gateway has looked at."""
        self.request = self.scene.send(self.gateway, self.key, n=n)
        wait_for(lambda: len(self.polled.tasks) == n and self.polled.polls >= 2 * n, "looks at the tasks")

    def kill(self) -> None:
        """kill -9 of the gateway; its client's connection breaks."""
        self.scene.kill(self.gateway)
        assert isinstance(self.request.exception(timeout=20), OSError)

    def ended(self, following: RunningGateway, entries: int = 1) -> list[tuple[str, str, int, int]]:
        """The entries, when there are so many and nothing is reserved any more; the books are right."""
        wait_for(lambda: len(outcomes(following, self.key)) >= entries, "the entries")
        wait_for(lambda: held(following, self.key) == 0, "the end of the reservation")
        self.scene.check(following, self.key)
        return outcomes(following, self.key)


@pytest.fixture
def play(provider: SampleProvider, polled: PolledProvider, tmp_path: Path) -> Iterator[Play]:
    """One where what nobody knows the end of costs nothing."""
    with scene(tmp_path, provider, accounting={"lease_seconds": LEASE_S}) as made:
        yield Play(made, polled, settings_of(polled))


def test_before_the_ticket_is_read(provider: SampleProvider, polled: PolledProvider, tmp_path: Path) -> None:
    with scene(tmp_path, provider) as made:
        play = Play(made, polled, settings_of(polled))
        accepted = polled.hold_tickets()
        play.request = made.send(play.gateway, play.key)
        wait_for(lambda: len(polled.tasks) == 1, "the task")
        play.kill()
        accepted.set()
        following = play.start()
        wait_for(lambda: held(following, play.key) == 0, "the end of the lease")
        assert play.ended(following) == [("request", "expired", 0, 0)]


def test_while_it_is_polled(play: Play) -> None:
    play.begin()
    play.kill()
    following = play.start()
    polls = play.polled.polls
    wait_for(lambda: play.polled.polls > polls, "a look of the successor")
    assert held(following, play.key) == PRICE
    assert outcomes(following, play.key) == []
    play.polled.release()
    assert play.ended(following) == [("request", "abandoned", 1, PRICE)]
    assert len(play.polled.tasks) == 1


def test_after_the_provider_finished_and_before_it_was_settled(play: Play) -> None:
    def die() -> None:
        play.scene.to_store.reset()
        play.scene.kill(play.gateway)

    play.begin()
    play.scene.to_store.before(SETTLE, die)
    play.polled.release()
    assert isinstance(play.request.exception(timeout=20), OSError)
    assert play.ended(play.start()) == [("request", "abandoned", 1, PRICE)]


def test_after_it_was_settled_and_before_that_was_written_down(play: Play) -> None:
    play.begin()
    play.scene.to_store.after(SETTLE, lambda: play.scene.kill(play.gateway))
    play.polled.release()
    assert isinstance(play.request.exception(timeout=20), OSError)
    assert play.ended(play.start()) == [("request", "delivered", 1, PRICE)]


def test_its_client_asks_again_and_nothing_is_drawn_twice(play: Play) -> None:
    body = {"model": "acme/image-1", "prompt": "a cube"}
    named = {"Idempotency-Key": "once"}

    def again(gateway: RunningGateway) -> Answer:
        return ask("POST", f"{gateway.url}/v1/images/generations", key=play.key, body=body, headers=named)

    play.request = play.scene.submit(again, play.gateway)
    wait_for(lambda: len(play.polled.tasks) == 1 and play.polled.polls > 1, "a look at the task")
    play.kill()
    following = play.start()
    assert (again(following).status, again(following).json["error"]["code"]) == (409, "idempotency_in_progress")
    play.polled.release()
    assert play.ended(following) == [("request", "abandoned", 1, PRICE)]
    assert again(following).json["error"]["code"] == "idempotency_response_gone"
    assert len(play.polled.tasks) == 1


def test_several_tasks_of_one_request_are_one_entry(play: Play) -> None:
    play.begin(n=3)
    one, *_ = play.polled.tasks.values()
    one.end, one.is_held = "moderated", False
    play.kill()
    following = play.start()
    play.polled.release_all_but(one)
    assert play.ended(following) == [("request", "abandoned", 2, 2 * PRICE)]


def test_successors_are_killed_too(play: Play) -> None:
    play.begin()
    play.kill()
    for _ in range(2):
        polls = play.polled.polls
        following = play.start()
        wait_for(lambda polls=polls: play.polled.polls > polls, "a look")  # type: ignore[misc]
        play.scene.kill(following)
    play.polled.release()
    assert play.ended(play.start()) == [("request", "abandoned", 1, PRICE)]


def test_another_gateway_of_the_folder_lives(play: Play) -> None:
    other = play.start()
    play.begin()
    play.kill()
    play.polled.release()
    assert play.ended(other) == [("request", "abandoned", 1, PRICE)]


@pytest.mark.parametrize(("end", "outcome"), [("moderated", "refused"), ("failed", "failed"), ("unknown", "failed")])
def test_a_task_without_an_image_costs_nothing(play: Play, end: str, outcome: str) -> None:
    play.begin()
    play.kill()
    play.polled.release(end)
    assert play.ended(play.start()) == [("request", outcome, 0, 0)]


@pytest.mark.parametrize("dialect", ["fal", "replicate"])
@pytest.mark.parametrize("client_gone", ["finish", "cancel"])
def test_at_the_other_providers(provider: SampleProvider, tmp_path: Path, dialect: str, client_gone: str) -> None:
    accounting = {"lease_seconds": LEASE_S, "client_gone": client_gone}
    with polled_provider(dialect) as polled, scene(tmp_path, provider, accounting=accounting) as made:
        play = Play(made, polled, settings_of(polled))
        play.begin()
        play.kill()
        following = play.start()
        if client_gone == "cancel":
            wait_for(lambda: polled.only.cancelled, "the task's end")
            assert play.ended(following) == [("request", "failed", 0, 0)]
        else:
            polled.release()
            assert play.ended(following) == [("request", "abandoned", 1, PRICE)]


def test_the_lease_expired_before_anybody_came(
    provider: SampleProvider, polled: PolledProvider, tmp_path: Path
) -> None:
    with scene(tmp_path, provider) as made:
        play = Play(made, polled, settings_of(polled))
        play.begin()
        play.kill()
        other = play.start("other")
        wait_for(lambda: held(other, play.key) == 0, "the end of the lease")
        assert outcomes(other, play.key) == [("request", "expired", 0, 0)]
        polled.release()
        following = play.start()
        assert play.ended(following, 2) == [("request", "expired", 0, 0), ("late", "abandoned", 1, PRICE)]


@pytest.mark.parametrize("end", ["unknown", "failed"])
def test_by_a_setting_what_nobody_knows_the_end_of_costs_all_of_it(
    provider: SampleProvider, polled: PolledProvider, tmp_path: Path, end: str
) -> None:
    with scene(tmp_path, provider, accounting={"lease_seconds": LEASE_S, "expired": "charge"}) as made:
        play = Play(made, polled, settings_of(polled))
        play.begin()
        play.kill()
        polled.release(end)
        wanted = ("request", "expired", 0, PRICE) if end == "unknown" else ("request", "failed", 0, 0)
        assert play.ended(play.start()) == [wanted]


def test_the_store_is_away_when_the_successor_settles(play: Play) -> None:
    play.begin()
    play.kill()
    following = play.start()
    play.scene.to_store.before(SETTLE, play.scene.to_store.go_away)
    play.polled.release()
    wait_for(lambda: "lightmeter_journal_pending_settlements 1.0" in following.metrics(), "the journal")
    play.scene.to_store.come_back()
    assert play.ended(following) == [("request", "abandoned", 1, PRICE)]


def test_a_provider_that_answers_nothing_for_a_while(play: Play) -> None:
    play.begin()
    play.kill()
    play.polled.looks = [Look(503)] * 20
    play.polled.release()
    assert play.ended(play.start()) == [("request", "abandoned", 1, PRICE)]


def test_a_task_that_outlasts_the_drain_is_left_to_the_next(
    provider: SampleProvider, polled: PolledProvider, tmp_path: Path
) -> None:
    accounting: dict[str, Any] = {"lease_seconds": LEASE_S}
    with scene(tmp_path, provider, accounting=accounting, server={"drain_seconds": 0.2}) as made:
        play = Play(made, polled, settings_of(polled))
        play.begin()
        assert play.gateway.server.stop() == 0
        assert isinstance(play.request.exception(timeout=20), OSError) or play.request.result().status == 503
        following = play.start()
        assert outcomes(following, play.key) == []
        polled.release()
        assert play.ended(following) == [("request", "abandoned", 1, PRICE)]


def test_nothing_stays_behind_in_the_folder(play: Play, tmp_path: Path) -> None:
    play.begin()
    (file,) = (tmp_path / "gateway-data" / "journal").glob("tasks-*")
    assert play.polled.only.id.encode() in file.read_bytes()
    assert b"secret" not in file.read_bytes()
    play.polled.release()
    assert play.request.result(timeout=20).status == 200
    wait_for(lambda: not file.read_bytes().strip(b"\0"), "an empty file")
    play.gateway.server.stop()
    assert list((tmp_path / "gateway-data" / "journal").glob("tasks-*")) == []
