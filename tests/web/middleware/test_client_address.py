from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from proxy.web.middleware.client_address import HOPS_LIMIT, ClientAddresses

PROXIES = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


def seen(peer: str, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = CIMultiDict([("X-Forwarded-For", value) for value in forwarded])
    request = make_mocked_request("GET", "/", headers).clone(remote=peer)
    return ClientAddresses(trusted).of(request)


@pytest.mark.parametrize("peer", ["203.0.113.7", "2001:db8::1", "127.0.0.2", ""])
def test_who_is_not_trusted_is_the_client_whatever_it_writes(peer: str) -> None:
    assert seen(peer, "198.51.100.1") == peer


def test_without_trusted_proxies_the_header_is_nothing() -> None:
    assert seen("127.0.0.1", "198.51.100.1", trusted=()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        (["198.51.100.1", "10.1.2.3 ,10.9.9.9"], "198.51.100.1"),
        (["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        (["6.6.6.6", "198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        (["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["2001:DB8::1"], "2001:db8::1"),
        (["[2001:db8::1]:4711, fd00::2"], "2001:db8::1"),
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["::ffff:198.51.100.1, ::ffff:10.0.0.1"], "198.51.100.1"),
        (["198.51.100.1, unknown, 10.1.2.3"], "10.1.2.3"),
        (["unknown"], "127.0.0.1"),
        (["198.51.100.1, "], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
        (["198.51.100.1 or so"], "127.0.0.1"),
        (["fe80::1%eth0"], "fe80::1"),
    ],
)
def test_the_header_is_read_from_its_end_for_as_long_as_its_writers_are_trusted(
    forwarded: list[str], client: str
) -> None:
    assert seen("127.0.0.1", *forwarded) == client


def test_a_mapped_address_of_a_trusted_proxy_is_trusted() -> None:
    assert seen("::ffff:127.0.0.1", "198.51.100.1") == "198.51.100.1"


def test_an_ipv4_client_of_an_ipv6_socket_is_called_by_its_ipv4_address() -> None:
    assert seen("::ffff:203.0.113.7") == "203.0.113.7"
    assert seen("::ffff:203.0.113.7", trusted=()) == "203.0.113.7"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        (("unix",), ["198.51.100.1"], "198.51.100.1"),
        (("unix", "10.0.0.0/8"), ["198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        (("unix",), ["198.51.100.1, 10.1.2.3"], "10.1.2.3"),
        (("unix",), ["unix"], "unix"),
        (("unix",), [], "unix"),
        (PROXIES, ["198.51.100.1"], "unix"),
        ((), ["198.51.100.1"], "unix"),
    ],
)
def test_who_calls_through_a_unix_socket_is_believed_where_that_is_trusted(
    trusted: tuple[str, ...], forwarded: list[str], client: str
) -> None:
    headers = CIMultiDict([("X-Forwarded-For", value) for value in forwarded])
    request = make_mocked_request("GET", "/", headers).clone(remote="")
    assert ClientAddresses(trusted, through_unix=True).of(request) == client


def test_trusting_unix_sockets_trusts_no_address() -> None:
    assert seen("127.0.0.1", "198.51.100.1", trusted=("unix",)) == "127.0.0.1"


def test_a_long_header_is_looked_at_as_far_as_its_bound() -> None:
    beyond = "6.6.6.6," + ",".join(["10.0.0.1"] * HOPS_LIMIT)
    assert seen("127.0.0.1", beyond) == "10.0.0.1"
    assert seen("127.0.0.1", "6.6.6.6," + ",".join(["10.0.0.1"] * (HOPS_LIMIT - 1))) == "6.6.6.6"
