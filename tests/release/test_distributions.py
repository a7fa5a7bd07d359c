"""A wheel and an sdist as they are built of this tree, committed or not."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from proxy.telemetry.version import BUILT, Build
from tests.release.distributions import (
    Distributions,
    ReleaseError,
    build,
    build_wheel_of,
    clone,
    expected_in_the_wheel,
    git,
    names_in,
)
from tests.support.processes import ROOT

pytestmark = pytest.mark.slow
TOLD = {"LIGHTMETER_COMMIT": "0123456789abcdef", "SOURCE_DATE_EPOCH": "1700000000"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Of what git knows in this tree, as it is now, in a folder without git."""
    folder = tmp_path_factory.mktemp("tree")
    for name in git(ROOT, "ls-files").splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return build(folder, tmp_path_factory.mktemp("first"), TOLD)


def test_the_wheel_holds_all_that_git_knows_of_the_program_and_nothing_else(built: Distributions) -> None:
    assert names_in(built.wheel) == {name for name in expected_in_the_wheel(ROOT) if "__pycache__" not in name}


def test_the_sdist_builds_the_same_wheel_elsewhere(built: Distributions, tmp_path: Path) -> None:
    other = {"TZ": "Asia/Kathmandu", "LIGHTMETER_COMMIT": "another", "SOURCE_DATE_EPOCH": TOLD["SOURCE_DATE_EPOCH"]}
    assert build_wheel_of(built.sdist, tmp_path / "out", other).read_bytes() == built.wheel.read_bytes()


def test_the_wheel_holds_the_commit_that_it_was_told(built: Distributions) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        text = archive.read(BUILT).decode()
    assert text == Build(TOLD["LIGHTMETER_COMMIT"], "2023-11-14T22:13:20Z").to_json()


def test_a_build_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'x'\n[build-system]\nbuild-backend = 'hatchling.build'\n"
    )
    with pytest.raises(ReleaseError, match=r"the build of sdist and wheel failed: ValueError: Field `project.version`"):
        build(tmp_path, tmp_path / "out", {})


def test_a_clone_is_the_commit_whatever_lies_in_the_checkout(tmp_path: Path) -> None:
    def run(*arguments: str) -> None:
        who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path / "a", *who, *arguments], check=True, capture_output=True)

    (tmp_path / "a").mkdir()
    run("init", "--quiet")
    (tmp_path / "a" / "file").write_text("committed")
    run("add", ".")
    run("commit", "--message", "The first of all")
    (tmp_path / "a" / "file").write_text("not committed")
    clone(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "committed"
    with pytest.raises(ReleaseError, match="git clone: "):
        clone(tmp_path / "b" / "file", tmp_path / "c")
