"""The Pythons of this machine that Lightmeter may be installed on."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

PROBE = """
import sys, sysconfig, venv, ssl
print('%d.%d' % sys.version_info[:2], sysconfig.get_config_var('Py_GIL_DISABLED') or 0)
"""
"""Ends with an error where no environment can be made, or no TLS spoken."""

PROBE_TIMEOUT_S = 30


@dataclass(frozen=True)
class Interpreters:
    """What was looked for, and what is there."""

    found: Mapping[str, Path]
    """By version, such as ``3.12``."""

    missing: tuple[str, ...]


def supported() -> tuple[str, ...]:
    """The versions that ``pyproject.toml`` names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    return tuple(each.removeprefix(prefix[:-2]) for each in project["classifiers"] if each.startswith(prefix))


def find_interpreters(versions: tuple[str, ...], environment: Mapping[str, str] = os.environ) -> Interpreters:
    """The first working interpreter of each version: of the PATH, of pyenv, of uv."""
    found = {}
    for version in versions:
        for path in _places(f"python{version}", environment):
            if _version_of(path) == version:
                found[version] = path
                break
    return Interpreters(found, tuple(each for each in versions if each not in found))


def _places(name: str, environment: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environment.get("HOME", "/nonexistent"))
    for folder in environment.get("PATH", "").split(os.pathsep):
        yield Path(folder) / name
    # pyenv's own programs on the PATH work for the versions that are chosen, and not for those that are only there.
    yield from sorted(Path(environment.get("PYENV_ROOT", home / ".pyenv")).glob(f"versions/*/bin/{name}"))
    yield from sorted((home / ".local" / "share" / "uv" / "python").glob(f"*/bin/{name}"))


def _version_of(path: Path) -> str | None:
    """Its version, None where it is not there, does not work, or is built without its global lock."""
    if not path.is_file():
        return None
    try:
        said = subprocess.run(
            [path, "-I", "-c", PROBE], check=True, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said[1:] == ["0"] else None
