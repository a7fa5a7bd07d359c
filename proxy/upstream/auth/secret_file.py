"""A secret in a file, which something else keeps up to date: read again when it changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time

from typing_extensions import override

from proxy.domain.errors import NoCredentials
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.upstream.auth.auth import ChangingCredentials, Credentials

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at a file: a request does not wait for a disk."""

SETTLED_S = 2.0
"""A file that was written so recently may be written once more without a later time: it is read again."""

SECRET_BYTES_LIMIT = 65_536


class UnusableSecret(Exception):
    """A file holds no secret that could be sent; the message says why, and not what it holds."""


def read_secret(path: Path) -> str:
    """The text in the file, without the blanks around it. Raises UnusableSecret."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_BYTES_LIMIT + 1)
    except OSError as error:
        raise UnusableSecret(f"cannot be read: {error.strerror or error}") from None
    if len(content) > SECRET_BYTES_LIMIT:
        raise UnusableSecret(f"has more than {SECRET_BYTES_LIMIT:,} bytes: it should hold a key and nothing else")
    text = content.decode("ascii", "replace").strip()
    if not text:
        raise UnusableSecret("is empty: it should hold a key")
    if not (text.isascii() and text.isprintable()):
        raise UnusableSecret("holds what cannot be in a header: it should hold a key in one line, and nothing else")
    return text


class SecretFile(ChangingCredentials):
    """Credentials from a file. One that cannot be read any more leaves what was in it last in force."""

    def __init__(self, provider: str, path: Path, credentials_of: Callable[[str], Credentials]) -> None:
        """Read nothing yet."""
        self._provider = provider
        self._path = path
        self._credentials_of = credentials_of
        self._credentials: Credentials | None = None
        self._seen: tuple[int, int, int] | None = None
        self._next_look_s = 0.0
        self._told = ""

    @override
    async def current(self) -> Credentials:
        now_s = monotonic()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_S
            self._look()
        if self._credentials is None:
            raise NoCredentials
        return self._credentials

    @override
    async def close(self) -> None:
        """Nothing is open between two looks."""

    def _look(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - one call a second, on the request's way
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return
            secret = read_secret(self._path)
        except (OSError, UnusableSecret) as error:
            self._tell(error.strerror or str(error) if isinstance(error, OSError) else str(error))
            return
        self._seen = seen if time() - status.st_mtime > SETTLED_S else None
        credentials = self._credentials_of(secret)
        if self._told or self._credentials not in (None, credentials):
            logger.info("provider %s: its key was read again from %s", self._provider, self._path)
        self._told = ""
        KNOWN_SECRETS.add_changing(f"{self._provider} {self._path}", secret)
        self._credentials = credentials

    def _tell(self, why: str) -> None:
        """Tell the operator, once for each reason."""
        self._seen = None
        if why == self._told:
            return
        self._told = why
        after = "the key that it held before stays in force" if self._credentials else "no request can be sent there"
        logger.error("provider %s: %s %s; %s", self._provider, self._path, why, after)
