"""Where a provider may send the gateway, and where not, however it spells it."""

from __future__ import annotations

import pytest
from yarl import URL

from proxy.upstream.polled.hosts import AllowedHosts, check_host

HOSTS = AllowedHosts(
    ["*.bfl.ai", "delivery.example", "files.example:8443", "http://127.0.0.1:9000", "http://localhost"],
    URL("http://provider.internal:7000/v1"),
)


@pytest.mark.parametrize(
    "address",
    [
        "https://api.eu4.bfl.ai/v1/get_result?id=1",
        "https://API.US1.BFL.AI/v1",
        "https://delivery.example/a.png?sig=a%2Bb%2F%3D",
        "https://delivery.example:443/a.png",
        "https://delivery.example./a.png",
        "https://files.example:8443/a.png",
        "http://127.0.0.1:9000/a.png",
        "http://localhost/a.png",
        "http://provider.internal:7000/elsewhere",
    ],
)
def test_what_is_listed_is_read_as_it_is_spelt(address: str) -> None:
    url = HOSTS.read(address)
    assert url is not None
    assert url.raw_path_qs in str(url)
    assert str(url).endswith(address.partition("//")[2].partition("/")[2])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/v1/get_result",
        "//api.bfl.ai/x",
        "http://api.bfl.ai/x",
        "https://bfl.ai/x",
        "https://evilbfl.ai/x",
        "https://api.bfl.ai.evil.example/x",
        "https://api.bfl.ai@evil.example/x",
        "https://api.bfl.ai:443@evil.example/x",
        "https://user@api.bfl.ai/x",
        "https://:secret@api.bfl.ai/x",
        "https://api.bfl.ai:8443/x",
        "https://evil.example\\@api.bfl.ai/x",
        "https://evil.example#@api.bfl.ai/x",
        "https://evil.example?@api.bfl.ai/x",
        "https://api.bfl.ai\r\nX: y/x",
        "https://api.bfl.ai /x",
        "https://delivery.example/\u00e9.png",
        "https://delivery.example:99999/x",
        "https://sub.delivery.example/x",
        "https://files.example/x",
        "https://127.0.0.1:9000/x",
        "http://127.0.0.1:9001/x",
        "http://127.0.0.1/x",
        "http://[::1]:9000/x",
        "http://2130706433:9000/x",
        "https://169.254.169.254/latest/meta-data",
        "http://provider.internal/x",
        "https://provider.internal:7000/x",
        "file:///etc/passwd",
        "ftp://api.bfl.ai/x",
        "https://delivery.example/" + "x" * 9_000,
    ],
)
def test_nothing_else_is(address: str) -> None:
    assert HOSTS.read(address) is None


def test_the_key_of_one_host_does_not_go_to_all_of_them() -> None:
    assert AllowedHosts(["delivery.example"]).read("http://provider.internal:7000/x") is None


@pytest.mark.parametrize("entry", ["delivery.example", "*.Delivery.example", "a:8443", "[::1]", "http://[::1]:1"])
def test_a_host_that_can_be_listed(entry: str) -> None:
    assert check_host(entry) == entry.lower()


@pytest.mark.parametrize(
    "entry",
    [
        "", "*", "*.", "*.com", "a.*.b", "https://a.example", "a.example/x", "a.example:0", "a.example:70000", "a b",
        "http://a.example", "http://10.0.0.1", "user@a.example",
    ],
)  # fmt: skip
def test_a_host_that_cannot_be(entry: str) -> None:
    with pytest.raises(ValueError, match="should be"):
        check_host(entry)
