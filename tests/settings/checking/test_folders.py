from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.settings.checking.folders import unwritable, why_unwritable
from proxy.settings.settings import read_settings

MODEL = {"id": "m", "provider": "a", "upstream_model": "m", "token_multiplier": 1}
PROVIDER = {"name": "a", "base_url": "https://a.example"}


@pytest.fixture
def stranger() -> object:
    """Root may write everywhere, so it is somebody else for a while."""
    if os.geteuid() != 0:
        return None
    return 65_534


def as_user(user: object, folder: Path) -> str | None:
    if not isinstance(user, int):
        return why_unwritable(folder)
    # In a process of its own: what a thread of this one does meanwhile is not to fail by it.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(user)
        os.write(write, (why_unwritable(folder) or "").encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as told:
        return told.read() or None


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path) is None
    assert why_unwritable(tmp_path / "a" / "b") is None
    assert [*tmp_path.iterdir()] == []


def test_a_folder_of_somebody_else_is_told(tmp_path: Path, stranger: object) -> None:
    for each in tmp_path.parents:
        if each.stat().st_mode & 0o005 != 0o005 and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o005)
    tmp_path.chmod(0o555)
    assert as_user(stranger, tmp_path) == "Permission denied"
    assert as_user(stranger, tmp_path / "missing") == "Permission denied"


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert why_unwritable(tmp_path / "file") == "Not a directory"
    assert why_unwritable(tmp_path / "file" / "folder") == "Not a directory"


def test_what_lies_in_a_folder_that_is_told_is_not_told_as_well(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = tmp_path / "file" / "data"
    (line,) = unwritable({"server.data_folder": data, "server.upload_folder": data / "uploads", "other": tmp_path})
    assert line.startswith(f"server.data_folder: {data} cannot be written to (Not a directory): ")


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("store", {"url": "embedded:{file}/data"}, ["store.url"]),
        ("server", {"data_folder": "{file}/data"}, ["server.data_folder"]),
        ("server", {"data_folder": "{good}", "upload_folder": "{file}/x"}, ["server.upload_folder"]),
        ("server", {"data_folder": "{file}/x", "upload_folder": "{file}/y"}, ["server.data_folder", "server.upload_f"]),
        ("server", {"data_folder": "{broken}"}, ["server.data_folder (journal)"]),
        ("server", {"data_folder": "{good}"}, []),
    ],
)
def test_each_folder_of_the_configuration_is_looked_at(
    tmp_path: Path, section: str, values: dict[str, str], told: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "journal").write_text("")
    places = {"file": tmp_path / "file", "good": tmp_path / "good", "broken": tmp_path / "broken"}
    given = {name: value.format(**places) for name, value in values.items()}
    content = {"store": {"url": "redis://h"}, section: given, "providers": [PROVIDER], "models": [MODEL]}
    found = read_settings(content, "x", {}).unwritable_folders()
    assert [line.startswith(each) for line, each in zip(found, told, strict=True)] == [True] * len(told)
