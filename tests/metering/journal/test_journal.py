from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from proxy.metering.journal.file import ROOM_BYTES, JournalFile
from proxy.metering.journal.journal import Journal, JournalError, name_of_store
from proxy.metering.journal.parked import drop, parked_records, retry
from proxy.metering.journal.records import Void, write_record
from proxy.telemetry.metrics import Metrics

FIRST, SECOND = Void("req_1", "acme", "acme_key"), Void("req_2", "acme", "acme_key")


def new(folder: Path) -> Journal:
    return Journal(folder, Metrics(), store_url="redis://store:6379/0")


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def test_what_a_process_left_is_adopted_once_and_removed_when_it_is_taken(tmp_path: Path) -> None:
    dead, alive, other = new(tmp_path), new(tmp_path), new(tmp_path)
    await dead.open()
    await dead.write([FIRST])
    await dead.write([SECOND])
    await alive.open()
    await other.open()
    # It is not taken from a process that lives.
    assert await alive.adopt() == []
    await dead.close()
    assert await alive.adopt() == [FIRST, SECOND]
    assert await other.adopt() == []
    assert len(files(tmp_path)) == 3
    await alive.taken(["req_1"])
    assert len(files(tmp_path)) == 3
    await alive.taken(["req_2"])
    assert len(files(tmp_path)) == 2
    await alive.close()
    await other.close()
    assert files(tmp_path) == []


async def test_a_torn_record_is_dropped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = write_record(SECOND)
    (tmp_path / f"settlements-{name_of_store('redis://store:6379/0')}-1-dead").write_bytes(
        write_record(FIRST) + line[: len(line) // 2] + b"\0" * 100
    )
    journal = new(tmp_path)
    await journal.open()
    assert await journal.adopt() == [FIRST]
    assert "1 record(s) were torn" in caplog.text
    await journal.close()


async def test_what_was_parked_or_dropped_is_no_longer_owed_where_its_process_died(tmp_path: Path) -> None:
    dead, following = new(tmp_path), new(tmp_path)
    await dead.open()
    third = Void("req_3", "acme", "acme_key")
    await dead.write([FIRST, SECOND, third])
    for each in (FIRST, SECOND):
        await dead.park(each, "WRONGTYPE")
    await dead.taken([FIRST.id, SECOND.id])
    parked = {each.owed.id: each for each in parked_records(tmp_path)}
    drop(parked["req_2"], "it was paid by hand")
    await dead.close()
    await following.open()
    assert await following.adopt() == [third]
    retry(parked["req_1"])
    assert await following.adopt() == [FIRST]
    await following.close()


async def test_what_was_taken_is_not_read_again(tmp_path: Path) -> None:
    journal, next_one = new(tmp_path), new(tmp_path)
    await journal.open()
    await journal.write([FIRST] * 100)
    await journal.taken([FIRST.id])
    await journal.write([SECOND])
    await journal.close()
    await next_one.open()
    assert await next_one.adopt() == [SECOND]
    await next_one.close()


async def test_many_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    append = JournalFile.append

    def count(file: JournalFile, records: bytes) -> None:
        nonlocal writes
        writes += 1
        append(file, records)

    monkeypatch.setattr(JournalFile, "append", count)
    journal = new(tmp_path)
    await journal.open()
    await asyncio.gather(*(journal.write([Void(f"req_{number}", "acme", "acme_key")]) for number in range(500)))
    assert writes < 10
    await journal.close()
    next_one = new(tmp_path)
    await next_one.open()
    assert {owed.id for owed in await next_one.adopt()} == {f"req_{number}" for number in range(500)}
    await next_one.close()


async def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"file/journal: the journal cannot be kept there \(Not a directory\).*set "):
        await new(tmp_path / "file" / "journal").open()


async def test_a_write_that_fails_is_an_alarm_until_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    journal = Journal(tmp_path, metrics, store_url="redis://store:6379/0")
    await journal.open()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(JournalFile, "append", fail)
        full.setattr(JournalFile, "make_room", fail)
        with pytest.raises(JournalError):
            await journal.write([FIRST])
        assert metrics.registry.get_sample_value("lightmeter_journal_up") == 0
        assert "No space left on device): requests get 503 until it can; free space there" in caplog.text
        assert not await journal.probe()
    assert await journal.probe()
    assert metrics.registry.get_sample_value("lightmeter_journal_up") == 1
    assert not await journal.probe()  # nothing has changed since
    await journal.write([FIRST])
    await journal.close()


async def test_a_file_that_was_removed_is_noticed_and_replaced(tmp_path: Path) -> None:
    journal, next_one = new(tmp_path), new(tmp_path)
    await journal.open()
    files(tmp_path)[0].unlink()
    with pytest.raises(JournalError):
        await journal.write([FIRST])
    assert not journal.healthy
    assert not await journal.probe()
    assert await journal.probe()
    await journal.write([SECOND])
    await journal.close()
    await next_one.open()
    assert await next_one.adopt() == [SECOND]
    await next_one.close()


def test_room_is_taken_before_it_is_needed(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path, "store")
    assert file.path.stat().st_blocks * 512 >= ROOM_BYTES
    file.append(b"x" * 1_000)
    file.make_room()
    assert file.path.stat().st_size == ROOM_BYTES + 1_000
    file.rewind()
    assert file.read() == b"\0" * (ROOM_BYTES + 1_000)
    file.remove()
    assert files(tmp_path) == []


async def test_what_is_owed_to_another_store_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = Journal(tmp_path, Metrics(), store_url="redis://other:6379/0")
    await other.open()
    await other.write([FIRST])
    await other.close()
    (left,) = files(tmp_path)
    journal = new(tmp_path)
    await journal.open()
    assert await journal.adopt() == []
    assert f"settlements of another store.url, which are left alone: {left.name}." in caplog.text
    await journal.close()
    assert files(tmp_path) == [left]


def test_a_store_s_name_holds_no_password_and_no_options() -> None:
    plain = name_of_store("redis://store:6379/0")
    assert name_of_store("redis://user:secret@store:6379/0?ssl_cert_reqs=none") == plain
    assert name_of_store("redis://store:6379/1") != plain
    assert name_of_store("redis://other:6379/0") != plain


async def test_what_is_written_while_an_adopted_file_is_removed_stays_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, journal, next_one = new(tmp_path), new(tmp_path), new(tmp_path)
    await dead.open()
    await dead.write([FIRST])
    await dead.close()
    await journal.open()
    assert await journal.adopt() == [FIRST]
    removing, go_on = threading.Event(), threading.Event()
    remove = JournalFile.remove

    def slowly(file: JournalFile) -> None:
        removing.set()
        assert go_on.wait(10)
        remove(file)

    with monkeypatch.context() as slow:
        slow.setattr(JournalFile, "remove", slowly)
        taking = asyncio.create_task(journal.taken([FIRST.id]))
        await asyncio.to_thread(removing.wait, 10)
        writing = asyncio.create_task(journal.write([SECOND]))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(taking, writing)
    await journal.close()
    await next_one.open()
    assert await next_one.adopt() == [SECOND]
    await next_one.taken([SECOND.id])
    await next_one.close()
    assert files(tmp_path) == []


async def test_an_odd_error_of_a_write_fails_that_write_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = new(tmp_path)
    await journal.open()

    def odd(*_: object) -> None:
        raise RuntimeError("odd")

    with monkeypatch.context() as strange:
        strange.setattr(JournalFile, "append", odd)
        with pytest.raises(JournalError, match="odd"):
            await journal.write([FIRST])
    await journal.write([SECOND])
    assert journal.healthy
    await journal.close()
