"""Certificates for a test: short-lived, and of nobody's authority but the test's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.requirements import program


def certify(folder: Path, name: str, subject: str, *options: str) -> None:
    """Make a key and a certificate for it."""
    command = [
        *(program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", subject, *options),
        *("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"),
    ]
    subprocess.run(command, check=True, capture_output=True)
