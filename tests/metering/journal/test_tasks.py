"""Tasks on the disk: what was promised is read again, what was settled is not, and a file does not grow for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Reservation
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.journal import tasks
from proxy.metering.journal.file import JournalFile
from proxy.metering.journal.tasks import TaskJournal, read_requests

STORE = "redis://localhost/0"
TASK = PendingTask("bfl", "https://api.bfl.ai/v1/get_result?id=1", cancel_url="https://api.bfl.ai/cancel")


def reservation(number: int = 1, idempotency: Idempotency | None = None) -> Reservation:
    quote = Quote(2, 5_000, 10_800, Tier.STANDARD, reference_images=1, reference_units=800, rule="quality=high")
    return Reservation(
        f"req_{number}", "acme", "acme_k", "/v1/images/generations", "bfl/flux", quote, 1_000, None,
        idempotency=idempotency,
    )  # fmt: skip


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[TaskJournal]:
    """That of a process that lives."""
    made = TaskJournal(tmp_path, store_url=STORE)
    yield made
    await made.close()


def files(folder: Path) -> list[Path]:
    return list(folder.glob("*"))


def content(folder: Path) -> bytes:
    (file,) = files(folder)
    return file.read_bytes()


async def test_nothing_is_opened_before_there_is_a_task(journal: TaskJournal, tmp_path: Path) -> None:
    journal.settled("req_0")
    assert await journal.adopt() == []
    assert files(tmp_path) == []


async def test_all_tasks_of_a_request_are_read_again_with_its_facts(journal: TaskJournal, tmp_path: Path) -> None:
    named = reservation(1, Idempotency("key", "f" * 64))
    other = PendingTask("bfl", "https://api.bfl.ai/v1/get_result?id=2")
    assert await journal.keep(named, TASK)
    assert await journal.keep(reservation(2), TASK)
    assert await journal.keep(named, other)
    first, second = read_requests(content(tmp_path))
    assert (first.reservation, first.tasks) == (named, (TASK, other))
    assert (second.reservation, second.tasks) == (reservation(2), (TASK,))
    assert (first.settlement.charged_units, first.settlement.delivery.images) == (0, 0)


async def test_what_was_settled_is_not(journal: TaskJournal, tmp_path: Path) -> None:
    for number in range(3):
        await journal.keep(reservation(number), TASK)
    journal.settled("req_1")
    await journal.keep(reservation(3), TASK)
    assert [each.reservation.id for each in read_requests(content(tmp_path))] == ["req_0", "req_2", "req_3"]


async def test_a_line_that_is_torn_is_left_out(journal: TaskJournal, tmp_path: Path) -> None:
    await journal.keep(reservation(1), TASK)
    whole = content(tmp_path).strip(b"\0")
    for end in range(len(whole) - 1):
        assert read_requests(whole[:end]) == []
    assert len(read_requests(whole + whole[:-9])) == 1


async def test_the_file_of_a_process_that_lives_is_left_to_it(journal: TaskJournal, tmp_path: Path) -> None:
    await journal.keep(reservation(1), TASK)
    other = TaskJournal(tmp_path, store_url=STORE)
    assert await other.adopt() == []
    assert await journal.adopt() == []
    await other.close()


async def test_what_one_leaves_another_settles_and_removes(tmp_path: Path) -> None:
    journal = TaskJournal(tmp_path, store_url=STORE)
    await journal.keep(reservation(1), TASK)
    await journal.keep(reservation(2), TASK)
    await journal.close()
    following = TaskJournal(tmp_path, store_url=STORE)
    assert [each.reservation.id for each in await following.adopt()] == ["req_1", "req_2"]
    following.settled("req_1")
    await following.close()
    last = TaskJournal(tmp_path, store_url=STORE)
    assert len(await last.adopt()) == 2
    last.settled("req_2")
    last.settled("req_1")
    await last.close()
    assert files(tmp_path) == []


async def test_that_of_another_store_is_left_alone(tmp_path: Path) -> None:
    journal = TaskJournal(tmp_path, store_url=STORE)
    await journal.keep(reservation(1), TASK)
    await journal.close()
    other = TaskJournal(tmp_path, store_url="redis://elsewhere/0")
    assert await other.adopt() == []
    await other.close()
    assert len(files(tmp_path)) == 1


async def test_a_file_is_written_anew_where_most_of_it_is_settled(
    journal: TaskJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "COMPACT_BYTES", 5_000)
    await journal.keep(reservation(0), TASK)
    for number in range(1, 60):
        await journal.keep(reservation(number), TASK)
        journal.settled(f"req_{number}")
    await journal.keep(reservation(60), TASK)
    assert len(content(tmp_path).strip(b"\0")) < 8_000
    assert [each.reservation.id for each in read_requests(content(tmp_path))] == ["req_0", "req_60"]


async def test_a_file_whose_name_was_taken_is_made_again(journal: TaskJournal, tmp_path: Path) -> None:
    await journal.keep(reservation(1), TASK)
    files(tmp_path)[0].unlink()
    assert await journal.keep(reservation(2), TASK)
    assert len(read_requests(content(tmp_path))) == 2


async def test_a_disk_that_fails_is_said_to(
    journal: TaskJournal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JournalFile, "append", fail)
    assert not await journal.keep(reservation(1), TASK)
    assert "could not be written in" in caplog.text
    journal.settled("req_1")
