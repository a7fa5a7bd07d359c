"""Forms as clients send them, written by hand, so that they can be written wrongly as well."""

from __future__ import annotations

from collections.abc import Iterable

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PNG = b"\x89PNG\r\n\x1a\n" + b"made up" * 4

Part = tuple[str, str | bytes]


def part(
    name: str, value: str | bytes, *, file_name: str = "cat.png", kind: str = "image/png", more: str = ""
) -> bytes:
    """One part: a text, or a file for bytes."""
    if isinstance(value, str):
        head, value = f'Content-Disposition: form-data; name="{name}"\r\n', value.encode()
    else:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
        head += f"Content-Type: {kind}\r\n" if kind else ""
    return f"--{BOUNDARY}\r\n{head}{more}\r\n".encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def form_of(parts: Iterable[Part]) -> bytes:
    """A whole body of plain parts; of files, only a PNG is said to be what it is."""
    return form(*(part(name, value, kind="image/png" if value[:4] == PNG[:4] else "") for name, value in parts))
