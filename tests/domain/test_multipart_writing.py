from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.multipart_writing import (
    FILE_END,
    FILE_NAME_LIMIT,
    body_bytes,
    clean_file_name,
    clean_kind,
    closing,
    file_head,
    text_part,
)

BOUNDARY = "0123456789abcdef0123456789abcdef"


@given(st.text() | st.none(), st.text() | st.none(), st.text(alphabet=st.characters(exclude_categories=["C", "Z"])))
def test_whatever_a_file_is_called_the_body_has_its_parts(name: str | None, kind: str | None, prompt: str) -> None:
    text, head = text_part(BOUNDARY, "prompt", prompt), file_head(BOUNDARY, "image[]", name, kind)
    body = text + head + b"1234" + FILE_END + closing(BOUNDARY)
    assert len(body) == body_bytes(BOUNDARY, [text], [(head, 4)])
    message = BytesParser(policy=HTTP).parsebytes(
        f'Content-Type: multipart/form-data; boundary="{BOUNDARY}"\r\n\r\n'.encode() + body
    )
    field, file = message.iter_parts()
    assert field.get_payload(decode=True) == prompt.encode()
    assert file.get_payload(decode=True) == b"1234"
    assert file.get_filename() == clean_file_name(name)


@given(st.text())
def test_a_name_is_short_and_plain(name: str) -> None:
    cleaned = clean_file_name(name)
    assert 1 <= len(cleaned) <= FILE_NAME_LIMIT
    assert not set(cleaned) & set('"\r\n/\\')
    assert clean_file_name(cleaned) == cleaned


@pytest.mark.parametrize(
    ("given_kind", "sent"),
    [
        ("image/png", "image/png"),
        ("IMAGE/JPEG; x=y", "image/jpeg"),
        ("image/png\r\nX-Evil: 1", "application/octet-stream"),
        ("text/html", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_only_images_are_called_images(given_kind: str | None, sent: str) -> None:
    assert clean_kind(given_kind) == sent
