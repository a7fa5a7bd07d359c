from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli.support.service_manager import ServiceManager, warn_of_its_limit


class Listener:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def heard(self) -> list[str]:
        """What came since the last time."""
        self._socket.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(self._socket.recv(65_536).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    opened = Listener(str(tmp_path / "notify"))
    yield opened
    opened.close()


@pytest.fixture
def manager(listener: Listener, tmp_path: Path) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})


def test_without_a_service_manager_nothing_is_sent(listener: Listener) -> None:
    manager = ServiceManager({"WATCHDOG_USEC": "1000"})
    manager.ready("here")
    manager.reloading()
    manager.stopping("gone", within_s=1)
    assert listener.heard() == []


def test_each_change_is_one_message(manager: ServiceManager, listener: Listener) -> None:
    manager.ready("listening")
    assert listener.heard() == ["READY=1\nSTATUS=listening"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    manager.reloading()
    (message,) = listener.heard()
    first, _, at = message.partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(at) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    manager.stopping("draining", within_s=310.5)
    assert listener.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=310500000\nSTATUS=draining"]


def test_an_abstract_socket_is_reached() -> None:
    name = f"lightmeter-{os.getpid()}-{time.monotonic_ns()}"
    listener = Listener(f"\0{name}")
    try:
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready("here")
        assert listener.heard() == ["READY=1\nSTATUS=here"]
    finally:
        listener.close()


def test_an_address_of_another_kind_is_reported_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({"NOTIFY_SOCKET": "vsock:2:1234"}).ready("here")
    assert "neither a path nor an abstract address" in caplog.text


def test_a_manager_that_is_gone_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nothing")})
    with caplog.at_level(logging.WARNING):
        manager.ready("here")
        manager.reloading()
    assert caplog.messages == ["the service manager was not told READY=1: No such file or directory"]


def pinged(listener: Listener, tmp_path: Path, **variables: str) -> ServiceManager:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **variables})
    manager.ready("here")
    assert listener.heard() == ["READY=1\nSTATUS=here"]
    return manager


async def pings(listener: Listener, at_least: int) -> int:
    """How many came, once there are so many; fails after 5 seconds."""
    heard: list[str] = []
    async with asyncio.timeout(5):
        while len(heard) < at_least:
            await asyncio.sleep(0.01)
            heard += listener.heard()
    assert set(heard) == {"WATCHDOG=1"}
    return len(heard)


async def test_the_event_loop_pings_the_watchdog_twice_in_its_time(listener: Listener, tmp_path: Path) -> None:
    manager = pinged(listener, tmp_path, WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid()))
    began = time.monotonic()
    count = await pings(listener, 3)
    assert time.monotonic() - began >= 0.1 * count - 0.02
    manager.ready("read again")
    assert (await pings_and_others(listener)).count("WATCHDOG=1") <= 2, "a reload starts no second pinging"
    manager.close()
    listener.heard()
    await asyncio.sleep(0.25)
    assert listener.heard() == []


async def pings_and_others(listener: Listener) -> list[str]:
    await asyncio.sleep(0.15)
    return listener.heard()


async def test_an_event_loop_that_stands_still_does_not_ping(listener: Listener, tmp_path: Path) -> None:
    manager = pinged(listener, tmp_path, WATCHDOG_USEC="100000")
    time.sleep(0.4)  # noqa: ASYNC251 - that is the fault
    assert listener.heard() == []
    await pings(listener, 1)
    manager.close()


@pytest.mark.parametrize(
    "variables",
    [{}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
)
async def test_who_is_not_asked_for_pings_sends_none(
    listener: Listener, tmp_path: Path, variables: dict[str, str]
) -> None:
    pinged(listener, tmp_path, **variables)
    await asyncio.sleep(0.1)
    assert listener.heard() == []


async def test_a_full_queue_holds_nobody_up(listener: Listener, tmp_path: Path) -> None:
    manager = pinged(listener, tmp_path, WATCHDOG_USEC="20000")
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filler.setblocking(False)
    with filler:
        try:
            while True:
                filler.sendto(b"STATUS=filler", str(tmp_path / "notify"))
        except BlockingIOError:
            pass
        began = time.monotonic()
        await asyncio.sleep(0.1)
        assert time.monotonic() - began < 5
    assert set(listener.heard()) <= {"STATUS=filler", "WATCHDOG=1"}
    await pings(listener, 1)
    manager.close()


@pytest.mark.parametrize(
    ("environment", "parent", "drain_s", "warned"),
    [
        ({"INVOCATION_ID": "a"}, 1, 300, True),
        ({"INVOCATION_ID": "a"}, 1, 60, False),
        ({"INVOCATION_ID": "a", "NOTIFY_SOCKET": "/run/notify"}, 1, 300, False),
        # A terminal of a desktop that systemd has started.
        ({"INVOCATION_ID": "a"}, 4711, 300, False),
        ({}, 1, 300, False),
    ],
)
def test_a_limit_that_is_shorter_than_the_drain_is_warned_of(
    environment: dict[str, str], parent: int, drain_s: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_its_limit(drain_s, environment, lambda: parent)
    assert ("server.drain_seconds is 300, and systemd kills" in caplog.text) is warned
