"""Errors that the people who run the gateway can do something about: its store, its disk, its room, its end."""

from __future__ import annotations

from proxy.domain.errors.base import Blame, ProxyError


class StoreUnavailable(ProxyError):
    """Redis cannot be asked; the provider was not called."""

    status = 503
    code = "store_unavailable"
    type = "service_unavailable"
    blame = Blame.OPERATOR
    retryable = True

    def __init__(self, *, may_have_happened: bool = False, refusal: str = "") -> None:
        """Ask for a retry after one second. ``may_have_happened`` is true where only the answer was lost.

        ``refusal`` is the error that the store answered with, where it did answer; clients never see it.
        """
        super().__init__("The quota store cannot be reached; nothing was charged. Try again.", retry_after_s=1)
        self.may_have_happened = may_have_happened
        self.refusal = refusal


class StoreBusy(StoreUnavailable):
    """Others use every connection for reading; the store itself may be well."""

    def __init__(self) -> None:
        """Ask for a retry after one second."""
        super().__init__()
        self.message = "Too many others read from the quota store now. Try again."
        self.args = (self.message,)


class StillCounting(StoreUnavailable):
    """A statement of a ledger of which very much has not been added up; what has been is kept."""

    def __init__(self, team: str) -> None:
        """Ask for a retry after one second: it goes on from there."""
        super().__init__()
        self.message = f"The ledger of '{team}' is long, and is still being added up. Ask again."
        self.args = (self.message,)


class JournalUnavailable(StoreUnavailable):
    """A settlement could not be kept, should Redis go away; the provider was not called."""

    def __init__(self) -> None:
        """Ask for a retry after five seconds."""
        super().__init__()
        self.message = "This gateway cannot write its journal; nothing was charged. Try again."
        self.args = (self.message,)
        self.retry_after_s = 5


class UploadsUnavailable(StoreUnavailable):
    """The folder for uploads takes no more; nothing was reserved."""

    def __init__(self) -> None:
        """Ask for a retry after ten seconds: other uploads make room when they end."""
        super().__init__()
        self.message = "This gateway has no room for uploads now; nothing was charged. Try again."
        self.args = (self.message,)
        self.retry_after_s = 10


class BodiesUnavailable(StoreUnavailable):
    """Others' large requests, or those of the same key, take all the memory there is for them; nothing was reserved."""

    def __init__(self) -> None:
        """Ask for a retry after five seconds: others make room when they end."""
        super().__init__()
        self.message = "This gateway has no memory for another large request now; nothing was charged. Try again."
        self.args = (self.message,)
        self.retry_after_s = 5


class TooManyConnections(ProxyError):
    """This gateway has as many connections as it may have, and all of them are at work."""

    status = 503
    code = "too_many_connections"
    type = "service_unavailable"
    blame = Blame.OPERATOR
    retryable = True

    def __init__(self) -> None:
        """Ask for a retry after one second."""
        super().__init__(
            "This gateway has no room for another connection; nothing was charged. Try again.", retry_after_s=1
        )


class ShuttingDown(ProxyError):
    """This process is going away; another one takes the retry."""

    status = 503
    code = "shutting_down"
    type = "service_unavailable"
    blame = Blame.OPERATOR
    retryable = True

    def __init__(self) -> None:
        """Ask for a retry after one second."""
        super().__init__("This gateway is shutting down; nothing was charged. Try again.", retry_after_s=1)
