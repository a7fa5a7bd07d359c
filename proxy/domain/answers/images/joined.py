"""One answer out of several, where a provider makes fewer images at once than were asked for."""

from __future__ import annotations

import contextlib

from typing_extensions import override

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.images.counter import SeenImages
from proxy.domain.answers.images.reader import ImagesReader, Reading
from proxy.domain.answers.images.writing import ImagesHead, ImagesJson, ImagesStream, ImagesWriter
from proxy.domain.errors import ProxyError, UpstreamUncertain
from proxy.domain.parsing.image_header import SIZES_LIMIT, Size
from proxy.domain.parsing.json_tokens import MalformedResponse
from proxy.domain.usage import add_usage


class JoinedImages(Answer):
    """Reads one body after the other, and writes all their images as one answer; a part that fails is left out."""

    complete = False
    whole = True

    def __init__(self, head: ImagesHead, *, stream: bool) -> None:
        """Start before the first part; the client has asked for a ``stream`` or has not."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self.told: list[tuple[str, str]] = []
        self.reports: list[tuple[int, bytes | None]] = []
        self._writer: ImagesWriter = ImagesStream(head) if stream else ImagesJson(head)
        self._seen = SeenImages()
        self._reader: ImagesReader | None = None
        self._before = 0
        self._out = b""
        self._error: Exception | None = None

    @property
    @override
    def content_type(self) -> str:
        return self._writer.content_type

    @property
    @override
    def comment(self) -> bytes:
        return self._writer.comment

    def begin_part(self, reading: Reading, *, comes_as_events: bool) -> None:
        """Another body begins."""
        self._before = self._seen.count
        self._reader = ImagesReader(reading, self._writer, comes_as_events=comes_as_events, seen=self._seen)

    @override
    def feed(self, piece: bytes) -> bytes:
        if self._reader is not None:
            try:
                self._out += self._reader.feed(piece)
            except (MalformedResponse, ProxyError) as error:
                self.fail_part(error)
            self._count()
        return self._take()

    def end_part(self) -> None:
        """The body is whole. Raises where an image was cut by what followed it."""
        reader = self._reader
        if reader is None:
            return
        try:
            reader.end()
            if self._seen.count == self._before:
                reader.check_reason()
        except (MalformedResponse, ProxyError) as error:
            self.fail_part(error)
            return
        self._end(reader)

    def note_failure(self, error: Exception) -> None:
        """A part has failed whose body is not the one that is read."""
        self._error = self._error or error

    def fail_part(self, error: Exception) -> None:
        """The body that is read has failed. Raises UpstreamUncertain where an image was cut by it."""
        self.note_failure(error)
        reader = self._reader
        if reader is None:
            return
        with contextlib.suppress(MalformedResponse):
            reader.break_off()
        self._end(reader)
        if reader.is_cut and not self._writer.cancel():
            raise UpstreamUncertain("The provider's answer broke off in an image.") from error

    @override
    def finish(self) -> bytes:
        if not self.images and self._error is not None:
            raise self._error
        return self._take() + self._writer.finish({}, self.usage)

    @override
    def break_off(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.break_off()
            self._account(reader)
        self._count()

    @override
    def close(self) -> bytes | None:
        end = self._writer.close({}, self.usage) if self.images else None
        return None if end is None else self._take() + end

    @override
    def write_error(self, error: ProxyError) -> bytes | None:
        return self._writer.write_error(error)

    def _end(self, reader: ImagesReader) -> None:
        self._reader = None
        self._account(reader)
        self._out += self._writer.take()

    def _account(self, reader: ImagesReader) -> None:
        self._count()
        self.usage = add_usage(self.usage, reader.usage)
        made = self.images - self._before
        if made or reader.usage is not None:
            self.reports.append((made, reader.usage))
        said = [*reader.told, *[("", "")] * made][:made]
        self.told += said[: SIZES_LIMIT - len(self.told)]

    def _take(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def _count(self) -> None:
        self.images, self.sizes = self._seen.count, self._seen.sizes
