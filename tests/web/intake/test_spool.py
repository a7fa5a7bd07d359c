from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import UploadsUnavailable
from proxy.web.intake.spool import BATCH_BYTES, MEMORY_BYTES_LIMIT, Spool, Spools
from tests.support.examples import examples


@pytest.fixture(name="spools", scope="module")
def _spools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spools]:
    spools = Spools(tmp_path_factory.mktemp("spool") / "uploads", max_disk_bytes=2**30)
    yield spools
    spools.close()


def open_files(folder: Path) -> int:
    """How many files this process has open that lie in ``folder``, with a name or without."""
    return sum(str(folder) in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


async def test_what_is_small_stays_in_memory(spools: Spools) -> None:
    async with spools.open() as spool:
        await spool.write([b"12", b"345"])
        await spool.end()
        assert await spool.read(1, 3) == b"234"
        assert not spools.folder.exists()


@given(sizes=st.lists(st.integers(0, BATCH_BYTES + 1), max_size=12), big=st.booleans())
@examples(20)
async def test_what_was_written_is_read(spools: Spools, sizes: list[int], *, big: bool) -> None:
    pieces = [b"%d" % (index % 10) * size for index, size in enumerate(sizes)]
    if big:
        pieces.append(b"x" * (MEMORY_BYTES_LIMIT + 1))
    whole = b"".join(pieces)
    async with spools.open() as spool:
        for piece in pieces:
            await spool.write([piece])
        await spool.end()
        assert await spool.read(0, len(whole)) == whole
        assert await spool.read(len(whole) // 2, 1_000) == whole[len(whole) // 2 :][:1_000]


async def test_a_file_has_no_name_and_is_gone_at_the_end(spools: Spools) -> None:
    async with spools.open() as spool:
        await spool.write([b"x" * 2 * MEMORY_BYTES_LIMIT])
        await spool.end()
        assert open_files(spools.folder) == 1
        assert list(spools.folder.iterdir()) == []
        kept: Spool = spool
    # Whoever still reads learns that it has ended; never another request's bytes.
    with pytest.raises(ValueError, match="closed"):
        await kept.read(0, 1)
    assert open_files(spools.folder) == 0


def test_a_folder_is_made_and_tried_before_anything_depends_on_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    good, bad = (Spools(tmp_path / name / "uploads", max_disk_bytes=2**30) for name in ("new", "file"))
    try:
        good.prepare()
        assert [*good.folder.iterdir()] == []
        with pytest.raises(OSError, match="Not a directory"):
            bad.prepare()
    finally:
        good.close()
        bad.close()


async def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    spools = Spools(tmp_path / "file" / "uploads", max_disk_bytes=2**30)
    try:
        async with spools.open() as spool:
            with caplog.at_level(logging.ERROR), pytest.raises(UploadsUnavailable) as caught:
                await spool.write([b"x" * 2 * MEMORY_BYTES_LIMIT])
        assert (caught.value.wire_status, caught.value.retry_after_s) == (503, 10)
        assert "server.upload_folder" in caplog.text
    finally:
        spools.close()


async def test_all_together_take_no_more_of_the_disk_than_they_may(tmp_path: Path) -> None:
    spools = Spools(tmp_path, max_disk_bytes=5 * MEMORY_BYTES_LIMIT)
    large = [b"x" * 2 * MEMORY_BYTES_LIMIT]
    try:
        async with spools.open() as first, spools.open() as second:
            await first.write(large)
            await second.write(large)
            async with spools.open() as third:
                with pytest.raises(UploadsUnavailable):
                    await third.write(large)
                # What is small has room in memory.
                async with spools.open() as fourth:
                    await fourth.write([b"x"])
            assert spools.disk_bytes == 4 * MEMORY_BYTES_LIMIT
        assert spools.disk_bytes == 0
        async with spools.open() as again:
            await again.write(large)
    finally:
        spools.close()


async def test_one_key_takes_no_more_than_its_share_of_the_disk(tmp_path: Path) -> None:
    spools = Spools(tmp_path, max_disk_bytes=8 * MEMORY_BYTES_LIMIT, max_key_bytes=3 * MEMORY_BYTES_LIMIT)
    large = [b"x" * 2 * MEMORY_BYTES_LIMIT]
    try:
        async with spools.open("hog") as first, spools.open("hog") as second, spools.open("good") as other:
            await first.write(large)
            with pytest.raises(UploadsUnavailable):
                await second.write(large)
            await other.write(large)
        async with spools.open("hog") as again:
            await again.write(large)
        assert spools.disk_bytes == 0
    finally:
        spools.close()
