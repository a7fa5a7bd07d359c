"""What is in an environment, as a CycloneDX document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.release.distributions import ReleaseError
from tests.release.smoke import Environment
from tests.support.processes import ROOT

SPECIFICATION = "1.6"
TIMEOUT_S = 120


def write_sbom(environment: Environment, path: Path, epoch: str) -> int:
    """Write what is installed in ``environment``, valid by the schema of the library; how many components it has.

    The same environment at the same ``epoch``, seconds since 1970, gives the same bytes. Raises ReleaseError.
    """
    command = [
        *(str(Path(sys.executable).with_name("cyclonedx-py")), "environment", str(environment.python)),
        *("--pyproject", str(ROOT / "pyproject.toml"), "--spec-version", SPECIFICATION, "--output-format", "JSON"),
        *("--output-reproducible", "--validate", "--output-file", str(path)),
    ]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
        )
    except FileNotFoundError:
        raise ReleaseError("cyclonedx-py is not installed: make .venv/.ready") from None
    if done.returncode:
        raise ReleaseError(f"cyclonedx-py: {done.stderr.strip()}")
    told = path.read_text()
    wrong = mistakes_of(told)
    if wrong:
        raise ReleaseError(f"{path} is not what the schema allows: {wrong}")
    document: dict[str, Any] = json.loads(told)
    private = [word for word in (str(ROOT), str(environment.folder)) if word in told]
    if private:
        raise ReleaseError(f"{path} names a folder of this machine: {private}")
    return len(document["components"])


def mistakes_of(text: str) -> str | None:
    """What is wrong with a document by the schema that the library ships, None where nothing is."""
    # Importing it builds a grammar, for seconds of processor time in each process that only collects tests.
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if found is None else str(found)
