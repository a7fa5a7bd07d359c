"""Writing a multipart/form-data body (RFC 7578) anew: nothing of the client's framing reaches a provider.

File names and kinds are cleaned, and the length is known before a byte is sent. The boundary is the caller's to choose,
at random, so that no file can hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FILE_NAME_LIMIT = 100
"""Characters of a file's name that are passed on."""

_unsafe = re.compile(r"[^A-Za-z0-9._-]+")
_kind = re.compile(r"image/[a-z0-9][a-z0-9.+-]{0,60}")


def text_part(boundary: str, name: str, text: str) -> bytes:
    """A field, whole. ``name`` is one that this gateway knows."""
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()


def file_head(boundary: str, name: str, file_name: str | None, content_type: str | None) -> bytes:
    """What stands before a file's bytes; ``FILE_END`` follows them."""
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{clean_file_name(file_name)}"\r\n'
        f"Content-Type: {clean_kind(content_type)}\r\n\r\n"
    ).encode()


FILE_END = b"\r\n"


def closing(boundary: str) -> bytes:
    """The end of the body."""
    return f"--{boundary}--\r\n".encode()


def body_bytes(boundary: str, texts: Iterable[bytes], files: Iterable[tuple[bytes, int]]) -> int:
    """The length in bytes of a body of these fields, and of files given as what ``file_head`` made and their size."""
    heads = sum(len(head) + size + len(FILE_END) for head, size in files)
    return sum(map(len, texts)) + heads + len(closing(boundary))


def clean_file_name(given: str | None) -> str:
    """A name without folders or what could break out of its quotes; ``upload`` where nothing is left."""
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    return _unsafe.sub("_", last)[-FILE_NAME_LIMIT:].strip("._-") or "upload"


def clean_kind(given: str | None) -> str:
    """The kind of an image without its parameters; whatever else it is said to be goes on as plain bytes."""
    kind = (given or "").partition(";")[0].strip().lower()
    return kind if _kind.fullmatch(kind) else "application/octet-stream"
