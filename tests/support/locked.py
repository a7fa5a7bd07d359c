"""Packages that only a test wants: had from the registry once, kept beside pytest's cache, checked by their hashes."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import ROOT
from tests.support.requirements import lacking

DOWNLOAD_S = 120
INSTALL_S = 300


def source_of(package: str, cache: Path) -> Path:
    """The unpacked source of a package at the version that requirements.lock has; skips where it cannot be had."""
    entry = re.search(
        rf"^{re.escape(package)}==(\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+",
        (ROOT / "requirements.lock").read_text(),
        re.MULTILINE,
    )
    assert entry is not None, f"requirements.lock has no {package}"
    folder = cache / f"{package}-{entry[1]}"
    with _alone(cache):
        if not folder.exists():
            wanted = cache / f"{package}.txt"
            wanted.write_text(entry[0])
            arguments = ["download", "--no-deps", "--no-binary", package, "--require-hashes", "--dest", str(cache)]
            _pip(Path(sys.executable), DOWNLOAD_S, *arguments, "--requirement", str(wanted))
            (archive,) = cache.glob(f"{package}-{entry[1]}.tar.gz")
            with tarfile.open(archive) as packed:
                packed.extractall(cache / "unpacking", filter="data")
            (cache / "unpacking" / folder.name).rename(folder)
    return folder


def python_with(lock: Path, cache: Path) -> Path:
    """The interpreter of an environment of its own that has the packages of a lock; skips where they cannot be had."""
    folder = cache / lock.stem
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    with _alone(cache):
        if not done.exists() or done.read_text() != lock.read_text():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=INSTALL_S)
            arguments = ["--no-deps", "--no-compile", "--require-hashes", "--requirement", str(lock)]
            _pip(python, INSTALL_S, "install", *arguments)
            done.write_text(lock.read_text())
    return python


def _pip(python: Path, timeout_s: float, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        lacking(f"pip did not end within {timeout_s} seconds")
    if ended.returncode:
        lacking(f"pip cannot have it: {ended.stderr.strip()[-500:]}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One test process at a time fills the folder."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
