"""What a connection's faults mean: an error of the family, and a line for the log."""

from __future__ import annotations

import errno

from proxy.domain.errors import NoConnectionLeft, UpstreamUncertain, UpstreamUnreachable
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed, NotHttp

MESSAGE_LENGTH_LIMIT = 200
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def without_frames(error: BaseException) -> BaseException:
    """The same error without its traceback: the frames of that hold what was to be sent."""
    return error.with_traceback(None)


def describe(error: BaseException) -> str:
    """Type, status and message, bounded."""
    message = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{type(error).__name__}: {message[:MESSAGE_LENGTH_LIMIT]}" if message else type(error).__name__


def before_it_was_sent(error: ConnectFailed) -> UpstreamUnreachable:
    """The error where no connection came about, so that nothing of the request can have been sent."""
    if error.errno in OUT_OF_DESCRIPTORS:
        return NoConnectionLeft("This gateway has no descriptor left for a connection; nothing was charged. Try again.")
    return UpstreamUnreachable("The provider cannot be reached; nothing was charged.")


def after_it_may_have_been_sent(error: AnswerBroken) -> UpstreamUncertain:
    """The error where the provider may be at work on the request."""
    if isinstance(error, NotHttp):
        return UpstreamUncertain("The provider's answer is no HTTP that can be read.")
    return UpstreamUncertain("The provider closed the connection without an answer.")
