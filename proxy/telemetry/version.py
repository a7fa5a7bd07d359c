"""Which Lightmeter this is: its version, and the commit that it was built from.

A wheel and an sdist hold the commit in a file, which ``deploy/release/build_hook.py`` writes. A checkout has git. This
file is loaded by its path while a wheel is built: it may import the standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

UNKNOWN = "unknown"
BUILT = "proxy/telemetry/build.json"
"""Where a wheel and an sdist hold their commit, from their root."""

GIT_TIMEOUT_S = 5
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Build:
    """What was built."""

    commit: str
    """Its full hash, with ``-modified`` where files differed from it; or ``unknown``."""

    date: str
    """When it was committed, in UTC, as RFC 3339 writes it; or ``unknown``."""

    def to_json(self) -> str:
        """What ``read_build`` reads: the same bytes for the same commit."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


NO_BUILD = Build(UNKNOWN, UNKNOWN)


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("lightmeter")
    except PackageNotFoundError:
        return UNKNOWN


def read_build(root: Path = _ROOT, environment: Mapping[str, str] = os.environ) -> Build:
    """The commit of what stands in ``root``: from its file, else from git where it is a checkout.

    What neither knows is ``unknown``. It blocks: git is another program.
    """
    try:
        return Build(**json.loads((root / BUILT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    if (root / ".git").exists() and (root / "pyproject.toml").exists():
        return _ask_git(root, environment)
    return NO_BUILD


def told_build(environment: Mapping[str, str]) -> Build:
    """For builds without git: the commit that ``LIGHTMETER_COMMIT`` names, and the date of ``SOURCE_DATE_EPOCH``."""
    try:
        date = _date(int(environment.get("SOURCE_DATE_EPOCH", "")))
    except ValueError:
        date = UNKNOWN
    return Build(environment.get("LIGHTMETER_COMMIT") or UNKNOWN, date)


def _ask_git(root: Path, environment: Mapping[str, str]) -> Build:
    # Git's own variables are those of a hook that runs us, and may name another repository.
    own = {name: text for name, text in environment.items() if not name.startswith("GIT_")}
    # A broken .git is not the folder above.
    own |= {"GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - nothing of it comes from outside
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the user's own git
            check=True,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            env=own,
        ).stdout

    try:
        commit, seconds = git("log", "-1", "--no-show-signature", "--format=%H %ct").split()
        modified = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError, ValueError):
        return NO_BUILD
    return Build(f"{commit}-modified" if modified else commit, _date(int(seconds)))


def _date(seconds: int) -> str:
    # 0 is what builds say that have no date.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else UNKNOWN
