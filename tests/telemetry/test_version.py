from __future__ import annotations

import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

import proxy.cli
from proxy.cli import main
from proxy.telemetry.version import BUILT, NO_BUILD, Build, read_build, told_build

AT = "2026-11-26T07:15:59+00:00"


def git(folder: Path, *arguments: str) -> str:
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
    own |= {"GIT_COMMITTER_DATE": AT, "GIT_AUTHOR_DATE": "2001-01-01T00:00:00+00:00"}
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=own).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[project]\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "The first of all")
    return folder


def test_a_checkout_is_its_commit_and_when_it_was_committed(checkout: Path) -> None:
    assert read_build(checkout) == Build(git(checkout, "rev-parse", "HEAD"), "2026-11-26T07:15:59Z")


def test_what_differs_from_the_commit_is_told(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "new").write_text("nothing that git has")
    assert read_build(checkout).commit == commit
    (checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert read_build(checkout).commit == f"{commit}-modified"


def test_a_hook_of_another_repository_does_not_mislead_it(checkout: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GIT_DIR": str(tmp_path / "other"), "GIT_WORK_TREE": str(tmp_path)}
    assert read_build(checkout, environment).commit == git(checkout, "rev-parse", "HEAD")


def test_what_was_built_says_so_whatever_git_says(checkout: Path) -> None:
    built = Build("0123abc", "2025-01-01T00:00:00Z")
    (checkout / BUILT).parent.mkdir(parents=True)
    (checkout / BUILT).write_text(built.to_json())
    assert read_build(checkout) == built


@pytest.mark.parametrize("text", ["", "[]", '{"commit": "x"}', '{"commit": "x", "date": "y", "by": "z"}'])
def test_a_file_that_says_nothing_is_passed_over(text: str, checkout: Path) -> None:
    (checkout / BUILT).parent.mkdir(parents=True)
    (checkout / BUILT).write_text(text)
    assert read_build(checkout).commit == git(checkout, "rev-parse", "HEAD")


def test_a_folder_within_another_repository_is_not_that_repositorys(checkout: Path) -> None:
    inside = checkout / "site-packages"
    (inside / ".git").mkdir(parents=True)
    (inside / "pyproject.toml").write_text("[project]\n")
    assert read_build(inside) == NO_BUILD
    (inside / ".git").rmdir()
    assert read_build(inside) == NO_BUILD


def test_without_git_nothing_is_made_up(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert read_build(checkout) == NO_BUILD == Build("unknown", "unknown")


@pytest.mark.parametrize(
    ("environment", "build"),
    [
        ({"LIGHTMETER_COMMIT": "abc", "SOURCE_DATE_EPOCH": "1700000000"}, Build("abc", "2023-11-14T22:13:20Z")),
        ({"LIGHTMETER_COMMIT": "", "SOURCE_DATE_EPOCH": "0"}, NO_BUILD),
        ({"LIGHTMETER_COMMIT": "abc", "SOURCE_DATE_EPOCH": "yesterday"}, Build("abc", "unknown")),
        ({}, NO_BUILD),
    ],
)
def test_a_build_without_git_is_told(environment: dict[str, str], build: Build) -> None:
    assert told_build(environment) == build


def test_the_command_line_tells_version_commit_and_date(monkeypatch: pytest.MonkeyPatch) -> None:
    said = CliRunner().invoke(main, ["--version"]).output
    assert re.fullmatch(r"lightmeter, version \S+ \(commit [0-9a-f]{40}(-modified)?, \d{4}-\d\d-\d\dT\S+Z\)\n", said)
    monkeypatch.setattr(proxy.cli, "read_build", lambda: NO_BUILD)
    said = CliRunner().invoke(main, ["--version"]).output
    assert said == f"lightmeter, version {version('lightmeter')} (commit unknown, unknown)\n"
