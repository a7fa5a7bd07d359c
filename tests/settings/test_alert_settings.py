from __future__ import annotations

import tomllib

import pytest

from proxy.alerts.mail import Mail
from proxy.alerts.webhook import Webhook
from proxy.domain.alerts import KINDS
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_settings

MINIMAL = """
[[providers]]
name = "openai"
dialect = "openai"
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"

[[models]]
id = "image-1"
provider = "openai"
upstream_model = "image-1"
token_multiplier = "1"
"""
ENVIRONMENT = {"OPENAI_API_KEY": "sk-x", "SECRET": "sixteen or more characters", "SHORT": "short", "PASSWORD": "p"}
WEBHOOK = 'name = "ops"\nwebhook = "https://hooks.example.com/x"\nsecret_env = "SECRET"\n'
MAIL = 'name = "cfo"\nsmtp = "smtps://mail.example.com:465"\nmail_from = "a@b.example"\nmail_to = ["c@d.example"]\n'


def read(*alerts: str) -> Settings:
    text = MINIMAL + "".join(f"[[alerts]]\n{each}\n" for each in alerts)
    return read_settings(tomllib.loads(text), "lightmeter.toml", ENVIRONMENT)


def test_alerts_become_rules() -> None:
    more = 'kinds = ["quota"]\nat = [90, 20]\nteams = ["research"]\nexpiry_days = 3\n[alerts.soft_limits]\n'
    login = 'smtp_user = "u"\nsmtp_password_env = "PASSWORD"\n'
    settings = read(WEBHOOK, MAIL + login + more + "quota_units_per_month = 5")
    webhook, mail = [each.rule(ENVIRONMENT) for each in settings.alerts]
    assert isinstance(webhook.sender, Webhook)
    assert isinstance(mail.sender, Mail)
    assert (webhook.kinds, webhook.at, webhook.expiry_days) == (frozenset(KINDS), (50, 80, 100), 7)
    assert (mail.kinds, mail.at, mail.expiry_days) == (frozenset({"quota"}), (20, 90), 3)
    assert (webhook.teams, mail.teams) == (frozenset(), frozenset({"research"}))
    assert mail.soft_limits == {"quota_units_per_month": 5}
    assert set(settings.secret_texts(ENVIRONMENT)) >= {"sixteen or more characters", "p"}
    assert read().alerts == ()
    assert read().changed_sections(settings) == ["alerts"]


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ((WEBHOOK, WEBHOOK), "alerts[1].name: there is another one 'ops'"),
        (('name = "ops"\n',), "alerts[0]: should have either webhook or smtp"),
        ((WEBHOOK + MAIL.partition("\n")[2],), "alerts[0]: should have either webhook or smtp"),
        ((MAIL.replace('mail_to = ["c@d.example"]', ""),), "alerts[0].smtp: needs mail_from and mail_to"),
        ((MAIL + 'smtp_user = "u"\n',), "alerts[0].smtp_user: goes with smtp_password_env"),
        ((WEBHOOK.replace('secret_env = "SECRET"', ""),), "alerts[0].secret_env: is missing"),
        ((WEBHOOK.replace("SECRET", "NOT_THERE"),), "alerts[0].secret_env: the variable NOT_THERE is not set"),
        ((WEBHOOK.replace("SECRET", "SHORT"),), "alerts[0].secret_env: the text in SHORT should have 16 characters"),
        ((WEBHOOK.replace("https://hooks", "http://hooks"),), "should be an address like https://hooks.example.com"),
        ((WEBHOOK.replace("https://", "https://u:p@"),), "alerts[0].webhook"),
        ((MAIL.replace("smtps://", "https://"),), "should be an address like smtps://mail.example.com:465"),
        ((MAIL.replace("a@b.example", "a b"),), "alerts[0].mail_from"),
        ((WEBHOOK + "at = [0]",), "alerts[0].at[0]: is 0"),
        ((WEBHOOK + "at = []",), "alerts[0].at"),
        ((WEBHOOK + 'kinds = ["nothing"]',), "alerts[0].kinds[0]"),
        ((WEBHOOK + 'teams = ["No Team"]',), "alerts[0].teams[0]"),
        ((WEBHOOK + "expiry_days = 0",), "alerts[0].expiry_days"),
        ((WEBHOOK + "threshold = 5",), "alerts[0].threshold: is not a setting"),
        ((WEBHOOK.replace('"ops"', '"Ops"'),), "alerts[0].name"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(alerts: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        read(*alerts)
    assert said in str(wrong.value)
    assert "u:p@" not in str(wrong.value)
