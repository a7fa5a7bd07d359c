"""Tells systemd how the process is doing: sd_notify(3), one datagram a change to the socket in ``NOTIFY_SOCKET``.

Without that variable nothing is sent. A service manager that cannot be told never stops the gateway: the log has it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

SYSTEMD_STOP_S = 90
"""What systemd gives a service to stop, by default (DefaultTimeoutStopSec, systemd-system.conf(5))."""

SEND_TIMEOUT_S = 1.0
"""A manager whose queue is full for so long is not told. Pings of the watchdog do not wait at all."""


class ServiceManager:
    """Whoever started the process, where that is systemd or speaks as it does."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read what the manager asks for: where it listens, and whether it wants to be pinged."""
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._ping_every_s = _ping_every_s(environment) if self._address else 0.0
        self._ping: asyncio.TimerHandle | None = None
        self._silent = False

    def ready(self, status: str) -> None:
        """The gateway listens. The watchdog is pinged from now on; needs a running event loop."""
        self._tell("READY=1", f"STATUS={status}")
        if self._ping_every_s and self._ping is None:
            self._ping_later()

    def reloading(self) -> None:
        """The configuration is read again; ``ready`` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self, status: str, *, within_s: float) -> None:
        """The gateway drains and then ends; it asks for ``within_s`` seconds, where the unit gives it less."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}", f"STATUS={status}")

    def close(self) -> None:
        """Ping no more."""
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    def _ping_later(self) -> None:
        self._ping = asyncio.get_running_loop().call_later(self._ping_every_s, self._ping_now)

    def _ping_now(self) -> None:
        self._tell("WATCHDOG=1", timeout_s=0.0)
        self._ping_later()

    def _tell(self, *lines: str, timeout_s: float = SEND_TIMEOUT_S) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(timeout_s)
                sender.sendto("\n".join(lines).encode(), self._address)
            self._silent = False
        except OSError as error:
            if not self._silent:
                logger.warning("the service manager was not told %s: %s", lines[0], error.strerror or error)
            self._silent = True


def warn_of_its_limit(
    drain_s: float, environment: Mapping[str, str] = os.environ, parent: Callable[[], int] = os.getppid
) -> None:
    """Say so in the log where the manager may end the process before ``drain_s`` seconds have drained it.

    systemd grants more time to whoever asks for it by the socket; a unit that is not of ``Type=notify`` has none.
    """
    is_unit = "INVOCATION_ID" in environment and parent() == 1
    if is_unit and not environment.get("NOTIFY_SOCKET") and drain_s >= SYSTEMD_STOP_S:
        logger.warning(
            "server.drain_seconds is %g, and systemd kills a service after its TimeoutStopSec, %d seconds unless the "
            "unit says otherwise: set Type=notify, with which the gateway asks for the time, or raise TimeoutStopSec",
            *(drain_s, SYSTEMD_STOP_S),
        )


def _address(given: str) -> str:
    """A path as it is; in place of the ``@`` of an abstract address, the zero byte that the kernel has there."""
    if not given or given[0] == "/":
        return given
    if given[0] == "@":
        return "\0" + given[1:]
    logger.warning("NOTIFY_SOCKET holds neither a path nor an abstract address; the service manager is told nothing")
    return ""


def _ping_every_s(environment: Mapping[str, str]) -> float:
    """Half of what the manager waits for, see sd_watchdog_enabled(3); 0 where it does not wait for this process."""
    asked, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not asked.isdecimal() or process not in ("", str(os.getpid())):
        return 0.0
    return int(asked) / 2e6
