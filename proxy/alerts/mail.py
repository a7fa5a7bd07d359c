"""Alerts by SMTP: the standard library's client in a thread, for mails are few and no request waits for them."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from yarl import URL

from proxy.alerts.rules import SendingError
from proxy.domain.alerts import Alert

TIMEOUT_S = 20.0
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
            await asyncio.to_thread(self._send, mail)
        except (OSError, smtplib.SMTPException) as error:
            raise SendingError(f"the mail server does not take it ({type(error).__name__})") from None

    async def close(self) -> None:
        """Each mail has a connection of its own."""

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
