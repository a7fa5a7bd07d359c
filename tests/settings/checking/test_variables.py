from __future__ import annotations

import pytest

from proxy.settings.settings import OVERRIDABLE_SECTIONS, read_settings
from tests.settings.test_settings import ENVIRONMENT, GOOD, File

assert GOOD


def unknown(environment: dict[str, str]) -> list[str]:
    content = {
        "providers": [{"name": "a", "base_url": "https://a.example", "api_key_env": "LIGHTMETER_OPENAI_KEY"}],
        "admin": {"tokens": [{"name": "ci", "role": "viewer", "token_env": "LIGHTMETER_CI_TOKEN"}]},
        "models": [{"id": "m", "provider": "a", "upstream_model": "m", "token_multiplier": 1}],
    }
    secrets = {"LIGHTMETER_OPENAI_KEY": "made-up-secret", "LIGHTMETER_CI_TOKEN": "made-up-token-of-the-ci"}
    return read_settings(content, "x", {**secrets, **environment}).unknown_variables({**secrets, **environment})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LIGHTMETER_SERVER_LISTN", "was LIGHTMETER_SERVER_LISTEN meant?"),
        ("LIGHTMETER_STORE_ULR", "was LIGHTMETER_STORE_URL meant?"),
        ("LIGHTMETER_ADMIN_TOKENS", "was LIGHTMETER_ADMIN_TOKEN meant?"),
        ("lightmeter_store_url", "was LIGHTMETER_STORE_URL meant?"),
        ("LIGHTMETER_LISTEN", "was LIGHTMETER_SERVER_LISTEN meant?"),
        ("LIGHTMETER_PROVIDERS", "LIGHTMETER_<SECTION>_<SETTING>"),
        ("LIGHTMETER_PORT", "LIGHTMETER_<SECTION>_<SETTING>"),
    ],
)
def test_a_variable_that_nobody_knows_is_told_with_what_may_be_meant(name: str, meant: str) -> None:
    (line,) = unknown({name: "a value"})
    assert line.startswith(f"the environment: {name}: is not a setting, and has no effect; ")
    assert line.endswith(meant)
    assert "a value" not in line


def test_what_is_known_is_not_told() -> None:
    settings = {f"LIGHTMETER_{name}_{key}".upper() for name, of in OVERRIDABLE_SECTIONS.items() for key in dict(of)}
    assert {"LIGHTMETER_SERVER_LISTEN", "LIGHTMETER_STORE_URL"} < settings
    values = {"LIGHTMETER_SERVER_LISTEN": "127.0.0.1:1", "LIGHTMETER_STORE_URL": "redis://h"}
    others = {"LIGHTMETER_ADMIN_TOKEN": "0123456789abcdef", "LIGHTMETER_ADMIN_URL": "x", "LIGHTMETER_CONFIG": "x"}
    assert unknown({**values, **others, "LIGHTMETER": "x", "OTHER": "x"}) == []


def test_what_kubernetes_adds_for_its_services_is_not_told() -> None:
    links = {
        "LIGHTMETER_SERVICE_HOST": "10.96.0.12",
        "LIGHTMETER_SERVICE_PORT": "8080",
        "LIGHTMETER_SERVICE_PORT_HTTP": "8080",
        "LIGHTMETER_PORT": "tcp://10.96.0.12:8080",
        "LIGHTMETER_PORT_8080_TCP": "tcp://10.96.0.12:8080",
        "LIGHTMETER_PORT_8080_TCP_PROTO": "tcp",
        "LIGHTMETER_PORT_8080_TCP_PORT": "8080",
        "LIGHTMETER_PORT_8080_TCP_ADDR": "10.96.0.12",
        "LIGHTMETER_ADMIN_SERVICE_HOST": "fd00::12",
        "LIGHTMETER_ADMIN_PORT": "tcp://[fd00::12]:8081",
    }
    assert unknown(links) == []


def test_a_variable_of_a_section_that_cannot_be_overridden_is_told(file: File) -> None:
    loaded = file.load(GOOD)
    assert loaded.unknown_variables({**ENVIRONMENT, "LIGHTMETER_MODELS": "x"}) != []


@pytest.fixture
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    return File(tmp_path_factory.mktemp("file"))
