from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.release.interpreters import find_interpreters, supported

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


def put(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_this_one_is_found_and_works() -> None:
    path = Path(sys.executable).resolve().parent
    found = find_interpreters((THIS,), {"PATH": str(path), "HOME": "/nonexistent"}).found
    assert found.keys() == {THIS}


@pytest.mark.parametrize("script", ["echo 3.13 0", "echo 3.12 1", "exit 1", "echo"])
def test_what_is_another_one_or_does_not_work_is_none(script: str, tmp_path: Path) -> None:
    put(tmp_path / "bin", "python3.12", script)
    given = {"PATH": f"{tmp_path / 'bin'}:{tmp_path / 'not there'}", "HOME": str(tmp_path)}
    assert find_interpreters(("3.12",), given).missing == ("3.12",)


def test_one_that_is_installed_and_not_chosen_is_found_behind_one_that_refuses(tmp_path: Path) -> None:
    put(tmp_path / "shims", "python3.12", "echo 'not found' >&2; exit 127")
    path = put(tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin", "python3.12", "echo 3.12 0")
    there = find_interpreters(("3.11", "3.12"), {"PATH": str(tmp_path / "shims"), "HOME": str(tmp_path)})
    assert (there.found, there.missing) == ({"3.12": path}, ("3.11",))


def test_the_project_names_what_it_is_tried_on() -> None:
    assert supported() == ("3.11", "3.12", "3.13", "3.14")
