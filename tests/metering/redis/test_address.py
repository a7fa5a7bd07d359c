from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url

from proxy.metering.redis.address import check_store_address

GOOD = [
    "redis://store",
    "redis://store:6379",
    "redis://store:6379/0",
    "redis://store/",
    "redis://:p%2Fa%3Fs%23s@store/3",
    "redis://ann:secret@[::1]:6379/0",
    "redis://store?db=2",
    "rediss://ann:p%40ss@store:6380?ssl_ca_certs=/etc/ca.crt&ssl_check_hostname=false&ssl_cert_reqs=none",
    "unix:///run/redis.sock",
    "unix://ann:secret@/run/redis.sock?db=1",
    "redis+sentinel://ann:secret@a:1,b,[::1]:3/quota?db=2&sentinel_password=s",
    "rediss+sentinel://ann:secret@a:1,b/quota?ssl_ca_certs=/etc/ca.crt&sentinel_tls=false&sentinel_password=s",
    "redis+cluster://ann:p%2Fa@a:1,b,[::1]:3",
    "rediss+cluster://a/?ssl_cert_reqs=none",
]
BAD = [
    ("redis://", "should be redis://"),
    ("redis://:6379", "should be redis://"),
    ("redis://store:notaport/0", "port from 1 to 65535"),
    ("redis://store:0", "port from 1 to 65535"),
    ("redis://store:70000", "port from 1 to 65535"),
    ("redis://a,b", "should be redis://"),
    ("redis://[::1", "brackets"),
    ("redis://store/zero", "number of a database"),
    ("redis://store/0/1", "number of a database"),
    ("redis://store#1", "fragment"),
    ("redis://store?nonsense=1", "may have only the options db, password, username"),
    ("redis://store?ssl_ca_certs=/etc/ca.crt", "may have only the options"),
    ("redis://store?db=x", "a number as its option db"),
    ("redis://store?db", "should be an address"),
    ("rediss://store?ssl_cert_reqs=no", "none, optional or required"),
    ("rediss://store?ssl_check_hostname=maybe", "true or false"),
    ("redis://:pa/ss@store", "%2F for /"),
    ("redis://:pa#ss@store", "%23 for #"),
    ("redis://:pa?ss@store", "%3F for \\?"),
    ("redis://:p/a?s#s@store", "%2F for /, %23 for #, %3F for \\?"),
    ("redis+sentinel://:pa/ss@a:1/quota", "%2F for /"),
    ("redis+sentinel://[::1/quota", "brackets"),
    ("redis+sentinel://a/quota?ssl_ca_certs=x", "may have only the options db"),
    ("redis+sentinel://a/quota?sentinel_tls=false", "may have only the options db"),
    ("rediss+sentinel://a/quota?sentinel_tls=no", "true or false as its option sentinel_tls"),
    ("rediss+sentinel://a/quota?ssl_cert_reqs=no", "none, optional or required"),
    ("redis+cluster://", "should be redis\\+cluster://host:port"),
    ("redis+cluster://a/1", "without a database"),
    ("redis+cluster://a,:7000", "name each node as host:port"),
    ("redis+cluster://a?db=1", "may have no options"),
    ("redis+cluster://:pa/ss@a", "%2F for /"),
    ("rediss+cluster://a?ssl_min_version=x", "a number as its option ssl_min_version"),
    ("unix://", "should be unix://"),
    ("unix://redis.sock", "should be unix://"),
    ("unix:///run/redis.sock?timeout=1", "may have only"),
    ("reds://store", "should be embedded:PATH, or begin with"),
]


@pytest.mark.parametrize("address", GOOD)
def test_a_good_address_is_one_for_the_library_as_well(address: str) -> None:
    check_store_address(address)
    if "+" not in address.partition(":")[0]:
        parse_url(address)


@pytest.mark.parametrize(("address", "why"), BAD)
def test_what_is_wrong_is_told(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_store_address(address)


SCHEMES = (
    *("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://", "redis+cluster://"),
    *("rediss+cluster://", "reds://", ""),
)


@given(st.sampled_from(SCHEMES), st.text(st.sampled_from("a1:/@?#[]&=%,. \n"), max_size=30), st.booleans())
def test_no_message_repeats_a_secret_and_nothing_else_is_raised(scheme: str, rest: str, before: bool) -> None:
    address = scheme + (f":hunter2{rest}" if before else f"{rest}hunter2")
    try:
        check_store_address(address)
    except ValueError as error:
        told = str(error)
    else:
        told = ""
        if "+" not in scheme:
            parse_url(address)
    assert "hunter2" not in told
