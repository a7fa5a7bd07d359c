from __future__ import annotations

import pytest

from proxy.web.server.sockets.address import PATH_BYTES_LIMIT, ListenAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8_080)),
        ("[::1]:0", ListenAddress("::1", 0)),
        ("localhost:65535", ListenAddress("localhost", 65_535)),
        ("unix:/run/lightmeter/public.sock", ListenAddress(path="/run/lightmeter/public.sock")),
        (f"unix:/{'a' * (PATH_BYTES_LIMIT - 1)}", ListenAddress(path=f"/{'a' * (PATH_BYTES_LIMIT - 1)}")),
    ],
)
def test_an_address_is_read(text: str, address: ListenAddress) -> None:
    assert ListenAddress.of(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "8080", ":8080", "::1:8080", "[::1:8080", "host:", "host:65536", "host:-1", "host:٣"),
        *(
            "unix:",
            "unix:public.sock",
            "unix:/run/",
            "unix:/a\0b",
            f"unix:/{'a' * PATH_BYTES_LIMIT}",
            "unix:/" + "ä" * 48,
        ),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="should "):
        ListenAddress.of(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("0.0.0.0:8080", "127.0.0.1:8080", True),
        ("0.0.0.0:8080", "10.0.0.1:8080", True),
        ("[::]:8080", "127.0.0.1:8080", True),
        ("[::]:8080", "[::1]:8080", True),
        ("[::]:8080", "0.0.0.0:8080", True),
        ("[::1]:8080", "[0:0::1]:8080", True),
        ("localhost:8080", "127.0.0.1:8080", True),
        ("localhost:8080", "[::1]:8080", True),
        ("images.test:8080", "images.test:8080", True),
        ("unix:/run/a.sock", "unix:/run/a.sock", True),
        ("127.0.0.1:8080", "127.0.0.1:8081", False),
        ("127.0.0.1:8080", "127.0.0.2:8080", False),
        ("0.0.0.0:8080", "[::1]:8080", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/run/a.sock", "unix:/run/b.sock", False),
        ("unix:/run/a.sock", "127.0.0.1:8080", False),
    ],
)
def test_addresses_that_cannot_both_be_listened_on(one: str, other: str, overlap: bool) -> None:
    assert ListenAddress.of(one).overlaps(ListenAddress.of(other)) is overlap
    assert ListenAddress.of(other).overlaps(ListenAddress.of(one)) is overlap
