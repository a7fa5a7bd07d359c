from __future__ import annotations

from pathlib import Path

import pytest

from proxy.metering.embedded.server import EmbeddedStore
from proxy.metering.private_folder import make_private_folder, take_back_from_others


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_folder_on_the_way_is_private(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    make_private_folder(tmp_path / "home" / "data" / "journal")
    make_private_folder(tmp_path / "home" / "data" / "journal")
    assert [mode(tmp_path / "home"), mode(tmp_path / "home/data"), mode(tmp_path / "home/data/journal")] == [
        0o755, 0o700, 0o700,
    ]  # fmt: skip


def test_a_file_of_that_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match="exists"):
        make_private_folder(tmp_path / "data")
    take_back_from_others(tmp_path / "data")
    take_back_from_others(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


async def test_what_the_embedded_store_writes_is_private_also_in_a_folder_that_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    # As a version before this one left it.
    (folder / "appendonlydir").mkdir(mode=0o755)
    store = EmbeddedStore(folder)
    await store.start()
    await store.stop()
    assert mode(folder) == 0o755
    assert mode(folder / "appendonlydir") == 0o700
    files = [path for path in (folder / "appendonlydir").iterdir() if path.is_file()]
    assert files
    assert {mode(path) & 0o077 for path in files} == {0}
