from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from typing import cast

import pytest

from proxy.telemetry.metrics import Metrics
from proxy.web.server.connection import Connection
from proxy.web.server.descriptors import connection_caps, raise_descriptor_limit
from proxy.web.server.open_connections import LOOKED_AT_LIMIT, QUIET_S, OpenConnections
from proxy.web.server.strict_http import is_host


class FakeConnection:
    """What a connection is to those that count it."""

    def __init__(self, *, is_idle: bool) -> None:
        self.is_idle = is_idle
        self.looked_at = 0
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


class Clock:
    """Stands still unless it is moved."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def opened(limit: int, clock: Clock | None = None) -> OpenConnections:
    return OpenConnections("public", limit, Metrics(), lambda: "req_1", clock or Clock())


def admit(connections: OpenConnections, *idle: bool) -> list[FakeConnection]:
    made = [FakeConnection(is_idle=is_idle) for is_idle in idle]
    for connection in made:
        assert connections.admit(cast("Connection", connection))
    return made


def test_the_oldest_idle_one_makes_room() -> None:
    connections = opened(4)
    busy, idle, younger, _ = admit(connections, False, True, True, False)
    (new,) = admit(connections, True)
    assert [one.evicted for one in (busy, idle, younger, new)] == [False, True, False, False]
    admit(connections, False)
    assert younger.evicted
    assert not busy.evicted


def test_where_all_are_at_work_a_new_one_is_refused_until_one_has_ended() -> None:
    connections = opened(2)
    first, _ = admit(connections, False, False)
    assert not connections.admit(cast("Connection", FakeConnection(is_idle=True)))
    connections.remove(cast("Connection", first))
    admit(connections, True)


def test_many_busy_ones_hide_an_idle_one_only_for_a_while() -> None:
    connections = opened(3 * LOOKED_AT_LIMIT)
    admit(connections, *[False] * (3 * LOOKED_AT_LIMIT - 1))
    (idle,) = admit(connections, True)
    tries = 0
    while not connections.admit(cast("Connection", FakeConnection(is_idle=False))):
        tries += 1
    assert tries == 2
    assert idle.evicted


def test_the_log_tells_of_a_full_listener_once_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    connections = opened(1, clock)
    with caplog.at_level(logging.WARNING):
        admit(connections, *[True] * 10)
        assert len(caplog.records) == 1
        clock.now_s += QUIET_S
        admit(connections, True)
    assert "9 idle ones closed for new ones, 0 new ones refused" in caplog.messages[1]


def test_who_is_refused_is_told_in_the_form_of_all_errors() -> None:
    head, _, body = opened(1).full_answer().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
    for header in (b"x-request-id: req_1", b"Server: lightmeter", b"Connection: close", b"Retry-After: 1"):
        assert header in head.split(b"\r\n")


@pytest.fixture
def soft_limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(soft_limit: tuple[int, int]) -> None:
    _, hard = soft_limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    assert raise_descriptor_limit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.parametrize("descriptors", [64, 128, 256, 1_024, 20_000, 1_048_576])
def test_all_connections_together_leave_descriptors_for_everything_else(descriptors: int) -> None:
    caps = connection_caps(descriptors, None)
    assert caps.public >= 4
    assert caps.admin >= 8
    if descriptors >= 128:
        # Each request may need a connection to a provider, or a file for its upload.
        assert 2 * caps.public + caps.admin + 64 <= descriptors


def test_the_operator_may_ask_for_more_connections_but_not_for_all(caplog: pytest.LogCaptureFixture) -> None:
    assert connection_caps(1_024, 10).public == 10
    assert connection_caps(1_024, 700).public == 700
    assert not caplog.messages
    assert connection_caps(1_024, 5_000).public == 768
    assert "of 1024 descriptors only 768 are left" in caplog.text


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("lightmeter", True),
        ("a.b-c_d~e", True),
        ("10.0.0.1:65535", True),
        ("[2001:db8::1]:80", True),
        ("lightmeter:", False),
        ("lightmeter:0x50", False),
        ("lightmeter:65536", False),
        ("[2001:db8::1", False),
        ("[2001:db8::1::2]", False),
        ("[]", False),
        ("a b", False),
        ("a\tb", False),
        ("a@b", False),
        ("a,b", False),
        ("a/b", False),
        ("a\nb", False),
        ("a\n", False),
        ("ä", False),
        ("٣", False),
        ("a:٣", False),
        ("", False),
    ],
)
def test_a_host_is_one_name_or_address(text: str, good: bool) -> None:
    assert is_host(text) is good
