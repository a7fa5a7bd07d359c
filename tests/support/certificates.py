"""Certificates for a test: short-lived, and of nobody's authority but the test's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.requirements import program


def server_flags(folder: Path, port: int) -> tuple[str, ...]:
    """Settings of a Redis that speaks TLS at ``port`` as well, and to its replicas; its certificate is for 127.0.0.1.

    It comes from the folder's ``server.crt``, which is its own authority and is made where it is not there yet.
    """
    if not (folder / "server.crt").exists():
        certify(folder, "server", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1")
    return (
        *("--tls-port", str(port), "--tls-replication", "yes", "--tls-auth-clients", "no"),
        *("--tls-cert-file", f"{folder}/server.crt", "--tls-key-file", f"{folder}/server.key"),
        *("--tls-ca-cert-file", f"{folder}/server.crt"),
    )


def certify(folder: Path, name: str, subject: str, *options: str) -> None:
    """Make a key and a certificate for it."""
    command = [
        *(program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", subject, *options),
        *("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"),
    ]
    subprocess.run(command, check=True, capture_output=True)
