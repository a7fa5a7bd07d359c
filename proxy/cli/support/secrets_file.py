"""Where the texts of new keys are written, readable only by whoever runs the command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import orjson

from proxy.telemetry.program import PROGRAM


class SecretsFile:
    """A file of mode 0600, one JSON object a line, each on the disk before the next key is made."""

    def __init__(self, path: Path) -> None:
        """Open the file, which has to be new or empty. Raises click.ClickException with what to do."""
        self._path = path
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise click.ClickException(f"{path}: cannot be written ({error.strerror}): name another file") from None
        if os.fstat(self._file).st_size:
            os.close(self._file)
            raise click.ClickException(
                f"{path}: holds something already, which may be the only copy of other keys: "
                "move it away, or name another file. Nothing was changed"
            )
        os.fchmod(self._file, 0o600)

    def add(self, secret: dict[str, Any]) -> None:
        """Write one key's text, and see that it is on the disk. Raises click.ClickException with what to do."""
        text = memoryview(orjson.dumps(secret) + b"\n")
        try:
            while text:
                text = text[os.write(self._file, text) :]
            os.fsync(self._file)
        except OSError as error:
            again = PROGRAM.command(f"keys rotate {secret['id']}")
            raise click.ClickException(
                f"{self._path}: cannot be written ({error.strerror}): the text of key {secret['id']} is lost. "
                f"Make room, and have a new one: {again}"
            ) from None

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._file)
