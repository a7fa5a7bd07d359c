"""The programs in tests/node, in a folder of their own with the packages of their lock file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT
from tests.support.requirements import lacking, program

SOURCE = ROOT / "tests" / "node"
FILES = ("package.json", "package-lock.json", ".npmrc", "script.mjs", "clients.mjs")
INSTALL_TIMEOUT_S = 90
SCRIPT_TIMEOUT_S = 60


def install(folder: Path) -> None:
    """Fill the folder; skips where node or the packages cannot be had."""
    program("node", "nodejs")
    npm = program("npm", "npm")
    for name in FILES:
        shutil.copy(SOURCE / name, folder)
    installed = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if installed.returncode:
        lacking(f"needs what npm ci installs from the registry: {installed.stderr[-500:]}")


def told_by(folder: Path, script: str, **variables: str) -> dict[str, Any]:
    """The JSON document that a script writes."""
    ended = subprocess.run(
        [program("node", "nodejs"), script],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told
