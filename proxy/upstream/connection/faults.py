"""What can go wrong with a connection. What decides over money is whether anything of a request can have been sent.

None of these holds a request, a socket or another error: a message is all that is left of their causes.
"""

from __future__ import annotations


class ConnectFailed(Exception):
    """No connection came about, so that nothing of the request can have been sent; ``errno`` is the system's, or 0."""

    def __init__(self, message: str, errno: int = 0) -> None:
        """``message`` names the host, and says what went wrong."""
        super().__init__(message)
        self.errno = errno


class AnswerBroken(Exception):
    """The connection broke when the request, or some of it, may have been sent."""


class NotHttp(AnswerBroken):
    """What came is no answer of HTTP/1.0 or HTTP/1.1 (RFC 9112)."""
