from __future__ import annotations

import asyncio
import base64
import hmac

import pytest

from proxy.alerts.mail import THREADS, Mail
from proxy.alerts.rules import SendingError
from proxy.alerts.webhook import Webhook, key_of, signature
from proxy.domain.alerts import credit_alert
from tests.alerts.receivers import running_mail_server, running_receiver
from tests.support.polling import eventually

ALERT = credit_alert("openai", "2026-11-26")
SECRET = "whsec_" + base64.b64encode(b"a key of the tests, 32 bytes....").decode()


def test_a_signature_is_that_of_the_specification() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_secret_is_base64_behind_its_prefix_or_any_text() -> None:
    assert key_of("a text of any kind") == b"a text of any kind"
    with pytest.raises(ValueError, match="base64"):
        key_of("whsec_not base64!")


async def test_a_webhook_is_signed_and_has_the_same_id_each_time() -> None:
    async with running_receiver() as receiver:
        webhook = Webhook(receiver.url, SECRET)
        await webhook.send(ALERT, "alert_1")
        await webhook.send(ALERT, "alert_1")
        await webhook.close()
    first, second = receiver.calls
    assert first.body == second.body
    assert first.json["type"] == "lightmeter.provider_credit"
    assert (first.json["id"], first.headers["webhook-id"]) == ("alert_1", "alert_1")
    assert first.json["data"]["provider"] == "openai"
    signed = f"alert_1.{first.headers['webhook-timestamp']}.".encode() + first.body
    expected = base64.b64encode(hmac.digest(b"a key of the tests, 32 bytes....", signed, "sha256")).decode()
    assert first.headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("status", [302, 400, 410, 500])
async def test_what_a_receiver_does_not_take_is_an_error_and_no_redirect_is_followed(status: int) -> None:
    async with running_receiver() as receiver:
        receiver.statuses = [status]
        webhook = Webhook(receiver.url, SECRET)
        with pytest.raises(SendingError, match=f"answers {status}"):
            await webhook.send(ALERT, "alert_1")
        await webhook.close()
    assert len(receiver.calls) == 1


async def test_nobody_there_is_an_error() -> None:
    webhook = Webhook("http://127.0.0.1:9/hook", SECRET)
    with pytest.raises(SendingError, match="gives no answer"):
        await webhook.send(ALERT, "alert_1")
    await webhook.close()
    with pytest.raises(SendingError, match="does not take it"):
        await Mail("smtp://127.0.0.1:9", "a@b.test", ["c@d.test"]).send(ALERT, "alert_1")


async def test_a_mail_says_what_is_the_matter_to_all_receivers() -> None:
    async with running_mail_server() as server:
        mail = Mail(f"smtp://127.0.0.1:{server.port}", "lightmeter@example.test", ["ops@a.test", "cfo@b.test"])
        await mail.send(ALERT, "alert_1")
        await mail.close()
    (text,) = server.mails
    assert server.receivers == ["ops@a.test", "cfo@b.test"]
    for line in (
        "Subject: [Lightmeter] openai is out of credit",
        "Message-ID: <alert_1@example.test>",
        "provider: openai",
        "refuses this gateway's account",
    ):
        assert line in text.replace("\r\n", "\n").replace("=\n", ""), line


async def test_a_password_is_never_sent_in_the_clear() -> None:
    async with running_mail_server() as server:
        mail = Mail(f"smtp://127.0.0.1:{server.port}", "a@b.test", ["c@d.test"], user="a", password="hidden")
        with pytest.raises(SendingError, match="SMTPNotSupportedError"):
            await mail.send(ALERT, "alert_1")
    assert server.mails == []


async def test_a_mail_server_that_refuses_is_an_error() -> None:
    async with running_mail_server() as server:
        server.refuses = "RCPT"
        with pytest.raises(SendingError, match="SMTPRecipientsRefused"):
            await Mail(f"smtp://127.0.0.1:{server.port}", "a@b.test", ["c@d.test"]).send(ALERT, "alert_1")


async def test_a_mail_server_that_hangs_takes_no_thread_that_looks_up_providers() -> None:
    async with running_mail_server() as server:
        server.hangs = True
        mail = Mail(f"smtp://127.0.0.1:{server.port}", "a@b.test", ["c@d.test"])
        sending = [asyncio.create_task(mail.send(ALERT, f"alert_{number}")) for number in range(40)]

        async def hang() -> bool:
            return len(server.waiting) >= THREADS

        await eventually(hang)
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert len(server.waiting) == THREADS
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def test_a_mail_server_that_takes_its_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.alerts.mail.DEADLINE_S", 0.2)
    async with running_mail_server() as server:
        server.hangs = True
        with pytest.raises(SendingError, match="TimeoutError"):
            await Mail(f"smtp://127.0.0.1:{server.port}", "a@b.test", ["c@d.test"]).send(ALERT, "alert_1")
