from __future__ import annotations

import pytest

from proxy.domain.requests.inputs import PLAIN_BYTES, kind_of_file, split_data_url


@pytest.mark.parametrize(
    ("said", "begin", "kind"),
    [
        ("image/png", b"", "image/png"),
        ("IMAGE/JPEG; x=y", b"", "image/jpeg"),
        ("image/png\r\nX-Evil: 1", b"", PLAIN_BYTES),
        ("text/html", b"<html>", PLAIN_BYTES),
        (None, b"\x89PNG\r\n\x1a\n....", "image/png"),
        (PLAIN_BYTES, b"\xff\xd8\xff\xe0", "image/jpeg"),
        (None, b"RIFF....WEBP", "image/webp"),
        (None, b"RIFF....WAVE", PLAIN_BYTES),
        (None, b"GIF89a", "image/gif"),
        (None, b"", PLAIN_BYTES),
    ],
)
def test_what_a_file_is(said: str | None, begin: bytes, kind: str) -> None:
    assert kind_of_file(said, begin) == kind


def test_a_data_address_has_a_kind_and_its_base64() -> None:
    assert split_data_url("data:image/PNG;base64,AAAA") == ("image/png", "AAAA")
    assert split_data_url("data:image/png;name=x;base64,AAAA") == ("image/png", "AAAA")
    for other in ("https://a.example/", "data:text/plain;base64,AAAA", "data:image/png,AAAA"):
        assert split_data_url(other) is None
