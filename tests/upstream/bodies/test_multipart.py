from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.bodies.multipart import FILE_NAME_LIMIT, clean_file_name, write_form
from proxy.upstream.bodies.outgoing import FileBytes, OutgoingBody, splice_files
from tests.support.sources import Bytes, upload

BOUNDARY = "0123456789abcdef0123456789abcdef"


def written(body: OutgoingBody) -> bytes:
    """As it is sent, with the files out of memory."""
    pieces = []
    for piece in body.pieces:
        if isinstance(piece, FileBytes):
            assert isinstance(piece.upload.source, Bytes)
            pieces.append(piece.upload.source.data[piece.upload.start :][: piece.upload.size_bytes])
        else:
            pieces.append(piece)
    return b"".join(pieces)


@given(st.text() | st.none(), st.text(alphabet=st.characters(exclude_categories=["C", "Z"])), st.binary(max_size=99))
def test_whatever_a_file_is_called_the_body_has_its_parts(name: str | None, prompt: str, data: bytes) -> None:
    body = write_form(BOUNDARY, [("prompt", prompt)], [("image[]", upload(data=data, file_name=name))])
    sent = written(body)
    assert len(sent) == body.size_bytes
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {body.content_type}\r\n\r\n".encode() + sent)
    field, file = message.iter_parts()
    assert field.get_payload(decode=True) == prompt.encode()
    assert file.get_payload(decode=True) == data
    assert file.get_content_type() == "image/png"
    assert file.get_filename() == clean_file_name(name)


@given(st.text(alphabet='a[]"\r\n;= ', min_size=1))
def test_a_fields_name_ends_no_header(name: str) -> None:
    body = write_form(BOUNDARY, [(name, "text")], [])
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {body.content_type}\r\n\r\n".encode() + written(body))
    [field] = message.iter_parts()
    assert field.keys() == ["Content-Disposition"]
    assert field.get_payload() == "text"


@given(st.text())
def test_a_name_is_short_and_plain(name: str) -> None:
    cleaned = clean_file_name(name)
    assert 1 <= len(cleaned) <= FILE_NAME_LIMIT
    assert not set(cleaned) & set('"\r\n/\\')
    assert clean_file_name(cleaned) == cleaned


def test_files_take_the_places_that_were_kept_for_them() -> None:
    files = [upload(data=b"x" * size) for size in (1, 2, 3)]
    pieces = splice_files(b'["k0","k1","k2"]', [(b"k%d" % index, file) for index, file in enumerate(files)])
    assert pieces == [
        b'["', FileBytes(files[0], in_base64=True), b'","', FileBytes(files[1], in_base64=True), b'","',
        FileBytes(files[2], in_base64=True), b'"]',
    ]  # fmt: skip
    assert OutgoingBody("application/json", pieces).size_bytes == len('["","",""]') + 3 * 4
