"""What an answer looks like to whoever passes it on, whatever the provider speaks and the client has asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.domain.errors import ProxyError
from proxy.domain.parsing.image_header import Size

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

ErrorReader = Callable[[bytes], ProxyError]
"""The error that a provider reports within an answer, cleaned; given as JSON."""


class Answer(Protocol):
    """Feed it a provider's body as it comes, pass on what it returns; then ``finish``, or ``break_off`` where it does.

    After either, ``images`` counts those that were complete, ``sizes`` has the size of each where it is known, and
    ``usage`` is the provider's own account as JSON. ``told`` is what the answer says of the first images, each its
    quality and its size. An answer that was made of several ``reports`` the images and the usage of each.
    """

    __slots__ = ()

    images: int
    sizes: list[Size | None]
    usage: bytes | None
    told: Sequence[tuple[str, str]] = ()
    reports: Sequence[tuple[int, bytes | None]] = ()
    failure: ProxyError | None = None
    """What the provider has reported within the answer, where the client has been told of it there."""

    @property
    def content_type(self) -> str:
        """What the client is sent."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the end has been returned; what may follow is blank."""
        ...

    @property
    def whole(self) -> bool:
        """Whether a body that has ended held all that it promised."""
        ...

    @property
    def comment(self) -> bytes:
        """What may be sent now to show that the gateway lives; nothing where nothing may."""
        ...

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; return what may be passed on. Raises MalformedResponse or ProxyError."""
        ...

    def finish(self) -> bytes:
        """The body has ended: return what is left to be sent. Raises MalformedResponse or ProxyError."""
        ...

    def break_off(self) -> None:
        """The body has ended before its end: count what was complete."""
        ...

    @property
    def failed_in_stream(self) -> bool:
        """Whether the provider has reported an error in its stream, which is an event of the client's then, too."""
        return False

    def close(self) -> bytes | None:
        """After ``break_off``: what is to be sent yet, so that all that was complete is a whole answer.

        None where that cannot be, as where a part of something that is not complete was returned.
        """
        return None

    def write_error(self, error: ProxyError) -> bytes | None:
        """How the client learns of an error after the answer has begun; None where only by a cut connection."""
        ...
