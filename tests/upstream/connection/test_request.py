from __future__ import annotations

import pytest
from yarl import URL

from proxy.upstream.connection.request import HttpProxy, Origin, header_lines, make_route

PROXY = HttpProxy("http://me:p%40ss@proxy.example:3128")
PASSWORD = "Proxy-Authorization: Basic bWU6cEBzcw=="


def test_a_head_ends_where_its_length_goes() -> None:
    route = make_route("POST", URL("http://[::1]:8080/v1/x?a=b%20c"), {"Accept": "text/plain"})
    assert route.origin == Origin("::1", 8_080, False)
    assert route.head == b"POST /v1/x?a=b%20c HTTP/1.1\r\nHost: [::1]:8080\r\nAccept: text/plain\r\n"
    assert route.text(b"{}") == route.head + b"Content-Length: 2\r\n\r\n{}"
    assert route.text(b"{}", b"X: y\r\n") == route.head + b"X: y\r\nContent-Length: 2\r\n\r\n{}"
    assert route.head_for(7) == route.head + b"Content-Length: 7\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("https://a.example/", Origin("a.example", 443, True), b"a.example"),
        ("https://a.example:443/", Origin("a.example", 443, True), b"a.example"),
        ("http://a.example./", Origin("a.example", 80, False), b"a.example"),
        ("https://bücher.example:8443/", Origin("xn--bcher-kva.example", 8_443, True), b"xn--bcher-kva.example:8443"),
    ],
)
def test_whom_an_address_leads_to(url: str, origin: Origin, host: bytes) -> None:
    route = make_route("GET", URL(url), {})
    assert (route.origin, route.head) == (origin, b"GET / HTTP/1.1\r\nHost: %b\r\n" % host)


@pytest.mark.parametrize("url", ["/v1", "ftp://a.example/", "http:///x"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="host"):
        make_route("GET", URL(url), {})


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nX: b", "a\rX: b", "a\0"])
def test_no_header_begins_another(value: str) -> None:
    for headers in ({"Authorization": value}, {value: "x"}):
        with pytest.raises(ValueError, match="line's end"):
            make_route("POST", URL("http://provider.example/"), headers)
        with pytest.raises(ValueError, match="line's end"):
            header_lines(headers)


def test_a_proxy_is_asked_for_whole_addresses_without_tls() -> None:
    head = make_route("POST", URL("http://me:x@a.example:81/v1?q=%41#f"), {"X": "y"}, PROXY).head
    first, *lines = head.decode().split("\r\n")
    assert first == "POST http://a.example:81/v1?q=A HTTP/1.1"
    assert lines == ["Host: a.example:81", "X: y", PASSWORD, ""]


def test_with_tls_it_is_asked_for_a_tunnel_and_sees_nothing_else() -> None:
    assert PASSWORD not in make_route("POST", URL("https://a.example/v1"), {}, PROXY).head.decode()
    tunnel = PROXY.tunnel_head(Origin("a.example", 443, True)).decode()
    assert tunnel == f"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n{PASSWORD}\r\n\r\n"
    assert PROXY.tunnel_head(Origin("::1", 443, True)).startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")
    assert HttpProxy("http://proxy.example:3128").headers == {}
    assert PROXY.origin == Origin("proxy.example", 3_128, False)
