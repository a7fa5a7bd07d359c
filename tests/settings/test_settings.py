from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.billing.pricing import price
from proxy.domain.catalog import BASE_UNITS, BASE_UNITS_4K, IMAGES_LIMIT, UNITS_LIMIT, Ability, Deployment
from proxy.domain.requests.image import KNOWN_PARAMETERS, ImageRequest
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, load_settings, read_settings
from proxy.telemetry.program import PROGRAM
from proxy.upstream.provider import Provider
from proxy.web.admin.roles import AdminToken, Role
from tests.support.examples import examples

GOOD = """\
[server]
listen = "0.0.0.0:9080"
socket_mode = "0600"
socket_user = "gateway"
socket_group = "www-data"
health_path = "/healthz"
default_model = "acme/image-1"
data_folder = "./state"
max_body = 2048
max_body_memory = 8192
body_timeout = 1.5
max_upload = 4096
max_upload_file = 3072
max_upload_disk = 8192
upload_timeout = 60
min_upload_rate = 512
upload_folder = "./uploads"
write_timeout = 20
stream_keepalive_seconds = 5
json_keepalive_seconds = 20
usage = "tokens"
keepalive_timeout = 30
max_header_line = 16_384
max_connections = 700
workers = 3
cors_origins = ["https://studio.example", "http://localhost:5173"]
key_page = true
user_header = "X-OpenWebUI-User-Email"
trusted_proxies = ["127.0.0.1", "10.0.0.0/8", "::1"]
drain_seconds = 0

[admin]
listen = "[::1]:9081"
socket_mode = "0666"
socket_user = "operator"
socket_group = "operators"
public_url = "https://meter.example"
console = false
session_hours = 8

[[admin.tokens]]
name = "ci"
role = "viewer"
token_env = "CI_TOKEN"

[store]
url = "embedded:./quota"
server = "/usr/bin/valkey-server"
appendfsync = "always"
timeout = 0.5

[accounting]
lease_seconds = 5
settled_ids_seconds = 3600
burst_seconds = 10
units_per_usd = 250
tier = "delivered"
users = "hashed"
overage_images = 2
ledger_days = 30
ledger_shippers = ["finance", "archive"]

[logs]
level = "warning"
requests = false

[metrics]
label_teams = 20
team_refresh_seconds = 2.5

[traces]
enabled = true
endpoint = "https://collector.test/v1/traces"
sample_ratio = 0.25
service_name = "images"

[[providers]]
name = "acme"
dialect = "openai"
base_url = "https://api.acme.example/v1"
api_key_env = "ACME_API_KEY"
connect_timeout = 2
first_byte_timeout = 120
idle_timeout = 30
total_timeout = 600
max_connections = 50
pool_timeout = 1.5
max_response = 1048576

[[models]]
id = "acme/image-1"
provider = "acme"
upstream_model = "image-1"
token_multiplier = "1.5"
default_n = 2
max_n = 4
four_k_long_edge = 0
sizes = [" 1k", "1024X1024"]
linked_images = false
unknown_parameters = "drop"
parameters = ["n", "size", "image_config"]
created = 1744000000
text = "free"
max_text_tokens = 900

[[models]]
id = "acme/image-2"
provider = "acme"
upstream_model = "image-2"
token_multiplier = "0.25"
"""

LEAST = """\
[[providers]]
name = "acme"
base_url = "https://api.acme.example/v1"

[[models]]
id = "acme/image-1"
provider = "acme"
upstream_model = "image-1"
token_multiplier = 1
"""

ENVIRONMENT = {"ACME_API_KEY": "made-up-secret", "CI_TOKEN": "made-up-token-of-the-ci"}


class File:
    """A configuration file that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gateway.toml"

    def load(self, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> Settings:
        self.path.write_text(text, encoding="utf-8")
        return load_settings(self.path, environment)

    def mistakes(self, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> list[str]:
        """What is told of a bad file, without the path that every line has to begin with."""
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, environment)
        lines = str(caught.value).splitlines()
        assert all(line.startswith((f"{self.path}: ", "the environment: ")) for line in lines)
        return [line.removeprefix(f"{self.path}: ") for line in lines]


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def changed(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) >= 1
    return text.replace(old, new, 1)


# --- A good file ------------------------------------------------------------------------------------------------------


def test_every_setting_is_taken_from_the_file(file: File) -> None:
    loaded = file.load(GOOD)
    assert loaded.server.model_dump() == {
        "listen": "0.0.0.0:9080",
        "socket_mode": "0600",
        "socket_user": "gateway",
        "socket_group": "www-data",
        "health_path": "/healthz",
        "tls_cert_file": None,
        "tls_key_file": None,
        "workers": 3,
        "reuse_port": False,
        "default_model": "acme/image-1",
        "data_folder": "./state",
        "max_body": 2_048,
        "max_body_memory": 8_192,
        "body_timeout": 1.5,
        "max_upload": 4_096,
        "max_upload_file": 3_072,
        "max_upload_disk": 8_192,
        "upload_timeout": 60,
        "min_upload_rate": 512,
        "upload_folder": "./uploads",
        "write_timeout": 20,
        "stream_keepalive_seconds": 5,
        "json_keepalive_seconds": 20,
        "usage": "tokens",
        "keepalive_timeout": 30,
        "max_header_line": 16_384,
        "max_connections": 700,
        "cors_origins": ("https://studio.example", "http://localhost:5173"),
        "key_page": True,
        "user_header": "x-openwebui-user-email",
        "trusted_proxies": ("127.0.0.1/32", "10.0.0.0/8", "::1/128"),
        "drain_seconds": 0,
    }
    assert loaded.admin.model_dump() == {
        "listen": "[::1]:9081",
        "socket_mode": "0666",
        "socket_user": "operator",
        "socket_group": "operators",
        "tls_cert_file": None,
        "tls_key_file": None,
        "public_url": "https://meter.example",
        "console": False,
        "session_hours": 8,
        "tokens": ({"name": "ci", "role": "viewer", "teams": (), "token_env": "CI_TOKEN"},),
        "oidc": None,
    }
    assert loaded.store.model_dump() == {
        "url": "embedded:./quota",
        "server": "/usr/bin/valkey-server",
        "appendfsync": "always",
        "timeout": 0.5,
        "min_replicas": 0,
    }
    assert loaded.accounting.model_dump() == {
        "lease_seconds": 5,
        "expired": "void",
        "tier": "delivered",
        "users": "hashed",
        "overage_images": 2,
        "ledger_days": 30,
        "ledger_shippers": ("finance", "archive"),
        "client_gone": "finish",
        "idempotency_answer_bytes": 65_536,
        "settled_ids_seconds": 3_600,
        "burst_seconds": 10,
        "units_per_usd": Decimal(250),
    }
    assert loaded.logs.model_dump() == {"level": "warning", "requests": False}
    assert loaded.metrics.model_dump() == {"label_teams": 20, "team_refresh_seconds": 2.5}
    assert loaded.traces.model_dump() == {
        "enabled": True,
        "endpoint": "https://collector.test/v1/traces",
        "sample_ratio": 0.25,
        "service_name": "images",
    }


def test_models_are_offered_with_their_prices_worked_out(file: File) -> None:
    catalog = file.load(GOOD).catalog()
    assert catalog.default_model == "acme/image-1"
    assert [model.id for model in catalog.all()] == ["acme/image-1", "acme/image-2"]
    assert asdict(catalog.get("acme/image-1")) == {
        "id": "acme/image-1",
        "provider": "acme",
        "upstream_model": "image-1",
        "token_multiplier": Decimal("1.5"),
        "parameters": {"n", "size", "image_config"},
        "default_n": 2,
        "max_n": 4,
        "images_at_once": None,
        "endpoint": "images",
        "four_k_long_edge": 0,
        "sizes": ("1K", "1024x1024"),
        "unknown_parameters": "drop",
        "response_format": "url",
        "created": 1_744_000_000,
        "text": "free",
        "max_text_tokens": 900,
        "chats": True,
        "chat_checks": (),
        "chat_fields": {},
        "extras": {},
        "wording": None,
        "abilities": set(Ability) - {Ability.LINKED_IMAGES},
        "unit_price": 7_500,
        "unit_price_4k": 18_750,
        "prices": None,
        "deployments": (),
        "fallback": (),
    }
    assert (catalog.get("acme/image-2").unit_price, catalog.get("acme/image-2").unit_price_4k) == (1_250, 3_125)


def test_providers_get_their_keys_from_the_environment(file: File) -> None:
    (provider,) = file.load(GOOD).provider_list(ENVIRONMENT)
    assert provider.auth.key == "made-up-secret"
    assert (provider.name, provider.dialect, provider.base_url) == ("acme", "openai", "https://api.acme.example/v1")
    assert (provider.connect_timeout_s, provider.first_byte_timeout_s, provider.pool_timeout_s) == (2, 120, 1.5)
    assert (provider.idle_timeout_s, provider.total_timeout_s) == (30, 600)
    assert (provider.max_connections, provider.max_response_bytes) == (50, 2**20)


def test_a_provider_that_is_polled_has_its_hosts_and_pauses(file: File) -> None:
    lines = (
        'poll_interval = 2\nmax_poll_interval = 9\npoll_hosts = ["*.Acme.example"]\nresult_hosts = ["http://[::1]:9"]'
    )
    (provider,) = file.load(changed("idle_timeout = 30", f"idle_timeout = 30\n{lines}")).provider_list(ENVIRONMENT)
    assert (provider.poll_interval_s, provider.max_poll_interval_s) == (2, 9)
    assert (provider.poll_hosts, provider.result_hosts) == (("*.acme.example",), ("http://[::1]:9",))
    (provider,) = file.load(GOOD).provider_list(ENVIRONMENT)
    assert (provider.poll_hosts, provider.result_hosts) == (None, None)


def test_a_model_says_how_images_come(file: File) -> None:
    loaded = file.load(changed("created = 1744000000", 'response_format = "b64_json"'))
    assert [model.response_format for model in loaded.catalog().all()] == ["b64_json", "url"]


def test_a_provider_without_api_key_env_has_no_key(file: File) -> None:
    (provider,) = file.load(LEAST).provider_list({"ACME_API_KEY": "made-up-secret", "": "x"})
    assert provider.auth.key == ""


def test_a_provider_may_be_silent_for_as_long_in_its_answer_as_before_it(file: File) -> None:
    (provider,) = file.load(LEAST).provider_list({})
    assert provider.idle_timeout_s == provider.first_byte_timeout_s == 300
    assert provider == Provider("acme", "openai", provider.base_url)


def test_a_file_needs_only_a_provider_and_a_model(file: File) -> None:
    loaded = file.load(LEAST, {})
    assert loaded.server.listen == "0.0.0.0:8080"
    assert loaded.server.default_model is None
    assert loaded.admin.listen == "127.0.0.1:8081"
    assert (loaded.store.url, loaded.store.appendfsync) == ("embedded:./data", "everysec")
    assert loaded.accounting.lease_seconds == 60
    assert (loaded.logs.level, loaded.logs.requests) == ("info", True)
    assert (loaded.traces.enabled, loaded.traces.sample_ratio) == (False, 1)
    assert loaded.traces.endpoint == "http://127.0.0.1:4318/v1/traces"
    assert loaded.providers[0].dialect == "openai"
    model = loaded.catalog().get("acme/image-1")
    assert (model.default_n, model.max_n, model.four_k_long_edge) == (1, 10, 3_840)
    assert model.parameters == {"n", "size"}


@pytest.mark.parametrize(
    ("url", "embedded", "data"),
    [
        ("embedded:./quota", "quota", "quota"),
        ("embedded:/var/lib/lightmeter", "/var/lib/lightmeter", "/var/lib/lightmeter"),
        ("redis://localhost:6379/0", None, "state"),
        ("rediss://redis.example", None, "state"),
        ("unix:///run/redis.sock", None, "state"),
        ("redis+sentinel://a,b:1,c/quota", None, "state"),
    ],
)
def test_data_is_kept_beside_the_embedded_store_or_in_its_own_folder(
    file: File, url: str, embedded: str | None, data: str
) -> None:
    loaded = file.load(changed("embedded:./quota", url))
    assert loaded.embedded_folder == (None if embedded is None else Path(embedded))
    assert loaded.data_folder == Path(data)


@pytest.mark.parametrize("name", sorted(KNOWN_PARAMETERS))
def test_every_field_of_a_request_may_be_listed_as_a_parameter(file: File, name: str) -> None:
    loaded = file.load(changed('["n", "size", "image_config"]', f'["{name}"]'))
    assert loaded.catalog().get("acme/image-1").parameters == {name}


# --- The price --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "multiplier", "unit_price"),
    [
        ('"1.5"', "1.5", 7_500),
        ("1.5", "1.5", 7_500),
        ("2", "2", 10_000),
        ('"2"', "2", 10_000),
        ("0", "0", 0),
        ("0.3333", "0.3333", 1_667),
        ('"0.3333"', "0.3333", 1_667),
        ("1.1", "1.1", 5_500),
        ("0.1", "0.1", 500),
        ("1.0001", "1.0001", 5_001),
        ("1e-3", "0.001", 5),
        ("123456.7", "123456.7", 617_283_500),
        ("1000000", "1000000", 5_000_000_000),
    ],
)
def test_a_multiplier_is_exactly_what_the_operator_wrote(
    file: File, written: str, multiplier: str, unit_price: int
) -> None:
    loaded = file.load(changed("token_multiplier = 1", f"token_multiplier = {written}", LEAST))
    model = loaded.catalog().get("acme/image-1")
    assert (model.token_multiplier, model.unit_price) == (Decimal(multiplier), unit_price)


def content_with(**model: Any) -> dict[str, Any]:
    settings_of_model = {"id": "m", "provider": "acme", "upstream_model": "m", "token_multiplier": 1, **model}
    return {
        "providers": [{"name": "acme", "base_url": "https://api.acme.example/v1"}],
        "models": [settings_of_model],
    }


multipliers = st.builds(lambda digits, places: f"{digits}e-{places}", st.integers(0, 10**40), st.integers(0, 80))


@given(multipliers)
@example("1." + "0" * 70 + "1")
@example("0." + "9" * 90)
@example("1e-100")
@example("1e-1000100")
@examples(200)
def test_a_multiplier_is_refused_or_its_prices_are_exact(multiplier: str) -> None:
    try:
        model = read_settings(content_with(token_multiplier=multiplier), "test", {}).catalog().get("m")
    except ConfigurationError as error:
        refused = str(error)
    else:
        exact = Fraction(multiplier)
        assert model.unit_price == math.ceil(exact * BASE_UNITS)
        assert model.unit_price_4k == math.ceil(exact * BASE_UNITS_4K)
        return
    assert refused.startswith("test: models[0].token_multiplier: ")


@given(st.decimals(0, 10**7, places=3), st.integers(1, 2_000))
@example(Decimal(1_000_000), 1_000)
@examples(200)
def test_what_the_settings_accept_can_be_counted_exactly(multiplier: Decimal, max_n: int) -> None:
    content = content_with(token_multiplier=str(multiplier), max_n=max_n)
    accepted = multiplier <= 1_000_000 and max_n <= 1_000
    try:
        model = read_settings(content, "test", {}).catalog().get("m")
    except ConfigurationError:
        assert not accepted
        return
    assert accepted
    dearest = ImageRequest(model=None, prompt="x", n=max_n, size="4K")
    assert price(dearest, model).unit_price * IMAGES_LIMIT < UNITS_LIMIT


# --- Mistakes ---------------------------------------------------------------------------------------------------------

HOST_AND_PORT = "should be HOST:PORT, like 127.0.0.1:8080"
AN_ADDRESS = "should be an address like https://api.openai.com/v1"
A_STORE = "should be embedded:PATH, or begin with redis://, rediss://, unix://, redis+sentinel://"
AN_ORIGIN = "should be an origin as browsers send it"
NO_SETTING = f"is not a setting; '{PROGRAM.command('config example')}' prints all that there are"

MISTAKES: list[tuple[str, str, str, list[str]]] = [
    # What stood there, what stands there now, the key, and what the message has to say
    ('"0.0.0.0:9080"', '"9080"', "server.listen", ["is '9080'", HOST_AND_PORT]),
    ('"0.0.0.0:9080"', '":9080"', "server.listen", ["is ':9080'", HOST_AND_PORT]),
    ('"0.0.0.0:9080"', '"localhost:http"', "server.listen", ["is 'localhost:http'", HOST_AND_PORT]),
    ('"0.0.0.0:9080"', '"localhost:65536"', "server.listen", ["is 'localhost:65536'", HOST_AND_PORT]),
    ('"0.0.0.0:9080"', '"localhost:"', "server.listen", ["is 'localhost:'", HOST_AND_PORT]),
    ('"0.0.0.0:9080"', '"localhost:\u00b2"', "server.listen", ["is 'localhost:\u00b2'", HOST_AND_PORT]),
    ('"0.0.0.0:9080"', "9080", "server.listen", ["is 9080", "string"]),
    ('"[::1]:9081"', '"::1"', "admin.listen", ["is '::1'", HOST_AND_PORT]),
    ('"[::1]:9081"', '"0.0.0.0:9080"', "admin.listen", ["0.0.0.0:9080 is taken by server.listen, 0.0.0.0:9080"]),
    ('"[::1]:9081"', '"127.0.0.1:9080"', "admin.listen", ["127.0.0.1:9080 is taken by server.listen, 0.0.0.0:9080"]),
    ('"0.0.0.0:9080"', '"unix:public.sock"', "server.listen", ["is 'unix:public.sock'", "a whole path"]),
    *(
        ('"0600"', mode, "server.socket_mode", [words])
        for mode, words in (
            *(('"rw-rw----"', "in quotes"), ('"0888"', "in quotes"), ('"60"', "in quotes")),
            *(("0o660", "string"), ("660", "string")),
        )
    ),
    *(
        ('"/healthz"', f'"{path}"', "server.health_path", [f"is '{path}'", words])
        for path, words in (
            *(("healthz", "a path like"), ("/a b", "a path like"), ("/{x}", "a path like"), ("", "a path like")),
            *(("/v1/models", "outside of /v1"), ("/v1", "outside of /v1")),
        )
    ),
    ("max_body = 2048", "max_body = 1023", "server.max_body", ["is 1023", "greater than or equal to 1024"]),
    ("max_body = 2048", 'max_body = "2 MB"', "server.max_body", ["is '2 MB'", "integer"]),
    ("max_body = 2048", "max_body = 8193", "server.max_body_memory", ["less than server.max_body"]),
    ("max_body = 2048", "max_body = 2048.5", "server.max_body", ["is 2048.5", "integer"]),
    ("body_timeout = 1.5", "body_timeout = 0", "server.body_timeout", ["is 0", "greater than 0"]),
    ("body_timeout = 1.5", "body_timeout = -1", "server.body_timeout", ["is -1", "greater than 0"]),
    ("body_timeout = 1.5", "body_timeout = inf", "server.body_timeout", ["is inf", "86400"]),
    ("body_timeout = 1.5", "body_timeout = nan", "server.body_timeout", ["is nan", "86400"]),
    ("max_connections = 700", "max_connections = 0", "server.max_connections", ["is 0", "greater than or equal to 1"]),
    ("max_connections = 700", "max_connections = true", "server.max_connections", ["should be an integer"]),
    *(
        ("workers = 3", f"workers = {given}", "server.workers", ['should be a whole number from 1 to 60, or "auto"'])
        for given in ("0", "61", "true", '"all"', "2.5", "-1")
    ),
    ("drain_seconds = 0", "drain_seconds = -1", "server.drain_seconds", ["is -1", "greater than or equal to 0"]),
    *(
        ('"10.0.0.0/8"', f'"{network}"', "server.trusted_proxies[1]", [f"is '{network}'", "a network, like 10.0.0.0/8"])
        for network in ("10.0.0.1/8", "proxy.example", "*", "", "10.0.0.0/33")
    ),
    ('"https://studio.example"', '"*"', "server.cors_origins", ["should be ['*'] alone"]),
    *(
        ('"https://studio.example"', f'"{origin}"', "server.cors_origins[0]", [f"is '{origin}'", AN_ORIGIN])
        for origin in (
            "https://studio.example/",
            "https://studio.example:443",
            "http://studio.example:80",
            "studio.example",
            "https://Studio.example",
            "https://*.example",
            "null",
            "",
            "https://",
            "https://a.example, https://b.example",
        )
    ),
    ('"https://studio.example"', '"https://me:secret@studio.example"', "server.cors_origins[0]", [AN_ORIGIN]),
    ('"https://studio.example"', "5", "server.cors_origins[0]", ["is 5", "string"]),
    ('"X-OpenWebUI-User-Email"', '"two words"', "server.user_header", ["is 'two words'"]),
    ('users = "hashed"', 'users = "some"', "accounting.users", ["should be one of plain, hashed, none"]),
    ("max_body = 2048", "max_bodies = 2048", "server.max_bodies", [NO_SETTING]),
    ("[logs]", "[log]", "log", [NO_SETTING]),
    ('"embedded:./quota"', '"./quota"', "store.url", [A_STORE]),
    ('"embedded:./quota"', '"embedded:"', "store.url", [A_STORE]),
    ('"embedded:./quota"', '"http://redis.example"', "store.url", [A_STORE]),
    ('"always"', '"always"\nmin_replicas = 11', "store.min_replicas", ["is 11", "less than or equal to 10"]),
    ('"always"', '"always"\nmin_replicas = 1', "store.min_replicas", ["an embedded store has no replicas"]),
    ("drain_seconds = 0", "reuse_port = true", "server.reuse_port", ["processes cannot share an embedded store"]),
    ('"always"', '"no"', "store.appendfsync", ["is 'no'", "should be one of always, everysec"]),
    ("lease_seconds = 5", "lease_seconds = 0", "accounting.lease_seconds", ["is 0", "greater than or equal to 1"]),
    ("lease_seconds = 5", 'expired = "forget"', "accounting.expired", ["is 'forget'", "one of void, charge"]),
    ("lease_seconds = 5", 'client_gone = "stop"', "accounting.client_gone", ["is 'stop'", "one of finish, cancel"]),
    ("lease_seconds = 5", "lease_seconds = 5.5", "accounting.lease_seconds", ["is 5.5", "integer"]),
    ('"warning"', '"loud"', "logs.level", ["is 'loud'", "'debug', 'info', 'warning' or 'error'"]),
    ("requests = false", 'requests = "often"', "logs.requests", ["is 'often'", "boolean"]),
    ("label_teams = 20", "label_teams = 1001", "metrics.label_teams", ["is 1001", "less than or equal to 1000"]),
    ("label_teams = 20", "label_teams = -1", "metrics.label_teams", ["is -1", "greater than or equal to 0"]),
    ("label_teams = 20", "label_teams = true", "metrics.label_teams", ["is True", "integer"]),
    ("_seconds = 2.5", "_seconds = 0", "metrics.team_refresh_seconds", ["is 0", "greater than 0"]),
    ("enabled = true", 'enabled = "perhaps"', "traces.enabled", ["is 'perhaps'", "boolean"]),
    ("sample_ratio = 0.25", "sample_ratio = 1.1", "traces.sample_ratio", ["is 1.1", "less than or equal to 1"]),
    ("sample_ratio = 0.25", "sample_ratio = nan", "traces.sample_ratio", ["is nan", "than or equal to"]),
    ("sample_ratio = 0.25", "sample_ratio = true", "traces.sample_ratio", ["is True", "an integer or a number"]),
    ("https://collector", "grpc://collector", "traces.endpoint", ["is 'grpc://", "http://127.0.0.1:4318/v1/traces"]),
    ("https://collector", "https://me:secret@collector", "traces.endpoint", ["no password", "OTLP_HEADERS"]),
    ('service_name = "images"', 'service_name = ""', "traces.service_name", ["is ''", "at least 1 character"]),
    ('name = "acme"\n', 'name = ""\n', "providers[0].name", ["is ''", "at least 1 character"]),
    ('name = "acme"\n', "", "providers[0].name", ["is missing"]),
    ('dialect = "openai"', 'dialect = "latin"', "providers[0].dialect", ["is 'latin'", "should be one of openai"]),
    ("https://api.acme", "ftp://api.acme", "providers[0].base_url", ["is 'ftp://", AN_ADDRESS]),
    ("https://api.acme", "api.acme", "providers[0].base_url", ["is 'api.", AN_ADDRESS]),
    ("https://api.acme.example", "https://", "providers[0].base_url", ["is 'https:///v1'", AN_ADDRESS]),
    ("https://api.acme.example", "https://[::1", "providers[0].base_url", ["is 'https://[::1/v1'", AN_ADDRESS]),
    ("https://api.acme.example", "https://x:99999", "providers[0].base_url", ["is 'https://x:99999/v1'", AN_ADDRESS]),
    (".example/v1", ".example/v1?version=2", "providers[0].base_url", [AN_ADDRESS]),
    (".example/v1", ".example/v1#images", "providers[0].base_url", ["#images'", AN_ADDRESS]),
    (".example/v1", ".example/v1?", "providers[0].base_url", [AN_ADDRESS]),
    (".example/v1", ".example/v1#", "providers[0].base_url", ["v1#'", AN_ADDRESS]),
    ("//api.acme", "//user@api.acme", "providers[0].base_url", ["should hold no password", "api_key_env"]),
    ("//api.acme", "//user:secret@api.acme", "providers[0].base_url", ["should hold no password", "api_key_env"]),
    ("max_connections = 50", "max_connections = 0", "providers[0].max_connections", ["is 0", "1"]),
    ("api_key_env =", "api_key =", "providers[0].api_key", [NO_SETTING]),
    ('id = "acme/image-1"', 'id = ""', "models[0].id", ["is ''", "at least 1 character"]),
    ('id = "acme/image-1"', 'id = "acme image"', "models[0].id", ["is 'acme image'"]),
    ('id = "acme/image-1"', r'id = "acme\nimage"', "models[0].id", [r"is 'acme\nimage'"]),
    ('id = "acme/image-1"', f'id = "{"x" * 201}"', "models[0].id", ["at most 200 characters"]),
    ('id = "acme/image-1"\n', "", "models[0].id", ["is missing"]),
    ('upstream_model = "image-1"\n', "", "models[0].upstream_model", ["is missing"]),
    ('token_multiplier = "1.5"\n', "", "models[0].token_multiplier", ["is missing"]),
    ('"drop"', '"ignore"', "models[0].unknown_parameters", ["is 'ignore'", "refuse, drop, forward"]),
    ('"1.5"', '"dear"', "models[0].token_multiplier", ["is 'dear'", "valid decimal"]),
    ('"1.5"', '""', "models[0].token_multiplier", ["is ''", "valid decimal"]),
    ('"1.5"', '"-0.1"', "models[0].token_multiplier", ["is '-0.1'", "greater than or equal to 0"]),
    ('"1.5"', "-1", "models[0].token_multiplier", ["is -1", "greater than or equal to 0"]),
    ('"1.5"', '"NaN"', "models[0].token_multiplier", ["is 'NaN'", "finite number"]),
    ('"1.5"', "nan", "models[0].token_multiplier", ["is 'nan'", "finite number"]),
    ('"1.5"', "inf", "models[0].token_multiplier", ["is 'inf'", "finite number"]),
    ('"1.5"', "true", "models[0].token_multiplier", ["is True", "decimal"]),
    ('"1.5"', "[1]", "models[0].token_multiplier", ["ecimal"]),
    ('"1.5"', '"1000000.1"', "models[0].token_multiplier", ["is '1000000.1'", "less than or equal to", "1000000"]),
    ('"1.5"', '"1e300"', "models[0].token_multiplier", ["is '1e300'", "less than or equal to", "1000000"]),
    ("default_n = 2", "default_n = 0", "models[0].default_n", ["is 0", "greater than or equal to 1"]),
    ("default_n = 2", "default_n = true", "models[0].default_n", ["is True", "integer"]),
    ("default_n = 2", "default_n = 5", "models[0]", ["default_n is 5", "more than max_n, 4"]),
    ("max_n = 4", "max_n = 1001", "models[0].max_n", ["is 1001", "less than or equal to 1000"]),
    ("four_k_long_edge = 0", "four_k_long_edge = -1", "models[0].four_k_long_edge", ["is -1", "0"]),
    ('["n", "size", ', '["n", "seed", ', "models[0].parameters[1]", ["is 'seed'", "is not a request field", "quality"]),
    ('["n", "size", ', '["prompt", ', "models[0].parameters[0]", ["is 'prompt'", "is not a request field"]),
    ('["n", "size", "image_config"]', '"n"', "models[0].parameters", ["is 'n'"]),
    ("created = 1744000000", "created = -1", "models[0].created", ["is -1", "greater than or equal to 0"]),
    ("created = 1744000000", "seed = 1", "models[0].seed", [NO_SETTING]),
    ('provider = "acme"', 'provider = "acne"', "models[0].provider", ["no provider is named 'acne'", "['acme']"]),
    ('"acme/image-2"', '"acme/image-1"', "models[1].id", ["there is another model 'acme/image-1'"]),
    (
        'default_model = "acme/image-1"',
        'default_model = "image-1"',
        "server.default_model",
        ["no model has the id 'image-1'", "['acme/image-1', 'acme/image-2']"],
    ),
    (
        "[[models]]",
        '[[providers]]\nname = "acme"\nbase_url = "https://x.example"\n\n[[models]]',
        "providers[1].name",
        ["there is another provider 'acme'"],
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), MISTAKES, ids=[f"{row[2]} {row[1]}"[:60] for row in MISTAKES])
def test_a_mistake_is_told_with_its_key_what_is_wrong_and_what_would_be_right(
    file: File, old: str, new: str, key: str, words: list[str]
) -> None:
    (mistake,) = file.mistakes(changed(old, new))
    assert mistake.startswith(f"{key}: ")
    for word in words:
        assert word in mistake


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("server = 5", "server: should be a section, [server], with settings below it"),
        ("[[store]]", "store: should be a section, [store], with settings below it"),
        (
            "[[providers]]\nauth = 'x'",
            "providers[0].auth: should be a section, [providers.auth], with settings below it",
        ),
        ("models = 'all'", "models: should be sections, each begun by [[models]]"),
        ("[providers]\nname = 'x'", "providers: should be sections, each begun by [[providers]]"),
        ("models = ['acme']", "models[0]: should be a section with settings of its own, [[models]]"),
    ],
)
def test_what_should_be_a_section_is_told_to_be_one(file: File, text: str, mistake: str) -> None:
    assert mistake in file.mistakes(text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("max_body = 2048", "max_boddy = 2048", "server.max_boddy: {NO_SETTING}; was max_body meant?"),
        ("[logs]", "[log]", "log: {NO_SETTING}; was logs meant?"),
        (
            "[logs]",
            "[logs]\nunits_per_usd = 5",
            "logs.units_per_usd: {NO_SETTING}; another section has it: what follows a line like [section] belongs to "
            "that section",
        ),
        ("[logs]", "[logs]\nxyzzy = 5", "logs.xyzzy: {NO_SETTING}"),
    ],
)
def test_what_is_no_setting_is_told_what_may_be_meant(file: File, old: str, new: str, told: str) -> None:
    assert file.mistakes(changed(old, new)) == [told.format(NO_SETTING=NO_SETTING)]


def test_of_several_models_or_providers_the_one_with_the_mistake_is_named(file: File) -> None:
    assert file.mistakes(changed("default_n = 2", "default_n = 0"))[0].endswith(" (model 'acme/image-1')")
    (mistake,) = file.mistakes(changed("[[models]]", '[[providers]]\nname = "b"\nbase_url = "x"\n\n[[models]]'))
    assert mistake.startswith("providers[1].base_url: is 'x': ")
    assert mistake.endswith(" (provider 'b')")
    # What names it already says it once, and one alone needs no name.
    assert file.mistakes(changed('"acme/image-2"', '"acme/image-1"')) == [
        "models[1].id: there is another model 'acme/image-1'"
    ]
    assert file.mistakes(changed("max_connections = 50", "max_connections = 0"))[0].endswith("equal to 1")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('dialect = "openai"', "dialect = 5", "providers[0].dialect: is 5: should be a string, in quotes"),
        ('dialect = "openai"', 'query = "a=b"', """providers[0].query: should be a table, like { name = "value" }"""),
        (
            'dialect = "openai"',
            'paths = { image = "/x" }',
            "providers[0].paths.image: is 'image': should be one of generations, edits, variations, chat",
        ),
        ("max_n = 4", 'max_n = 4\nfallback = "x"', """models[0].fallback: is 'x': should be a list, like ["value"]"""),
    ],
)
def test_what_is_of_another_type_is_told_in_words_of_toml(file: File, old: str, new: str, told: str) -> None:
    (mistake,) = file.mistakes(changed(old, new))
    assert mistake.removesuffix(" (model 'acme/image-1')") == told


def test_a_file_without_models_says_what_to_add(file: File) -> None:
    assert file.mistakes("") == [
        "models: there is none; add a [[models]] with id, provider, upstream_model and token_multiplier"
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        # Each but the second and the third has no model either.
        ("store = 3", ["store", "models"]),
        ("[models]\nid = 1", ["models"]),
        ("models = [3]", ["models[0]"]),
        ("providers = 1", ["providers", "models"]),
    ],
)
def test_a_section_that_is_none_is_told(file: File, text: str, keys: list[str]) -> None:
    assert [mistake.partition(":")[0] for mistake in file.mistakes(text)] == keys


@pytest.mark.parametrize("environment", [{}, {"ACME_API_KEY": ""}, {"acme_api_key": "made-up"}])
def test_a_provider_whose_key_is_not_in_the_environment_says_what_to_export(
    file: File, environment: dict[str, str]
) -> None:
    token = {"CI_TOKEN": ENVIRONMENT["CI_TOKEN"]}
    (mistake,) = file.mistakes(GOOD, {**token, **environment})
    assert mistake.startswith("providers[0].api_key_env: the environment has no ACME_API_KEY: export it ")
    assert "'acme'" in mistake


def test_all_mistakes_are_told_at_once(file: File) -> None:
    text = changed('"0.0.0.0:9080"', '"here"', changed("max_n = 4", "max_n = 0", changed("[logs]", "[log]")))
    keys = [mistake.partition(":")[0] for mistake in file.mistakes(text)]
    assert sorted(keys) == ["log", "models[0].max_n", "server.listen"]


def test_wrong_values_and_what_does_not_fit_together_are_told_at_once(file: File) -> None:
    text = changed('"0.0.0.0:9080"', '"here"', changed('provider = "acme"', 'provider = "acne"'))
    text = changed('id = "acme/image-2"', 'id = "acme/image-2"\nmax_n = 0', text)
    text = changed("[[models]]", '[[providers]]\nname = "b"\nbase_url = "x"\n\n[[models]]', text)
    mistakes = file.mistakes(text, {})
    assert sorted(mistake.partition(":")[0] for mistake in mistakes) == [
        *("admin.tokens[0].token_env", "models[0].provider", "models[1].max_n"),
        *("providers[0].api_key_env", "providers[1].base_url", "server.listen"),
    ]
    # What has a mistake is there all the same for whoever names it.
    assert "there are ['acme', 'b']" in next(each for each in mistakes if each.startswith("models[0].provider"))


def test_what_only_follows_from_a_mistake_is_no_mistake_of_its_own(file: File) -> None:
    alias = '[[models]]\nid = "acme/old"\nalias_of = "acme/image-1"\nfallback = []\n'
    for old, new, key in (
        ('name = "acme"\n', "name = 5\n", "providers[0].name"),
        ("max_n = 4", "max_n = 0", "models[0].max_n"),
        ('id = "acme/image-1"\n', "id = 5\n", "models[0].id"),
        ('"embedded:./quota"', '"redis://"\nmin_replicas = 1', "store.url"),
    ):
        keys = [mistake.partition(":")[0] for mistake in file.mistakes(changed(old, new) + alias)]
        assert sorted(keys) == sorted([key, "models[2].fallback"])


def test_all_wrong_references_are_told_at_once(file: File) -> None:
    text = changed('provider = "acme"', 'provider = "x"', changed('"acme/image-2"', '"acme/image-1"'))
    keys = [mistake.partition(":")[0] for mistake in file.mistakes(text, {})]
    assert keys == [
        *("providers[0].api_key_env", "models[0].provider", "models[1].id", "admin.tokens[0].token_env"),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("//api.acme", "//user:hunter2@api.acme"),
        ('"embedded:./quota"', '"http://:hunter2@redis.example"'),
        ('"ACME_API_KEY"', '"sk-proj-hunter2"'),
        ('"ACME_API_KEY"', '"r8_Ab12Cd34Ef56Gh78hunter2"'),
        ('"embedded:./quota"', '"redis+sentinel://h1/svc?sentinel_password=hunter2&x=1"'),
        ('"embedded:./quota"', '"reds://h?password=hunter2"'),
        ('"embedded:./quota"', '"redis://:hunter2"'),
        ('"embedded:./quota"', '"redis://:hun/hunter2@redis.example"'),
        (".example/v1", ".example/v1?key=hunter2"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(file: File, old: str, new: str) -> None:
    (mistake,) = file.mistakes(changed(old, new))
    assert "hunter2" not in mistake


# --- Files that cannot be read ----------------------------------------------------------------------------------------


def refusal_of(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {})
    return str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "missing.toml"
    assert refusal_of(path) == f"{path}: cannot be read: No such file or directory"


def test_a_folder_is_told(tmp_path: Path) -> None:
    assert refusal_of(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b'[store]\nurl = "\xff\xfe"\n')
    assert refusal_of(path) == f"{path}: is not UTF-8 text"


@pytest.mark.parametrize("text", ["[store", "url = embedded", "[store]\n[store]", "a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_told_with_the_place(file: File, text: str) -> None:
    (mistake,) = file.mistakes(text)
    assert mistake.startswith("is not valid TOML: ")
    assert "(at " in mistake


# --- The environment --------------------------------------------------------------------------------------------------

OVERRIDES: list[tuple[str, str, str, str, object]] = [
    ("LIGHTMETER_SERVER_LISTEN", "127.0.0.1:1", "server", "listen", "127.0.0.1:1"),
    ("LIGHTMETER_SERVER_MAX_BODY", "4096", "server", "max_body", 4_096),
    ("LIGHTMETER_SERVER_BODY_TIMEOUT", "2.5", "server", "body_timeout", 2.5),
    ("LIGHTMETER_SERVER_DEFAULT_MODEL", "acme/image-2", "server", "default_model", "acme/image-2"),
    ("LIGHTMETER_SERVER_TRUSTED_PROXIES", "::1, 10.0.0.0/8", "server", "trusted_proxies", ("::1/128", "10.0.0.0/8")),
    ("LIGHTMETER_SERVER_CORS_ORIGINS", "*", "server", "cors_origins", ("*",)),
    (
        "LIGHTMETER_SERVER_CORS_ORIGINS",
        "tauri://a, http://[::1]:3",
        "server",
        "cors_origins",
        ("tauri://a", "http://[::1]:3"),
    ),
    ("LIGHTMETER_SERVER_CORS_ORIGINS", "", "server", "cors_origins", ()),
    ("LIGHTMETER_ADMIN_LISTEN", "127.0.0.1:2", "admin", "listen", "127.0.0.1:2"),
    ("LIGHTMETER_STORE_URL", "redis://redis.example", "store", "url", "redis://redis.example"),
    ("LIGHTMETER_STORE_APPENDFSYNC", "everysec", "store", "appendfsync", "everysec"),
    ("LIGHTMETER_ACCOUNTING_LEASE_SECONDS", "30", "accounting", "lease_seconds", 30),
    ("LIGHTMETER_LOGS_LEVEL", "error", "logs", "level", "error"),
    ("LIGHTMETER_LOGS_REQUESTS", "true", "logs", "requests", True),
    ("LIGHTMETER_METRICS_LABEL_TEAMS", "50", "metrics", "label_teams", 50),
    ("LIGHTMETER_TRACES_SAMPLE_RATIO", "0.5", "traces", "sample_ratio", 0.5),
    ("LIGHTMETER_TRACES_ENABLED", "false", "traces", "enabled", False),
]


@pytest.mark.parametrize(("variable", "text", "section", "key", "value"), OVERRIDES, ids=[row[0] for row in OVERRIDES])
def test_the_environment_overrides_the_file(
    file: File, variable: str, text: str, section: str, key: str, value: object
) -> None:
    loaded = file.load(GOOD, {**ENVIRONMENT, variable: text})
    untouched = file.load(GOOD)
    assert getattr(getattr(untouched, section), key) != value
    assert loaded == untouched.model_copy(update={section: getattr(untouched, section).model_copy(update={key: value})})


def test_the_environment_sets_what_the_file_leaves_out(file: File) -> None:
    assert file.load(LEAST, {"LIGHTMETER_STORE_URL": "redis://redis.example"}).store.url == "redis://redis.example"


def test_other_variables_change_nothing(file: File) -> None:
    others = [
        *("LIGHTMETER_ADMIN_TOKEN", "LIGHTMETER_ADMIN_TOKENS", "LIGHTMETER_ADMIN_URL", "LIGHTMETER_STORE"),
        *("STORE_URL", "lightmeter_store_url"),
    ]
    assert file.load(GOOD, {**ENVIRONMENT, **dict.fromkeys(others, "x" * 16)}) == file.load(GOOD)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LIGHTMETER_SERVER_LISTEN", "here", ["is 'here'", HOST_AND_PORT]),
        ("LIGHTMETER_ACCOUNTING_LEASE_SECONDS", "soon", ["is 'soon'", "integer"]),
        ("LIGHTMETER_ACCOUNTING_LEASE_SECONDS", "", ["is ''", "integer"]),
        ("LIGHTMETER_STORE_URL", "", [A_STORE]),
        ("LIGHTMETER_SERVER_CORS_ORIGINS", "https://a.example,b.example", ["is 'b.example'", AN_ORIGIN]),
        ("LIGHTMETER_LOGS_REQUESTS", "perhaps", ["is 'perhaps'", "boolean"]),
    ],
)
def test_a_mistake_in_the_environment_is_told_by_its_variable(
    file: File, variable: str, value: str, words: list[str]
) -> None:
    (mistake,) = file.mistakes(GOOD, {**ENVIRONMENT, variable: value})
    assert mistake.startswith(f"the environment: {variable}: ")
    for word in words:
        assert word in mistake


def test_a_good_value_in_the_environment_mends_a_bad_one_in_the_file(file: File) -> None:
    text = changed('"embedded:./quota"', '"nowhere"')
    assert file.load(text, {**ENVIRONMENT, "LIGHTMETER_STORE_URL": "redis://x"}).store.url == "redis://x"


def test_the_environment_is_that_of_the_process_unless_told(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("LIGHTMETER_")]:
        monkeypatch.delenv(variable)
    file.path.write_text(LEAST, encoding="utf-8")
    assert load_settings(file.path).store.url == "embedded:./data"
    monkeypatch.setenv("LIGHTMETER_STORE_URL", "redis://redis.example")
    assert load_settings(file.path).store.url == "redis://redis.example"


def test_settings_cannot_be_changed(file: File) -> None:
    loaded = file.load(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        loaded.store.url = "redis://x"  # type: ignore[misc]


# --- Admin tokens ----------------------------------------------------------------------------------------------------


def test_admin_tokens_have_their_texts_from_the_environment(file: File) -> None:
    (token,) = file.load(GOOD).admin_tokens(ENVIRONMENT)
    assert token == AdminToken.of("ci", Role.VIEWER, "made-up-token-of-the-ci")
    assert "made-up" not in repr(token)


def test_an_administrator_of_teams_has_them(file: File) -> None:
    text = changed('role = "viewer"', 'role = "team_admin"\nteams = ["research", "design"]')
    (token,) = file.load(text).admin_tokens(ENVIRONMENT)
    assert (token.role, token.teams) == (Role.TEAM_ADMIN, frozenset({"research", "design"}))


TOKEN = """
[[admin.tokens]]
name = "bob"
role = "admin"
token_env = "BOB_TOKEN"
"""


@pytest.mark.parametrize(
    ("text", "environment", "mistake"),
    [
        (GOOD, {"CI_TOKEN": ""}, "admin.tokens[0].token_env: the environment has no CI_TOKEN: export it"),
        (GOOD, {"CI_TOKEN": "too-short"}, "admin.tokens[0].token_env: CI_TOKEN should hold at least 16"),
        (GOOD, {"CI_TOKEN": "holds a blank, and more"}, "admin.tokens[0].token_env: CI_TOKEN should hold at least 16"),
        (
            GOOD,
            {"LIGHTMETER_ADMIN_TOKEN": "made-up-token-of-the-ci"},
            "admin.tokens[0].token_env: CI_TOKEN holds the text of another token",
        ),
        (
            GOOD,
            {"LIGHTMETER_ADMIN_TOKEN": "too-short"},
            "the environment: LIGHTMETER_ADMIN_TOKEN: should hold at least 16",
        ),
        (
            GOOD + TOKEN,
            {"BOB_TOKEN": "made-up-token-of-the-ci"},
            "admin.tokens[1].token_env: BOB_TOKEN holds the text of another token",
        ),
        (
            changed('name = "ci"', 'name = "admin"'),
            {},
            "admin.tokens[0].name: there is another token 'admin'",
        ),
        (
            changed('"viewer"', '"root"'),
            {},
            "admin.tokens[0].role: is 'root': should be one of admin, viewer, team_admin",
        ),
        (
            changed('"viewer"', '"team_admin"'),
            {},
            'admin.tokens[0].teams: is missing: name the teams of this "team_admin"',
        ),
        (
            changed('"viewer"', '"viewer"\nteams = ["a"]'),
            {},
            'admin.tokens[0].teams: goes with the role "team_admin" only',
        ),
        (changed('"viewer"', '"team_admin"\nteams = ["A b"]'), {}, "admin.tokens[0].teams[0]: is 'A b'"),
        (changed('"https://meter.example"', '"*"'), {}, "admin.public_url: is '*': should be the origin where people"),
        (changed('name = "ci"', 'name = "c i"'), {}, "admin.tokens[0].name: is 'c i'"),
    ],
)
def test_a_mistake_about_an_admin_token_is_told(
    file: File, text: str, environment: dict[str, str], mistake: str
) -> None:
    (told,) = file.mistakes(text, {**ENVIRONMENT, **environment})
    assert told.startswith(mistake)
    assert "made-up" not in told


def test_a_token_in_the_place_of_its_variable_is_not_repeated(file: File) -> None:
    text = changed('token_env = "CI_TOKEN"', 'token_env = "made-up-token/with=signs"')
    (told,) = file.mistakes(text)
    assert told == "admin.tokens[0].token_env: should be the name of an environment variable, not the secret itself"


def test_sections_that_are_no_sections_are_told_by_their_whole_name(file: File) -> None:
    (told,) = file.mistakes(LEAST + "[admin]\ntokens = 5")
    assert told == "admin.tokens: should be sections, each begun by [[admin.tokens]]"
    (told,) = file.mistakes(LEAST + "[admin]\ntokens = [5]")
    assert told == "admin.tokens[0]: should be a section with settings of its own, [[admin.tokens]]"


def test_what_a_dialect_makes_at_once_is_asked_for_in_so_many_requests(file: File) -> None:
    gemini = file.load(GOOD.replace('dialect = "openai"', 'dialect = "gemini"')).catalog().all()
    assert {model.images_at_once for model in gemini} == {1}
    assert {model.images_at_once for model in file.load(GOOD).catalog().all()} == {None}
    three = file.load(GOOD.replace("max_n = ", "images_at_once = 3\nmax_n = ", 1)).catalog().all()
    assert 3 in {model.images_at_once for model in three}


def deployed(*deployments: dict[str, object], **simple: object) -> dict[str, Any]:
    return {
        "providers": [{"name": name, "base_url": "http://127.0.0.1"} for name in ("one", "two")],
        "models": [{"id": "m", "token_multiplier": 1, "deployments": list(deployments), **simple}],
    }


def test_a_model_may_have_several_deployments() -> None:
    content = deployed(
        {"provider": "one", "upstream_model": "a", "weight": 3},
        {"provider": "two", "upstream_model": "b", "priority": 1, "max_in_flight": 7},
    )
    model = read_settings(content, "file", {}).catalog().get("m")
    assert (model.provider, model.upstream_model) == ("one", "a")
    assert model.deployments == (
        Deployment("one", "a", weight=3),
        Deployment("two", "b", priority=1, max_in_flight=7),
    )


@pytest.mark.parametrize(
    ("changes", "simple", "told"),
    [
        ({"provider": "three"}, {}, "models[0].deployments[0].provider: no provider is named 'three'; there are"),
        ({"provider": "two"}, {}, "models[0].deployments[1].provider: there is another deployment at 'two'"),
        ({"weight": 0}, {}, "models[0].deployments[0].weight: is 0: input should be greater than or equal to 1"),
        ({"priority": -1}, {}, "models[0].deployments[0].priority: is -1"),
        ({"max_in_flight": 0}, {}, "models[0].deployments[0].max_in_flight: is 0"),
        ({"wait": 0}, {}, "models[0].deployments[0].wait: is not a setting"),
        ({}, {"provider": "one"}, "models[0].provider: is given beside [[models.deployments]]"),
        ({}, {"upstream_model": "a"}, "models[0].upstream_model: is given beside [[models.deployments]]"),
        ({}, {"deployments": []}, "models[0].provider: is missing"),
    ],
)
def test_mistakes_about_deployments(changes: dict[str, object], simple: dict[str, object], told: str) -> None:
    first = {"provider": "one", "upstream_model": "a", **changes}
    content = deployed(first, {"provider": "two", "upstream_model": "b"}, **simple)
    with pytest.raises(ConfigurationError, match=re.escape(f"file: {told}")):
        read_settings(content, "file", {})


@pytest.mark.parametrize("module", ["opentelemetry", "opentelemetry.sdk.trace"])
def test_traces_without_their_library_say_what_to_install(
    file: File, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for loaded in [name for name in sys.modules if name.startswith(module)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    (mistake,) = file.mistakes(GOOD)
    assert mistake.startswith(f"traces.enabled: OpenTelemetry is not installed: {PROGRAM.install('traces')}")
    file.load(changed("enabled = true", "enabled = false"))
