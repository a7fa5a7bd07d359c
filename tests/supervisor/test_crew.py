"""The workers of a crew, with processes that end as they are told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.settings.mistakes import ConfigurationError
from proxy.supervisor import crew as crew_module
from proxy.supervisor.crew import Crew, CrewError
from proxy.supervisor.process import BAD_CONFIGURATION, State, WorkerProcess


class FakeWorker(SimpleNamespace):
    """What a crew sees of a worker."""

    def __init__(self, index: int) -> None:
        super().__init__(given=SimpleNamespace(index=index), process_id=100 + index, status=0, why_not="")
        self.state = State.STARTING
        self.changed, self.gone, self.drained = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.answers, self.should_end = True, False
        self.said: list[str] = []

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    async def attend(self, *, is_new: bool) -> None:
        assert is_new

    async def ask(self, _timeout_s: float, *, status: bool) -> str | None:
        return "" if self.answers and not status else None

    def say(self, *, do: str) -> None:
        self.said.append(do)

    def leave(self, *, to_workers: bool) -> None:
        self.said.append(f"leave {to_workers}")

    def kill(self) -> None:
        self.end(137)

    def come_up(self) -> None:
        self.state = State.READY
        self.changed.set()

    def end(self, status: int) -> None:
        self.status, self.state = status, State.GONE
        for event in (self.changed, self.gone, self.drained):
            event.set()


class Made:
    """A crew of two, and every worker that it has started."""

    def __init__(self) -> None:
        self.started: list[FakeWorker] = []
        self.buried: list[FakeWorker] = []
        self.crew = Crew(2, self._start, lambda worker: self.buried.append(cast("FakeWorker", worker)))

    def _start(self, index: int) -> WorkerProcess:
        self.started.append(worker := FakeWorker(index))
        return cast("WorkerProcess", worker)

    async def until(self, count: int) -> list[FakeWorker]:
        """So many have been started; the last ones."""
        async with asyncio.timeout(5):
            while len(self.started) < count:  # noqa: ASYNC110 - the crew tells nobody
                await asyncio.sleep(0.001)
        return self.started[-2:]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(crew_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(crew_module, "LOOK_EVERY_S", 0.01)
    return Made()


async def serving(made: Made) -> list[FakeWorker]:
    starting = asyncio.create_task(made.crew.start())
    workers = await made.until(2)
    for worker in workers:
        worker.come_up()
    await starting
    return workers


async def test_it_serves_when_all_do_and_one_that_dies_is_replaced_in_its_place(made: Made) -> None:
    one, other = await serving(made)
    one.end(1)
    *_, third = await made.until(3)
    assert (third.given.index, made.buried, made.crew.ready) == (one.given.index, [one], 1)
    third.come_up()
    await asyncio.sleep(0)
    assert made.crew.ready == 2
    made.crew.stop()
    assert (third.said, other.said, one.said) == (["stop"], ["stop"], [])
    third.end(0)
    other.end(3)
    await made.crew.wait()
    # What one had died of before is no business of the end.
    assert (made.crew.worst_status, made.crew.workers, len(made.started)) == (3, [], 3)


async def test_one_that_does_not_answer_any_more_is_killed_and_replaced(made: Made) -> None:
    one, other = await serving(made)
    one.answers = False
    await made.until(3)
    assert (made.buried, other.state) == ([one], State.READY)
    made.crew.kill()
    await made.crew.wait()


async def test_one_that_hangs_at_its_start_is_killed_as_well(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "START_S", 0.01)
    async with asyncio.timeout(5):
        with pytest.raises(CrewError, match="workers died"):
            await made.crew.start(3)
    made.crew.kill()
    await made.crew.wait()


async def test_one_that_hangs_when_it_should_end_is_killed_in_time(made: Made) -> None:
    one, other = await serving(made)
    made.crew.leave(to_workers=True)
    other.end(0)
    async with asyncio.timeout(5):
        await made.crew.wait_or_kill(0.01)
    assert (one.status, made.buried, made.crew.workers) == (137, [other, one], [])


@pytest.mark.parametrize("tries", [1, 4])
async def test_where_only_so_many_may_die_it_is_given_up(made: Made, tries: int) -> None:
    starting = asyncio.create_task(made.crew.start(tries))
    for count in range(tries):
        (await made.until(2 + count))[-1].end(9)
    with pytest.raises(CrewError, match=f"{tries} workers died"):
        await starting
    made.crew.kill()
    await made.crew.wait()


async def test_a_mistake_in_the_configuration_is_told_at_once(made: Made) -> None:
    starting = asyncio.create_task(made.crew.start())
    worker: Any = (await made.until(2))[0]
    worker.why_not = "journal: cannot be kept there"
    worker.end(BAD_CONFIGURATION)
    with pytest.raises(ConfigurationError, match="cannot be kept there"):
        await starting
    made.crew.kill()
    await made.crew.wait()
