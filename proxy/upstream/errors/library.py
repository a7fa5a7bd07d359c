"""What the HTTP library raises, in our words: an error of the family, and a line for the log.

Its errors hold the request, the provider's key included: nothing of theirs is formatted here but a type, a status and a
message.
"""

from __future__ import annotations

import errno

import aiohttp

from proxy.domain.errors import NoConnectionLeft, UpstreamUncertain, UpstreamUnreachable

MESSAGE_LENGTH_LIMIT = 200
ERRORS_LIMIT = 100
"""Of a chain of errors; a name has fewer addresses."""

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def without_frames(error: BaseException) -> BaseException:
    """The same error, and those that led to it, without their tracebacks.

    A connection that fails keeps its errors in a list that a frame of their own tracebacks holds: the request and its
    socket would stay until the garbage collector comes.
    """
    waiting, seen = [error], 0
    while waiting and seen < ERRORS_LIMIT:
        one = waiting.pop()
        one.__traceback__ = None
        seen += 1
        led_to = (one.__cause__, one.__context__, getattr(one, "os_error", None))
        waiting += [each for each in led_to if isinstance(each, BaseException) and each.__traceback__ is not None]
    return error


def describe(error: BaseException) -> str:
    """Type, status and message, bounded."""
    if isinstance(error, aiohttp.ClientResponseError):
        message = f"{error.status}: {error.message}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        message = f"{error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    elif isinstance(error, OSError):
        message = error.strerror or str(error)
    else:
        message = str(error)
    return f"{type(error).__name__}: {message[:MESSAGE_LENGTH_LIMIT]}" if message else type(error).__name__


def before_it_was_sent(error: BaseException) -> UpstreamUnreachable:
    """The error where no connection came about, so that nothing of the request can have been sent."""
    os_error = getattr(error, "os_error", error)
    if isinstance(os_error, OSError) and os_error.errno in OUT_OF_DESCRIPTORS:
        return NoConnectionLeft("This gateway has no descriptor left for a connection; nothing was charged. Try again.")
    return UpstreamUnreachable("The provider cannot be reached; nothing was charged.")


def after_it_may_have_been_sent(error: BaseException) -> UpstreamUncertain:
    """The error where the provider may be at work on the request."""
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamUncertain("The provider's answer is no HTTP that can be read.")
    return UpstreamUncertain("The provider closed the connection without an answer.")
