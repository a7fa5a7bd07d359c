"""A fresh environment with what was built in it, and the program tried there as a user would."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.telemetry.version import Build
from tests.release.distributions import ReleaseError
from tests.support.processes import ROOT

LOCK = ROOT / "deploy" / "docker" / "requirements.lock"
"""What a gateway in production is installed with, by hash."""

DEVELOPMENT = ROOT / "requirements.lock"
BUILD_TOOLS = ("hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers")
"""What builds an sdist; pip knows no other way to have it by hash."""

EXTRAS = sorted(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys() - {"dev"}
)
"""All that users may ask for."""

INSTALL_TIMEOUT_S = 400
RUN_TIMEOUT_S = 60
CHARGED = 7_500


@dataclass(frozen=True)
class Environment:
    """A virtual environment without a pip of its own, so that what is in it is what was asked for."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *arguments: str, elsewhere: Path) -> str:
        """What ``lightmeter`` prints there, in a folder that has nothing to do with a checkout. Raises ReleaseError."""
        # Nothing on the PATH but what a system has, and nothing of this shell's.
        environment = {"PATH": os.defpath, "HOME": str(elsewhere), "LC_ALL": "C.UTF-8"}
        return _run([self.folder / "bin" / "lightmeter", *arguments], elsewhere, environment, RUN_TIMEOUT_S)


def make_environment(interpreter: Path, folder: Path, lock: str) -> Environment:
    """A fresh environment of ``interpreter`` with what ``lock``, a lock's text, names. Raises ReleaseError."""
    environment = Environment(folder)
    _run([interpreter, "-I", "-m", "venv", "--without-pip", folder], ROOT, None, INSTALL_TIMEOUT_S)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(lock)
        file.flush()
        _pip(environment, "--require-hashes", "--only-binary", ":all:", "--requirement", file.name)
    return environment


def install(environment: Environment, distribution: Path) -> None:
    """Install what was built, with no index to ask: what it needs has to be there. Raises ReleaseError."""
    wanted = f"lightmeter[{','.join(EXTRAS)}] @ {distribution.absolute().as_uri()}"
    _pip(environment, "--no-index", "--no-build-isolation", wanted)


def lock_for(distribution: Path) -> str:
    """The part of the locks that ``distribution`` needs in order to be installed with all its extras."""
    blocks = _blocks(LOCK)
    if distribution.name.endswith(".tar.gz"):
        tools = _blocks(DEVELOPMENT)
        blocks |= {name: tools[name] for name in BUILD_TOOLS}
    return "".join(blocks.values())


def try_out(environment: Environment, version: str, build: Build) -> str:
    """Send an image through the gateway that is installed there; what happened. Raises ReleaseError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = _run(
            [environment.python, "-I", "-c", "import proxy; print(proxy.__file__)"], folder, None, RUN_TIMEOUT_S
        )
        _expect(place.startswith(str(environment.folder)), f"another Lightmeter was imported: {place}")
        said = environment.run("--version", elsewhere=folder)
        _expect(said == f"lightmeter, version {version} (commit {build.commit}, {build.date})\n", said)
        for arguments, path in (
            (("config", "example"), ROOT / "config" / "lightmeter.toml"),
            (("config", "example", "teams"), ROOT / "config" / "teams.toml"),
            (("config", "recipe", "xai"), ROOT / "config" / "recipes" / "xai.toml"),
        ):
            _expect(
                environment.run(*arguments, elsewhere=folder) == path.read_text(), f"{arguments} prints other things"
            )
        recipes = json.loads(environment.run("config", "recipe", "--json", elsewhere=folder))["recipes"]
        there = sorted(path.stem for path in (ROOT / "config" / "recipes").glob("*.toml"))
        _expect(sorted(each["name"] for each in recipes) == there, f"the recipes are {recipes}")
        told = json.loads(environment.run("demo", "--once", "--port", "0", "--json", elsewhere=folder))
        picture = (folder / told["picture"]).read_bytes()
        _expect(picture.startswith(b"\x89PNG\r\n\x1a\n"), "the picture is no PNG")
        width, height = struct.unpack(">II", picture[16:24])
        quota = told["quota_units"]
        _expect((quota["posted"], quota["reserved"]) == (CHARGED, 0), f"the quota is {quota}")
        _expect(told["metrics"][0].endswith(f" {CHARGED}.0"), f"the metrics are {told['metrics']}")
    return f"{width} x {height} pixels delivered, {quota['posted']:,} quota units charged"


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ReleaseError(what)


def _blocks(lock: Path) -> dict[str, str]:
    """What a lock says of each distribution, by its name."""
    parts = re.split(r"^(?=[a-z0-9][\w.-]*==)", lock.read_text(), flags=re.MULTILINE)
    return {part.partition("==")[0]: part for part in parts if "==" in part.partition("\n")[0]}


def _pip(environment: Environment, *arguments: str) -> None:
    command = ["-m", "pip", "--python", str(environment.python), "install", "--quiet", "--disable-pip-version-check"]
    _run(
        [sys.executable, *command, "--no-compile", "--root-user-action", "ignore", *arguments],
        ROOT,
        None,
        INSTALL_TIMEOUT_S,
    )


def _run(command: Sequence[str | Path], folder: Path, environment: dict[str, str] | None, timeout_s: float) -> str:
    done = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=timeout_s, env=environment
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ReleaseError(f"{' '.join(map(str, command))} ended with {done.returncode}: {said}")
    return done.stdout
