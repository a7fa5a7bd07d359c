"""``tls_cert_file`` and ``tls_key_file`` of both listeners."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import read_settings
from tests.support.certificates import certify

REST = {
    "providers": [{"name": "acme", "base_url": "https://api.acme.example/v1"}],
    "models": [{"id": "acme/image-1", "provider": "acme", "upstream_model": "image-1", "token_multiplier": "1"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "other"):
        certify(folder, name, f"/CN={name}")
    (folder / "both.pem").write_bytes((folder / "one.crt").read_bytes() + (folder / "one.key").read_bytes())
    return folder


@pytest.mark.parametrize("section", ["server", "admin"])
def test_they_are_looked_at_before_anything_starts(folder: Path, section: str) -> None:
    def mistake(**files: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            read_settings({section: files, **REST}, "file", {})
        return str(caught.value).removeprefix(f"file: {section}.")

    one = f"{folder}/one.crt"
    for good in ({"tls_cert_file": one, "tls_key_file": f"{folder}/one.key"}, {"tls_cert_file": f"{folder}/both.pem"}):
        settings = read_settings({section: good, **REST}, "file", {})
        assert getattr(settings, section).tls_cert_file == good["tls_cert_file"]
    assert mistake(tls_cert_file=one).startswith("tls_cert_file: cannot be used (")
    other = mistake(tls_cert_file=one, tls_key_file=f"{folder}/other.key")
    assert other.startswith("tls_cert_file: cannot be used (KEY_VALUES_MISMATCH")
    missing = mistake(tls_cert_file=f"{folder}/missing.crt")
    assert missing == f"tls_cert_file: {folder}/missing.crt cannot be read: No such file or directory"
    missing = mistake(tls_cert_file=one, tls_key_file=f"{folder}/missing.key")
    assert missing == f"tls_key_file: {folder}/missing.key cannot be read: No such file or directory"
    assert mistake(tls_key_file=f"{folder}/one.key").startswith("tls_key_file: is given without tls_cert_file")
