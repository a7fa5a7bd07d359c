"""A child process that this process has from a program whose place it took, and did not start itself."""

from __future__ import annotations

import asyncio
import os
import signal


class AdoptedChild:
    """As much of ``asyncio.subprocess.Process`` as its keeper needs."""

    def __init__(self, process_id: int) -> None:
        """A child of this process, which nobody else waits for."""
        self.pid = process_id
        self.returncode: int | None = None

    async def wait(self) -> int:
        """Its exit status, as soon as it has ended."""
        if self.returncode is None:
            self.returncode = await asyncio.to_thread(self._wait)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)

    def _wait(self) -> int:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            # It ended while the programs changed places.
            return -1
