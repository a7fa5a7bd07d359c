from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy.upstream.connection import resolver as resolver_module
from proxy.upstream.connection.resolver import Resolver

Answers = list[tuple[Any, ...]]


def address(ip: str) -> tuple[Any, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80))


class Names:
    """Stands for the system's resolver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: Answers | OSError = [address("192.0.2.1"), address("192.0.2.2")]
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> Answers:
        assert (host, port) == ("a.example", 80)
        self.asked += 1
        await self.may_answer.wait()
        if isinstance(self.answers, OSError):
            raise self.answers
        return self.answers


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
async def resolver() -> Resolver:
    return Resolver(asyncio.get_running_loop())


async def first(resolver: Resolver) -> str:
    return str((await resolver.resolve("a.example", 80))[0][-1][0])


async def test_a_name_is_looked_up_once_and_its_addresses_take_turns(names: Names, resolver: Resolver) -> None:
    assert [await first(resolver) for _ in range(4)] == ["192.0.2.1", "192.0.2.2"] * 2
    assert names.asked == 1
    resolver.forget("a.example", 80)
    await first(resolver)
    assert names.asked == 2


async def test_a_name_is_looked_up_again_after_a_while(
    names: Names, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "TTL_S", 0.01)
    await first(resolver)
    await asyncio.sleep(0.02)
    names.answers = [address("192.0.2.9")]
    assert (await first(resolver), names.asked) == ("192.0.2.9", 2)


@pytest.mark.parametrize("fails", ["at once", "with nothing", "never"])
async def test_addresses_of_before_are_better_than_none(
    fails: str, names: Names, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "STALE_AFTER_S", 0.01)
    assert await first(resolver) == "192.0.2.1"
    (known,) = resolver._known.values()
    known.until_s = 0.0
    names.answers = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    if fails == "with nothing":
        names.answers = []
    elif fails == "never":
        names.may_answer.clear()
    # They are good for a while again: not every request waits for what does not come.
    assert [await first(resolver) for _ in range(2)] == ["192.0.2.2", "192.0.2.1"]
    assert names.asked == 2
    # What comes late is taken all the same.
    known.until_s, names.answers = 0.0, [address("192.0.2.9")]
    names.may_answer.set()
    assert await first(resolver) == "192.0.2.9"


async def test_all_who_ask_at_once_wait_for_one_lookup_and_who_leaves_ends_it_for_nobody(
    names: Names, resolver: Resolver
) -> None:
    names.may_answer.clear()
    asking = [asyncio.create_task(first(resolver)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    names.may_answer.set()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert set(map(str, ended[1:])) == {"192.0.2.1", "192.0.2.2"}
    assert names.asked == 1


async def test_who_waits_for_addresses_gets_them_though_another_forgets_those_of_before(
    names: Names, resolver: Resolver
) -> None:
    names.may_answer.clear()
    asking = asyncio.create_task(first(resolver))
    await asyncio.sleep(0)
    (lookup,) = resolver._lookups.values()
    lookup.add_done_callback(lambda _: resolver.forget("a.example", 80))
    names.may_answer.set()
    assert await asking == "192.0.2.1"


async def test_a_name_without_addresses_is_asked_for_again(names: Names, resolver: Resolver) -> None:
    names.answers = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for _ in range(2):
        with pytest.raises(OSError, match=r"a\.example has no address: Name or service not known"):
            await first(resolver)
    names.answers = []
    with pytest.raises(OSError, match=r"a\.example has no address"):
        await first(resolver)
    names.answers = [address("192.0.2.9")]
    assert (await first(resolver), names.asked) == ("192.0.2.9", 4)


async def test_an_address_is_not_looked_up(names: Names, resolver: Resolver) -> None:
    assert (await resolver.resolve("127.0.0.1", 81))[0][-1] == ("127.0.0.1", 81)
    assert (await resolver.resolve("::1", 81))[0][-1][:2] == ("::1", 81)
    assert names.asked == 0


async def test_what_is_remembered_is_bounded(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "HOSTS_MOST", 3)
    for number in range(10):
        await resolver.resolve(f"127.0.0.{number + 1}", 80)
    assert len(resolver._known) == 3


async def test_the_end_ends_what_is_looked_up(names: Names, resolver: Resolver) -> None:
    names.may_answer.clear()
    asking = asyncio.create_task(first(resolver))
    await asyncio.sleep(0)
    resolver.close()
    with pytest.raises(OSError, match="no address"):
        await asking
