from __future__ import annotations

import re

import pytest

from tests.release.ready import obstacles

GOOD = """# Changelog

## [Unreleased]

## [1.0.0] - 2026-12-01

### Added

- All of it.

## [0.9.0] - 2026-01-01

- Most of it.
"""


def test_a_version_with_a_changelog_of_its_own_is_ready() -> None:
    assert obstacles("1.0.0", "1.0.0", GOOD, ["v0.9.0"], "1.0.0") == []


@pytest.mark.parametrize(
    ("version", "in_project", "changelog", "why"),
    [
        ("1.0", "1.0", GOOD, "is no version"),
        ("1.0.0", "0.9.0", GOOD, "pyproject.toml says 0.9.0"),
        ("0.9.0", "0.9.0", GOOD, "there is a tag v0.9.0"),
        (
            "1.0.0",
            "1.0.0",
            GOOD.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n"),
            r"\[Unreleased\] that is empty",
        ),
        ("1.0.0", "1.0.0", GOOD.replace("## [Unreleased]\n", ""), r"\[Unreleased\] that is empty"),
        ("1.0.0", "1.0.0", GOOD.replace(" - 2026-12-01", ""), r"no '## \[1.0.0\] - "),
        ("1.0.0", "1.0.0", GOOD.replace("### Added\n\n- All of it.\n", ""), r"no '## \[1.0.0\] - "),
        ("1.0.1", "1.0.1", GOOD, r"no '## \[1.0.1\] - "),
    ],
)
def test_what_is_not_ready_is_told(version: str, in_project: str, changelog: str, why: str) -> None:
    assert re.search(why, "; ".join(obstacles(version, in_project, changelog, ["v0.9.0"], version)))


def test_a_release_is_compared_with_later() -> None:
    (found,) = obstacles("1.0.0", "1.0.0", GOOD, [], "0.9.0")
    assert "that of 0.9.0: make bench-check ARGS=--record" in found
