"""The certificate that a listener shows, and its next one: read again when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
HANDSHAKE_TIMEOUT_S = 10.0
"""Until then, what has connected is no client yet, and is counted nowhere."""


def read_certificate(cert_file: str, key_file: str | None) -> ssl.SSLContext:
    """A context of TLS 1.2 or newer that shows it; its key may be in ``cert_file``, too.

    Raises OSError, of which ``ssl.SSLError`` is one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, cert_file, key_file)
    return context


def _load(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    # Asked for, a password would be asked for at a terminal.
    context.load_cert_chain(cert_file, key_file, password="")


class Certificate:
    """What new connections are shown; those that are open keep what they have seen."""

    def __init__(self, cert_file: str, key_file: str | None) -> None:
        """Read it. Raises OSError."""
        self._cert_file, self._key_file = cert_file, key_file
        self._seen = self._look()
        self.context = read_certificate(cert_file, key_file)
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at the files every ``LOOK_EVERY_S`` from now on; needs a running event loop."""
        self._watch = asyncio.create_task(self._watch_files())

    async def stop(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))

    def take_changes(self) -> None:
        """Read the files again where they are others now; what cannot be used changes nothing, and is logged."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            # On a trial first: a context keeps the certificate, and not the key, of two that do not belong together.
            read_certificate(self._cert_file, self._key_file)
            _load(self.context, self._cert_file, self._key_file)
        except OSError as error:
            logger.error("the certificate in %s was not taken, and the one before stays: %s", self._cert_file, error)
        else:
            logger.info("the certificate in %s was read again", self._cert_file)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.take_changes()

    def _look(self) -> tuple[object, ...]:
        """What changes with the files; a secret of Kubernetes is replaced by a link that leads elsewhere."""
        return tuple(_state(name) for name in (self._cert_file, self._key_file) if name is not None)


def _state(name: str) -> tuple[int, ...]:
    try:
        found = Path(name).stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
