"""Writing a multipart/form-data body (RFC 7578) anew: nothing of the client's framing reaches a provider.

File names are cleaned. The boundary is the caller's to choose, at random, so that no file can hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxy.domain.requests.inputs import Upload
from proxy.upstream.bodies.outgoing import FileBytes, OutgoingBody

FILE_NAME_LIMIT = 100
"""Characters of a file's name that are passed on."""

_unsafe = re.compile(r"[^A-Za-z0-9._-]+")


def write_form(boundary: str, texts: Iterable[tuple[str, str]], files: Iterable[tuple[str, Upload]]) -> OutgoingBody:
    """A form of these texts and files, each with the name of its field."""
    pieces: list[bytes | FileBytes] = [_text_part(boundary, name, text) for name, text in texts]
    for name, upload in files:
        pieces += _file_head(boundary, name, upload), FileBytes(upload), b"\r\n"
    pieces.append(f"--{boundary}--\r\n".encode())
    return OutgoingBody(f"multipart/form-data; boundary={boundary}", pieces)


def clean_file_name(given: str | None) -> str:
    """A name without folders or what could break out of its quotes; ``upload`` where nothing is left."""
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    return _unsafe.sub("_", last)[-FILE_NAME_LIMIT:].strip("._-") or "upload"


def _text_part(boundary: str, name: str, text: str) -> bytes:
    # A member of an object may have any name; what could end the header is escaped (WHATWG, multipart/form-data).
    name = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()


def _file_head(boundary: str, name: str, upload: Upload) -> bytes:
    file_name = clean_file_name(upload.file_name)
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
        f"Content-Type: {upload.kind}\r\n\r\n"
    ).encode()
