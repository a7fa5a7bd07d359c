"""The processes of one gateway as one, by the names that prometheus_client has for a single one.

What a process has used is read from the kernel when it is asked, and once more when the process has ended.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROC = Path("/proc")
COMMAND_END = b") "
UTIME, STIME, START, VSIZE, RSS = 11, 12, 19, 20, 21
"""Fields of /proc/PID/stat behind the command, see proc(5)."""


class ProcessesCollector(Collector):
    """CPU seconds, memory and descriptors of this process and its workers together."""

    def __init__(self) -> None:
        """Of this process alone."""
        self.gone_cpu_s = 0.0
        """What processes have used that have ended."""
        self.process_ids: Iterable[int] = ()
        """Workers that live."""
        self.started_s = time.time()
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        with suppress(OSError):
            # Since the process began, and not since it has become another program.
            since_boot_s = int(_stat(os.getpid())[START]) / self._ticks
            self.started_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot_s

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client has them; nothing but the CPU seconds where there is no ``/proc``."""
        cpu_s, virtual, resident, descriptors = self.gone_cpu_s, 0, 0, 0
        for process_id in (os.getpid(), *self.process_ids):
            # One may end meanwhile.
            with suppress(OSError):
                stat = _stat(process_id)
                cpu_s += (int(stat[UTIME]) + int(stat[STIME])) / self._ticks
                virtual += int(stat[VSIZE])
                resident += int(stat[RSS]) * self._page_bytes
                descriptors += len(os.listdir(PROC / str(process_id) / "fd"))  # noqa: PTH208 - they are only counted
        yield CounterMetricFamily("process_cpu_seconds", "CPU seconds of all processes of the gateway", value=cpu_s)
        yield GaugeMetricFamily("process_start_time_seconds", "When the gateway was started", value=self.started_s)
        if resident:
            yield GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory of all processes", value=virtual)
            yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of all processes", value=resident)
            yield GaugeMetricFamily("process_open_fds", "Descriptors that all processes have open", value=descriptors)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield GaugeMetricFamily("process_max_fds", "Descriptors that each process may have open", value=most)


def _stat(process_id: int) -> list[bytes]:
    return (PROC / str(process_id) / "stat").read_bytes().rpartition(COMMAND_END)[2].split()
