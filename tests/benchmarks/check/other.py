"""Another tree of Lightmeter to compare this one with: a folder, or a commit of this repository."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.support.processes import ROOT

GIT_TIMEOUT_S = 60


class NoSuchTreeError(Exception):
    """What was named is neither."""


@contextmanager
def other_tree(name: str) -> Iterator[Path]:
    """Its folder; that of a commit is there for as long as the block lasts. Raises NoSuchTreeError."""
    if Path(name).is_dir():
        yield Path(name).resolve()
        return
    command = ["git", "archive", "--format=tar", f"{name}^{{commit}}", "--", "proxy", "config"]
    try:
        archive = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=GIT_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", b"") or str(error).encode()
        raise NoSuchTreeError(f"{name} is no folder, and no commit: {told.decode(errors='replace').strip()}") from None
    with tempfile.TemporaryDirectory(prefix="lightmeter-tree-") as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)
