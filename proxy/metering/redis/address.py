"""Whether ``store.url`` is an address that can be reached, before anything is tried with it.

No message repeats a part of the address: any of it may be a password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlsplit

from proxy.metering.redis.cluster.address import SCHEMES as CLUSTER
from proxy.metering.redis.cluster.address import parse_cluster_url
from proxy.metering.redis.sentinel import SCHEMES as SENTINEL
from proxy.metering.redis.sentinel import parse_sentinel_url

SCHEMES = ("redis://", "rediss://", "unix://", *SENTINEL, *CLUSTER)
DELIMITERS = {"/": "%2F", "#": "%23", "?": "%3F"}
LAST_PORT = 65_535

_SHAPES = {
    "redis": "redis://[user:password@]host[:port][/database]",
    "rediss": "rediss://[user:password@]host[:port][/database]",
    "unix": "unix://[user:password@]/path/of/the/socket[?db=database]",
}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _any(_text: str) -> bool:
    return True


_PLAIN: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "db": (_is_number, "a number"),
    "username": (_any, "a text"),
    "password": (_any, "a text"),
}
_TLS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(
        ("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_ciphers", "ssl_keyfile", "ssl_password"),
        (_any, "a text"),
    ),
    "ssl_cert_reqs": (frozenset({"none", "optional", "required"}).__contains__, "none, optional or required"),
    "ssl_check_hostname": (frozenset({"true", "false", "True", "False"}).__contains__, "true or false"),
    "ssl_min_version": (_is_number, "a number"),
}


def check_store_address(text: str) -> None:
    """Refuse what is no address of a store. Raises ValueError, which says what would be right."""
    if not text.startswith(SCHEMES):
        raise ValueError(f"should be embedded:PATH, or begin with {', '.join(SCHEMES)}")
    _check_delimiters(text)
    try:
        if text.startswith((*SENTINEL, *CLUSTER)):
            urlsplit(text)
        else:
            _check(text)
    except _WrongAddress as error:
        raise ValueError(str(error)) from None
    except ValueError:
        # The library's messages repeat what they could not read.
        raise ValueError("should be an address; a host that is an IPv6 address stands in brackets") from None
    if text.startswith(SENTINEL):
        parse_sentinel_url(text)
    elif text.startswith(CLUSTER):
        parse_cluster_url(text)
    else:
        return
    _check_values(urlsplit(text).query, _TLS)


class _WrongAddress(ValueError):
    """In our words."""


def _check_delimiters(text: str) -> None:
    rest = text.partition("://")[2]
    at = rest.rfind("@")
    # The path of a socket may hold one.
    if at < 0 or text.startswith("unix://"):
        return
    wrong = [f"{escape} for {delimiter}" for delimiter, escape in DELIMITERS.items() if delimiter in rest[:at]]
    if wrong:
        raise ValueError(f"should have a user and password that are written as in a URL: {', '.join(wrong)}")


def _check(text: str) -> None:
    parts = urlsplit(text)
    shape = f"should be {_SHAPES[parts.scheme]}"
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or parts.path == "/":
            raise _WrongAddress(shape)
    else:
        try:
            is_good_port = parts.port is None or 0 < parts.port <= LAST_PORT
        except ValueError:
            is_good_port = False
        if not is_good_port:
            raise _WrongAddress(f"should have a port from 1 to {LAST_PORT}, or none: {shape}")
        if not parts.hostname or " " in parts.hostname or "," in parts.hostname:
            raise _WrongAddress(shape)
        if parts.path not in ("", "/") and not _is_number(parts.path[1:]):
            raise _WrongAddress(f"should have the number of a database as its path, or none: {shape}")
    if parts.fragment:
        raise _WrongAddress(f"should have no fragment: {shape}")
    _check_options(parts.query, {**_PLAIN, **_TLS} if parts.scheme == "rediss" else _PLAIN)


def _check_options(query: str, known: Mapping[str, tuple[Callable[[str], bool], str]]) -> None:
    for name, _value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        if name not in known:
            raise _WrongAddress(f"may have only the options {', '.join(sorted(known))}")
    _check_values(query, known)


def _check_values(query: str, known: Mapping[str, tuple[Callable[[str], bool], str]]) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        is_good, what = known.get(name, (_any, ""))
        if not is_good(value):
            raise _WrongAddress(f"should have {what} as its option {name}")
