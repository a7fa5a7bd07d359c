"""The Makefile finds a Python that is new enough, says which one is needed, and mends an environment that is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.requirements import program

OLD = """#!/bin/sh
if [ "$1" = --version ]; then echo "Python {version}"; exit; fi
echo "Traceback (most recent call last): something that nobody understands" >&2
exit 1
"""
NEW = """#!/bin/sh
# A Python whose virtual environments have a pip that installs nothing, so that no index is asked.
case "$*" in
--version) echo "Python {version}" ;;
"-m venv"*)
    rm -rf .venv; mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    echo "made by {name}" >> made ;;
"-m pip install"*)
    [ ! -e fail ] || exit 1
    printf '#!/bin/sh\\n[ -x .venv/bin/python ] && echo "lightmeter $*"\\n' > .venv/bin/lightmeter
    chmod +x .venv/bin/lightmeter ;;
*"import pip"*) [ -e .venv/bin/lightmeter ] ;;
*) exec {real} "$@" ;;
esac
"""


class Clone:
    """A clone with nothing but what ``make run`` reads, and a PATH of its own with pythons that are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        self.path = folder / "path"
        for each in (self.folder, self.path):
            each.mkdir()
        for name in ("Makefile", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder / name)
        for name in ("sh", "rm", "cp", "mkdir", "chmod", "touch", "cat"):
            found = shutil.which(name)
            assert found is not None
            (self.path / name).symlink_to(found)

    def add(self, name: str, version: str) -> None:
        """A Python on the PATH."""
        text = OLD if tuple(map(int, version.split("."))) < (3, 11) else NEW
        (self.path / name).write_text(text.format(version=version, name=name, real=sys.executable))
        (self.path / name).chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``make run``."""
        command = [program("make", "make"), "run", "ARGS=--once", *arguments]
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
            env={"PATH": str(self.path), "HOME": os.environ.get("HOME", "/")},
        )

    def made_by(self) -> list[str]:
        """Who has made environments, one after the other."""
        made = self.folder / "made"
        return [line.removeprefix("made by ") for line in made.read_text().splitlines()] if made.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.mark.parametrize("version", ["3.6.8", "3.9.2", "3.10.12"])
def test_who_has_an_old_python_only_is_told_what_is_needed(clone: Clone, version: str) -> None:
    clone.add("python3", version)
    done = clone.make()
    assert done.returncode != 0
    assert f"Lightmeter needs Python 3.11 or newer, and none was found; python3 is Python {version}." in done.stderr
    assert "make run PYTHON=/path/of/python3.12" in done.stderr
    assert "nobody understands" not in done.stderr
    # After the fix nothing has to be cleaned.
    clone.add("python3.12", "3.12.1")
    done = clone.make()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "lightmeter demo --once")
    assert clone.made_by() == ["python3.12"]


def test_who_has_no_python_is_told_so(clone: Clone) -> None:
    done = clone.make()
    assert done.returncode != 0
    assert "Python 3.11 or newer, and none was found" in done.stderr


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3.14", "python"])
def test_a_newer_python_is_found_beside_an_old_one(clone: Clone, name: str) -> None:
    clone.add("python3", "3.10.12")
    clone.add(name, "3.14.0" if name == "python" else f"{name.removeprefix('python')}.0")
    assert clone.make().returncode == 0
    assert clone.made_by() == [name]


def test_the_machines_own_python_comes_first_and_a_named_one_before_it(clone: Clone) -> None:
    clone.add("python3", "3.11.2")
    clone.add("python3.13", "3.13.1")
    assert clone.make().returncode == 0
    shutil.rmtree(clone.folder / ".venv")
    assert clone.make("PYTHON=python3.13").returncode == 0
    assert clone.made_by() == ["python3", "python3.13"]


def test_a_named_python_that_is_too_old_is_told(clone: Clone) -> None:
    clone.add("python3", "3.12.0")
    clone.add("python3.9", "3.9.2")
    done = clone.make("PYTHON=python3.9")
    assert done.returncode != 0
    assert "python3.9 is Python 3.9.2" in done.stderr


def test_an_environment_that_is_whole_is_kept(clone: Clone) -> None:
    clone.add("python3", "3.12.0")
    assert [clone.make().returncode, clone.make().returncode] == [0, 0]
    (clone.folder / "requirements.lock").touch()
    assert clone.make().returncode == 0
    assert clone.made_by() == ["python3"]


def test_a_half_made_environment_is_finished_without_cleaning(clone: Clone) -> None:
    clone.add("python3", "3.12.0")
    (clone.folder / "fail").touch()
    assert clone.make().returncode != 0
    (clone.folder / "fail").unlink()
    done = clone.make()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "lightmeter demo --once")


def test_an_environment_whose_interpreter_is_gone_is_made_anew(clone: Clone) -> None:
    clone.add("python3", "3.12.0")
    assert clone.make().returncode == 0
    (clone.folder / ".venv" / "bin" / "python").unlink()
    (clone.folder / ".venv" / "bin" / "python").symlink_to("/no/such/python3.12")
    done = clone.make()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "lightmeter demo --once")
    assert clone.made_by() == ["python3", "python3"]


def test_a_python_without_the_means_for_environments_says_what_to_install(clone: Clone) -> None:
    clone.add("python3", "3.12.0")
    broken = (clone.path / "python3").read_text().replace('"-m venv"*)', '"-m venv"*) exit 1 ;;\n"never"*)')
    (clone.path / "python3").write_text(broken)
    done = clone.make()
    assert done.returncode != 0
    assert "install python3-venv" in done.stderr
