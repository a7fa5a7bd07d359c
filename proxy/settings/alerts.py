"""The sections ``[[alerts]]``: who is told of what, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from yarl import URL

from proxy.alerts.mail import Mail
from proxy.alerts.rules import Rule
from proxy.alerts.webhook import Webhook, key_of
from proxy.domain.alerts import KINDS
from proxy.domain.api_key import TEAM_ID_PATTERN
from proxy.settings.values import VariableName, Whole, one_of

SECRET_LENGTH_LEAST = 16
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _webhook(text: str) -> str:
    url = _url(text)
    if not url.host or "#" in text or (url.scheme != "https" and not (url.scheme == "http" and url.host in LOOPBACK)):
        raise ValueError("should be an address like https://hooks.example.com/lightmeter; http:// on this machine only")
    if url.user or url.password:
        raise ValueError("should hold no password: receivers check the signature, see secret_env")
    return text


def _mail_server(text: str) -> str:
    url = _url(text)
    if url.scheme not in ("smtp", "smtps") or not url.host or url.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError("should be an address like smtps://mail.example.com:465 or smtp://mail.example.com:587")
    if url.user or url.password:
        raise ValueError("should hold no password: give smtp_user and smtp_password_env")
    return text


def _url(text: str) -> URL:
    try:
        return URL(text)
    except ValueError:
        return URL()


MailAddress = Annotated[str, Field(max_length=254, pattern=r"^[^@\s<>,;\"]+@[^@\s<>,;\"]+$")]
Units = Annotated[Whole, Field(ge=1, lt=2**53)]


class SoftLimits(BaseModel):
    """Quota units of each team that somebody is told of, and that refuse nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quota_units: Units | None = None
    quota_units_per_day: Units | None = None
    quota_units_per_month: Units | None = None


class AlertSettings(BaseModel):
    """One ``[[alerts]]``: a webhook, or mails."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    webhook: Annotated[str, AfterValidator(_webhook)] | None = None
    secret_env: VariableName | None = None
    smtp: Annotated[str, AfterValidator(_mail_server)] | None = None
    smtp_user: str | None = None
    smtp_password_env: VariableName | None = None
    mail_from: MailAddress | None = None
    mail_to: Annotated[tuple[MailAddress, ...], Field(max_length=20)] = ()
    kinds: Annotated[tuple[Annotated[str, one_of(*KINDS)], ...], Field(min_length=1)] = KINDS
    at: Annotated[tuple[Annotated[Whole, Field(ge=1, le=100)], ...], Field(min_length=1, max_length=20)] = (50, 80, 100)
    teams: Annotated[tuple[Annotated[str, Field(pattern=f"^{TEAM_ID_PATTERN}$")], ...], Field(max_length=1_000)] = ()
    expiry_days: Annotated[Whole, Field(ge=1, le=365)] = 7
    soft_limits: SoftLimits = SoftLimits()

    def secret(self, environment: Mapping[str, str]) -> str:
        """What the webhook is signed with, or the mail server's password; empty where there is none."""
        variable = self.secret_env if self.smtp is None else self.smtp_password_env
        return environment.get(variable, "").strip() if variable else ""

    def rule(self, environment: Mapping[str, str]) -> Rule:
        """What the gateway goes by."""
        secret, sender = self.secret(environment), self.mail_from or ""
        return Rule(
            name=self.name,
            sender=Webhook(self.webhook, secret)
            if self.webhook is not None
            else Mail(self.smtp or "", sender, self.mail_to, user=self.smtp_user or "", password=secret),
            kinds=frozenset(self.kinds),
            at=tuple(sorted(set(self.at))),
            teams=frozenset(self.teams),
            expiry_days=self.expiry_days,
            soft_limits=self.soft_limits.model_dump(exclude_none=True),
        )


def check_alerts(alerts: Sequence[AlertSettings], environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with alerts that are good by themselves."""
    names = [alert.name for alert in alerts]
    for index, alert in enumerate(alerts):
        place = f"alerts[{index}]"
        if alert.name in names[:index]:
            yield f"{place}.name: there is another one {alert.name!r}: what was sent is remembered by the name"
        if (alert.webhook is None) == (alert.smtp is None):
            yield f"{place}: should have either webhook or smtp"
            continue
        if alert.smtp is not None and (alert.mail_from is None or not alert.mail_to):
            yield f"{place}.smtp: needs mail_from and mail_to"
        if (alert.smtp_user is None) != (alert.smtp_password_env is None):
            yield f"{place}.smtp_user: goes with smtp_password_env, and the other way round"
        yield from _check_secret(place, alert, environment)


def _check_secret(place: str, alert: AlertSettings, environment: Mapping[str, str]) -> Iterator[str]:
    setting = "secret_env" if alert.smtp is None else "smtp_password_env"
    variable = getattr(alert, setting)
    if variable is None:
        if alert.webhook is not None:
            yield f"{place}.secret_env: is missing: name the variable with the secret that the webhook is signed with"
        return
    secret = alert.secret(environment)
    if not secret:
        yield f"{place}.{setting}: the variable {variable} is not set"
    elif alert.webhook is not None and len(secret) < SECRET_LENGTH_LEAST:
        yield f"{place}.secret_env: the text in {variable} should have {SECRET_LENGTH_LEAST} characters or more"
    elif alert.webhook is not None:
        try:
            key_of(secret)
        except ValueError as error:
            yield f"{place}.secret_env: the text in {variable} {error}"
