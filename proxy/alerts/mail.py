"""Alerts by SMTP: the standard library's client in threads of its own, for mails are few.

The event loop's threads look up providers' addresses: a mail server that hangs must not hold those.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from yarl import URL

from proxy.alerts.rules import SendingError
from proxy.domain.alerts import Alert

TIMEOUT_S = 20.0
"""Of one step of the server."""

DEADLINE_S = 60.0
"""Of one mail, with its wait for a thread."""

THREADS = 2
"""Of one server, at the most; one that hangs holds up its own mails only."""

PORTS = {"smtp": 587, "smtps": 465}


class Mail:
    """Mails of one sender to some receivers, through one server.

    ``smtp://`` goes over to TLS (STARTTLS, RFC 3207) where a password is given or the server offers it; ``smtps://``
    is TLS from the start (RFC 8314).
    """

    def __init__(self, server: str, sender: str, to: Sequence[str], *, user: str = "", password: str = "") -> None:
        """Nothing is sent yet. ``server`` is ``smtp://host:587`` or ``smtps://host:465``."""
        self._server = URL(server)
        self._sender = sender
        self._to = tuple(to)
        self._user = user
        self._password = password
        self._threads = asyncio.Semaphore(THREADS)

    async def send(self, alert: Alert, alert_id: str) -> None:
        """Send it once. Raises SendingError."""
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        mail["Subject"] = f"[Lightmeter] {subject_of(alert)}"
        mail["Date"] = formatdate()
        # The same each time, so that a mailbox shows one.
        mail["Message-ID"] = f"<{alert_id}@{self._sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        facts = "".join(f"{name}: {value}\n" for name, value in alert.facts.items() if value is not None)
        mail.set_content(f"{alert.text}\n\n{facts}")
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._threads.acquire()
                await self._in_thread(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise SendingError(f"the mail server does not take it ({type(error).__name__})") from None

    async def close(self) -> None:
        """Each mail has a connection of its own."""

    def _in_thread(self, mail: EmailMessage) -> asyncio.Future[None]:
        """Send it in a thread that the process does not wait for at its end."""
        loop = asyncio.get_running_loop()
        sent: asyncio.Future[None] = loop.create_future()

        def end(error: Exception | None) -> None:
            self._threads.release()
            if sent.done():
                return
            if error is None:
                sent.set_result(None)
            else:
                sent.set_exception(error)

        def work() -> None:
            error: Exception | None = None
            try:
                self._send(mail)
            except Exception as failed:
                error = failed
            with suppress(RuntimeError):
                # The loop may have ended meanwhile.
                loop.call_soon_threadsafe(end, error)

        threading.Thread(target=work, name="alert mail", daemon=True).start()
        return sent

    def _send(self, mail: EmailMessage) -> None:
        host, port = self._server.host or "", self._server.port or PORTS[self._server.scheme]
        given: dict[str, Any] = {"host": host, "port": port, "timeout": TIMEOUT_S}
        if self._server.scheme == "smtps":
            with smtplib.SMTP_SSL(**given, context=ssl.create_default_context()) as client:
                self._deliver(client, mail)
            return
        with smtplib.SMTP(**given) as client:
            client.ehlo()
            if self._password or client.has_extn("starttls"):
                # A password never goes in the clear: without STARTTLS this is refused.
                client.starttls(context=ssl.create_default_context())
                client.ehlo()
            self._deliver(client, mail)

    def _deliver(self, client: smtplib.SMTP, mail: EmailMessage) -> None:
        if self._password:
            client.login(self._user, self._password)
        client.send_message(mail, self._sender, self._to)


def subject_of(alert: Alert) -> str:
    """What it is about in a few words."""
    facts = alert.facts
    if "percent" in facts:
        return f"{facts['account']}: {facts['percent']} % of {facts['limit']} used"
    return f"{facts['account']} expires" if "expires_ms" in facts else f"{facts['provider']} is out of credit"
