"""A multipart/form-data body (RFC 7578) taken apart as it comes. It reads nothing itself, and keeps no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from proxy.domain.errors import InvalidRequest, PayloadTooLarge, UnknownParameter
from proxy.domain.requests.edit import FieldKind
from proxy.domain.requests.inputs import SIGNATURE_BYTES, Source, Upload, kind_of_file
from proxy.domain.requests.kinds import excerpt

MULTIPART = "multipart/form-data"
TEXTS_LIMIT = 64
HEADERS_LIMIT = 16
HEADER_BYTES_LIMIT = 4_096
PADDING_LIMIT = 1_000
"""Blanks after a boundary, in one piece of the body."""

PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
"""Of a part: that its bytes are what they are."""


@dataclass(frozen=True, slots=True)
class FormLimits:
    """How much a form may hold: files, bytes in each of them, and bytes in all its texts together."""

    max_files: int
    max_file_bytes: int
    max_text_bytes: int


@dataclass(frozen=True, slots=True)
class Form:
    """A form that is whole: its texts and files, each in the order in which they came."""

    texts: tuple[tuple[str, str], ...]
    files: tuple[Upload, ...]

    def identity(self) -> bytes:
        """What makes it the same request as another one: not its boundary, nor the order of its texts."""
        return orjson.dumps([sorted(self.texts), [(file.name, file.sha256) for file in self.files]])


@dataclass(slots=True)
class _Gathered:
    """What has come of a form; ``stored`` are bytes of files that nobody has taken yet."""

    limits: FormLimits
    source: Source
    hashes: bool
    texts: list[tuple[str, str]] = field(default_factory=list)
    files: list[Upload] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    text_bytes: int = 0
    file_bytes: int = 0


class _TextPart:
    def __init__(self, form: _Gathered, name: str) -> None:
        self._form = form
        self._name = name
        self._text = bytearray()

    def add(self, piece: bytes) -> None:
        form = self._form
        form.text_bytes += len(piece)
        if form.text_bytes > form.limits.max_text_bytes:
            raise PayloadTooLarge(
                f"The form's texts have more than the {form.limits.max_text_bytes:,} bytes that this gateway reads.",
                param=excerpt(self._name),
            )
        self._text += piece

    def end(self) -> None:
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"'{excerpt(self._name)}' should be UTF-8 text.", param=excerpt(self._name)) from None
        self._form.texts.append((self._name, text))


class _LeftOut:
    """An empty text in a file's place, which is no more than one that was left out."""

    def __init__(self, name: str) -> None:
        self._name = name

    def add(self, _piece: bytes) -> None:
        raise InvalidRequest(f"'{self._name}' should be a file, sent with a file name.", param=self._name)

    def end(self) -> None: ...


class _FilePart:
    def __init__(self, form: _Gathered, name: str, file_name: str, kind: str | None) -> None:
        self._form = form
        self._name = name
        self._file_name = file_name
        self._kind = kind
        self._begin = b""
        self._size_bytes = 0
        self._digest = sha256() if form.hashes else None

    def add(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        if self._size_bytes > self._form.limits.max_file_bytes:
            raise PayloadTooLarge(
                f"'{self._name}' is larger than the {self._form.limits.max_file_bytes:,} bytes that a file may have.",
                param=self._name,
            )
        if len(self._begin) < SIGNATURE_BYTES:
            self._begin += piece[:SIGNATURE_BYTES]
        if self._digest is not None:
            self._digest.update(piece)
        self._form.stored.append(piece)

    def end(self) -> None:
        form = self._form
        if not self._size_bytes:
            if not self._file_name:
                # How a browser sends the input of a file that nobody chose.
                return
            raise InvalidRequest(f"'{self._name}' should be a file that is not empty.", param=self._name)
        form.files.append(
            Upload(
                name=self._name,
                file_name=self._file_name,
                kind=kind_of_file(self._kind, self._begin[:SIGNATURE_BYTES]),
                start=form.file_bytes,
                size_bytes=self._size_bytes,
                source=form.source,
                sha256="" if self._digest is None else self._digest.hexdigest(),
            )
        )
        form.file_bytes += self._size_bytes


class FormReader:
    """Feed it the body; it gives back what belongs to files, to be stored one after the other."""

    def __init__(
        self,
        content_type: str,
        limits: FormLimits,
        source: Source,
        kind_of_field: Callable[[str], FieldKind | None],
        *,
        hashes: bool = False,
    ) -> None:
        """``content_type`` is the header's, with the boundary; ``kind_of_field`` says what belongs into a field, None
        where nobody knows it.

        Files are said to lie in ``source``; with ``hashes``, they have a SHA-256. Raises InvalidRequest.
        """
        options = parse_options_header(content_type)[1] if content_type.isascii() else {}
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest("The header 'Content-Type' of a form should have its boundary, in ASCII.")
        self._kind_of_field = kind_of_field
        self._form = _Gathered(limits, source, hashes)
        self._headers: dict[bytes, str] = {}
        self._header_name, self._header_value = bytearray(), bytearray()
        self._part: _TextPart | _FilePart | _LeftOut | None = None
        self._ended = False
        self._delimiter = b"\r\n--" + boundary
        self._delimiters_left = TEXTS_LIMIT + limits.max_files
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_to_name,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_to_part,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                max_header_count=HEADERS_LIMIT,
                max_header_size=HEADER_BYTES_LIMIT,
            )
        except FormParserError as error:
            raise _malformed(str(error)) from None

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next piece; return the bytes of files in it. Raises InvalidRequest or PayloadTooLarge."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _malformed(str(error)) from None
        self._check_effort(piece)
        stored, self._form.stored = self._form.stored, []
        return stored

    def finish(self) -> Form:
        """The body has ended. Raises InvalidRequest where it has not said so itself."""
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        return Form(tuple(self._form.texts), tuple(self._form.files))

    def _check_effort(self, piece: bytes) -> None:
        """Refuse what the parser looks at byte by byte, hundreds of times as slowly as at a file, if there is much."""
        if self._ended:
            return
        self._delimiters_left -= piece.count(self._delimiter)
        if self._delimiters_left < 0:
            raise _malformed("it has more boundaries than it may have parts")
        in_padding = self._parser.state is MultipartState.BOUNDARY_PADDING
        if in_padding and len(piece) > PADDING_LIMIT and piece[-PADDING_LIMIT:].isspace():
            raise _malformed("a boundary is followed by too many blanks")

    # --- What the parser reports --------------------------------------------------------------------------------------

    def _begin_part(self) -> None:
        self._headers, self._part = {}, None

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name = bytes(self._header_name).lower()
        if name in self._headers:
            raise _malformed("a part has the same header twice")
        self._headers[name] = self._header_value.decode("latin-1").strip()
        self._header_name, self._header_value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        given = self._headers.get(b"content-disposition", "")
        disposition, options = parse_options_header(given)
        name = options.get(b"name", b"").decode(errors="replace")
        if disposition != b"form-data" or not name:
            raise InvalidRequest("Each part of the form should have a Content-Disposition with a name.")
        if self._headers.get(b"content-transfer-encoding", "").lower() not in PLAIN_ENCODINGS:
            raise InvalidRequest(
                f"'{excerpt(name)}' should be sent without Content-Transfer-Encoding.", param=excerpt(name)
            )
        # A name in the extended form alone is not read (RFC 7578 section 4.2), but it is a file's.
        is_file = b"filename" in options or "filename*=" in given.lower()
        kind = self._check_kind(name, is_file=is_file)
        if is_file:
            if len(self._form.files) == self._form.limits.max_files:
                raise PayloadTooLarge(f"The form has more than {self._form.limits.max_files} files.", param=name)
            file_name = options.get(b"filename", b"").decode(errors="replace")
            self._part = _FilePart(self._form, name, file_name, self._headers.get(b"content-type"))
            return
        if kind is FieldKind.FILE:
            self._part = _LeftOut(name)
            return
        if len(self._form.texts) == TEXTS_LIMIT:
            raise InvalidRequest(f"The form has more than {TEXTS_LIMIT} texts.", param=excerpt(name))
        self._part = _TextPart(self._form, name)

    def _check_kind(self, name: str, *, is_file: bool) -> FieldKind:
        """Here, and not when all of it has come: a client need not send the rest of what is refused anyway."""
        kind = self._kind_of_field(name)
        if kind is None:
            raise UnknownParameter(f"Unknown parameter: '{excerpt(name)}'.", param=excerpt(name))
        if kind is FieldKind.TEXT and is_file:
            raise InvalidRequest(f"'{name}' should be a text, not a file.", param=name)
        return kind

    def _add_to_part(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.add(data[start:end])

    def _end_part(self) -> None:
        if self._part is not None:
            self._part.end()

    def _end(self) -> None:
        self._ended = True


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"The request body is not a valid form (multipart/form-data): {why}.")
