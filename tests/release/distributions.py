"""The sdist and the wheel of a checkout, and what is in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.telemetry.version import BUILT

WHERE_IN_THE_WHEEL = {
    "config/lightmeter.toml": "proxy/cli/configuration/example.toml",
    "config/teams.toml": "proxy/cli/configuration/example_teams.toml",
    "config/recipes/": "proxy/cli/recipe_files/",
}
"""Of a checkout's files outside ``proxy``, those that the program reads."""

BUILD_TIMEOUT_S = 120


class ReleaseError(Exception):
    """A release cannot be made of this; the message says why."""


@dataclass(frozen=True)
class Distributions:
    """What one build makes."""

    sdist: Path
    wheel: Path

    def files(self) -> dict[str, bytes]:
        """Both, by name."""
        return {path.name: path.read_bytes() for path in (self.sdist, self.wheel)}


def git(folder: Path, *arguments: str) -> str:
    """What git says of a checkout. Raises ReleaseError."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", folder, *arguments], check=False, capture_output=True, text=True, timeout=60, env=own
    )
    if done.returncode:
        raise ReleaseError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def clone(checkout: Path, folder: Path) -> None:
    """Put the checkout's commit into ``folder``, which does not exist yet."""
    git(checkout, "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(checkout), str(folder))
    git(folder, "checkout", "--quiet", "--detach", git(checkout, "rev-parse", "HEAD").strip())


def build(folder: Path, output: Path, environment: Mapping[str, str]) -> Distributions:
    """The sdist of ``folder``, and the wheel of the same. Raises ReleaseError."""
    _run_hatch(folder, output, environment, "sdist", "wheel")
    return Distributions(_only(output, "*.tar.gz"), _only(output, "*.whl"))


def build_wheel_of(sdist: Path, output: Path, environment: Mapping[str, str]) -> Path:
    """The wheel that the sdist builds. Raises ReleaseError."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        _run_hatch(_only(Path(folder), "*"), output, environment, "wheel")
    return _only(output, "*.whl")


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel that are not about the wheel itself."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def expected_in_the_wheel(checkout: Path) -> set[str]:
    """The files of a wheel, as git knows them: all of ``proxy``, and what is read from elsewhere."""
    names = {BUILT}
    for name in git(checkout, "ls-files", "proxy", *WHERE_IN_THE_WHEEL).splitlines():
        for prefix, place in WHERE_IN_THE_WHEEL.items():
            if name.startswith(prefix):
                name = place + name.removeprefix(prefix)  # noqa: PLW2901 - where it is in the wheel
        names.add(name)
    return names


def _run_hatch(folder: Path, output: Path, environment: Mapping[str, str], *targets: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(output)]
    for target in targets:
        command += ["--target", target]
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise ReleaseError(f"the build of {' and '.join(targets)} failed: {done.stderr.strip().splitlines()[-1]}")


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"{folder} should hold one {pattern}, and holds {len(found)}")
    return found[0]
