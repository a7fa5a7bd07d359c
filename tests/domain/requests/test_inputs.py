from __future__ import annotations

import base64

import pytest

from proxy.domain.requests.inputs import PLAIN_BYTES, address_of, data_address, kind_of_file, split_data_url


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
        # The bytes tell, whatever the client says.
        ("image/png", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("image/jpeg", b"\x89PNG\r\n\x1a\n....", "image/png"),
        ("text/plain", b"GIF89a", "image/gif"),
        (None, b"\0\0\0 ftypavif", "image/avif"),
        (None, b"\0\0\0 ftypheic", "image/heic"),
        (None, b"\0\0\0 ftypisom", PLAIN_BYTES),
        # Where they do not, its name is the registered one.
        ("image/jpg", b"", "image/jpeg"),
        ("image/pjpeg", b"", "image/jpeg"),
        ("image/x-png", b"", "image/png"),
        ("image/svg+xml", b"<svg/>", "image/svg+xml"),
    ],
)
def test_what_a_file_is(said: str | None, begin: bytes, kind: str) -> None:
    assert kind_of_file(said, begin) == kind


def test_a_data_address_has_a_kind_and_its_base64() -> None:
    assert split_data_url("data:image/PNG;base64,AAAA") == ("image/png", "AAAA")
    assert split_data_url("data:image/png;name=x;base64,AAAA") == ("image/png", "AAAA")
    for other in ("https://a.example/", "data:text/plain;base64,AAAA", "data:image/png,AAAA"):
        assert split_data_url(other) is None


JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + b"x" * 20).decode()
NO_IMAGE = base64.b64encode(b"nothing that is known").decode()


@pytest.mark.parametrize(
    ("address", "kind", "data"),
    [
        (f"data:image/jpeg;base64,{JPEG}", "image/jpeg", JPEG),
        (f"data:image/jpg;base64,{JPEG}", "image/jpeg", JPEG),
        (f"data:image/png;base64,{JPEG}", "image/jpeg", JPEG),
        (f"DATA:image/PNG;charset=utf-8;BASE64,{JPEG}", "image/jpeg", JPEG),
        (f"data:application/octet-stream;base64,{JPEG}", "image/jpeg", JPEG),
        (f"data:;base64,{JPEG}", "image/jpeg", JPEG),
        (f"data:image/x-png;base64,{NO_IMAGE}", "image/png", NO_IMAGE),
        (JPEG, "image/jpeg", JPEG),
    ],
)
def test_a_data_address_is_of_the_kind_that_its_bytes_show(address: str, kind: str, data: str) -> None:
    assert data_address(address) == address_of(address) == f"data:{kind};base64,{data}"


@pytest.mark.parametrize(
    "address",
    ["https://a.example/", "data:text/html;base64,AAAA", "data:image/png,x", NO_IMAGE, "", "cat.png", "data:"],
)
def test_any_other_address_stays_as_it_is(address: str) -> None:
    assert address_of(address) == address
    assert data_address(address) is None


def test_base64_in_lines_or_in_the_alphabet_of_urls_is_looked_at_too() -> None:
    data = base64.urlsafe_b64encode(b"\xff\xd8\xff\xfb" + b"\xfe" * 20).decode()
    assert "_" in data[:8]
    assert data_address(f"\r\n{data[:3]}\n{data[3:]}") is not None
    assert (data_address(data) or "").startswith("data:image/jpeg;base64,")
