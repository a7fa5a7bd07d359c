"""A provider's ``tls`` and ``proxy_env``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_settings
from tests.support.certificates import certify
from tests.support.requirements import program

MODEL = {"id": "acme/image-1", "provider": "acme", "upstream_model": "image-1", "token_multiplier": "1"}


def read(environment: dict[str, str] | None = None, **provider: Any) -> Settings:
    given = {"name": "acme", "base_url": "https://api.acme.example/v1", **provider}
    return read_settings({"providers": [given], "models": [MODEL]}, "file", environment or {})


def mistake(environment: dict[str, str] | None = None, **provider: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(environment, **provider)
    return str(caught.value).removeprefix("file: providers[0].")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "other"):
        certify(folder, name, f"/CN={name}")
    locked = ["pkcs8", "-topk8", "-in", f"{folder}/one.key", "-out", f"{folder}/locked.key", "-passout", "pass:secret"]
    subprocess.run([program("openssl", "openssl"), *locked], check=True, capture_output=True)
    (folder / "text.pem").write_text("no certificate")
    return folder


def test_files_are_read_and_told_apart_by_what_is_in_them(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.crt"
    own.write_bytes((folder / "one.crt").read_bytes())
    settings = read(tls={"ca_file": str(own)})
    (before,) = settings.provider_list({})
    assert before.tls is not None
    assert before.tls.context().get_ca_certs()[0]["subject"] == ((("commonName", "one"),),)
    assert settings.provider_list({}) == [before]
    own.write_bytes((folder / "other.crt").read_bytes())
    assert settings.provider_list({}) != [before]
    assert read().provider_list({})[0].tls is None


def test_mistakes_in_files_are_told_before_anything_starts(folder: Path) -> None:
    one = {"cert_file": f"{folder}/one.crt", "key_file": f"{folder}/one.key"}
    assert read(tls=one).providers[0].tls is not None
    cases: list[tuple[dict[str, str], str]] = [
        ({"ca_file": f"{folder}/missing.pem"}, f"tls: {folder}/missing.pem cannot be read: No such file"),
        ({"ca_file": f"{folder}/text.pem"}, "tls: the files cannot be used ("),
        (one | {"key_file": f"{folder}/other.key"}, "tls: the files cannot be used (KEY_VALUES_MISMATCH"),
        (one | {"key_file": f"{folder}/locked.key"}, "tls: the files cannot be used ("),
        ({"key_file": f"{folder}/one.key"}, "tls.key_file: is given without cert_file"),
        ({"ca": "x"}, "tls.ca: is not a setting"),
    ]
    for files, message in cases:
        assert mistake(tls=files).startswith(message), files
    assert mistake(base_url="http://localhost/v1", tls=one) == "tls: base_url is no https:// address"


@pytest.mark.parametrize(
    "address", ["http://proxy.example:3128", "http://me:secret@10.0.0.1:3128/", "http://[::1]:3128", "http://proxy"]
)
def test_a_proxy_comes_from_the_variable_that_the_provider_names(address: str) -> None:
    environment = {"COMPANY_PROXY": f" {address} ", "HTTPS_PROXY": "http://other.example"}
    settings = read(environment, proxy_env="COMPANY_PROXY")
    (provider,) = settings.provider_list(environment)
    assert provider.proxy_url == address
    assert address not in repr(provider)
    assert ("secret" in settings.secret_texts(environment)) == ("secret" in address)
    assert read(environment).provider_list(environment)[0].proxy_url == ""


@pytest.mark.parametrize(
    "address", ["proxy.example:3128", "https://proxy.example", "socks5://proxy", "http://", "http://p/x", "http://p:x"]
)
def test_what_is_no_proxys_address_is_not_repeated(address: str) -> None:
    told = mistake({"COMPANY_PROXY": address}, proxy_env="COMPANY_PROXY")
    assert told == "proxy_env: COMPANY_PROXY holds no address like http://proxy.example:3128"
    assert mistake({}, proxy_env="COMPANY_PROXY").startswith("proxy_env: COMPANY_PROXY is not in the environment")
