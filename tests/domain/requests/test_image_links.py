from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.catalog import Ability
from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.chat import ChatRequest, check_chat, parse_chat_request
from proxy.domain.requests.edit import parse_edit_request
from proxy.domain.requests.image_links import ADDRESS_LENGTH_LIMIT, check_link
from tests.domain.samples import make_model

PUBLIC = [
    "https://a.example/cat.png", "HTTPS://A.EXAMPLE/cat.png?a=b#c", "https://8.8.8.8/x", "https://[2606:4700::1111]:8443/x",
    "https://a.example:443/%2e/x", "https://localhost.example/x", "https://1a.example./x", "https://xn--bcher-kva.example/x",
]  # fmt: skip
INNER = [
    "https://localhost/x",
    "https://LOCALHOST./x",
    "https://a.localhost/x",
    "https://metadata.google.internal/x",
    "https://printer.local/x",
    "https://metadata/x",
    "https://127.0.0.1/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0x7f.1/x",
    "https://0177.0.0.1/x",
    "https://169.254.169.254/latest",
    "https://10.0.0.1/x",
    "https://192.168.1.1/x",
    "https://172.16.0.1/x",
    "https://100.64.0.1/x",
    "https://0.0.0.0/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[fe80::1]/x",
    "https://[fd00::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[::ffff:a9fe:a9fe]/x",
    "https://a.example@169.254.169.254/x",
    "https://u:p@a.example/x",
    "https://a.example\\\\@127.0.0.1/x",
    "https:///x",
    "https://a.example:99999/x",
    "https://a.example:x/",
    "https://[::1/x",
    "https://\uff11\uff12\uff17.0.0.1/x",
    "https://a .example/x",
    "https://a.example/\n",
    "https://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/x",
    "https://127.0.0.1%2f.a.example/x",
    "https://%31%32%37.0.0.1/x",
    "https://127.0.0.1./x",
    "https://a..example/x",
    "https://224.0.0.1/x",
    "https://[fe80::1%25eth0]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
]
OTHER_SCHEMES = [
    "http://a.example/x",
    "HTTP://a.example",
    "file:///etc/passwd",
    "gs://b/x",
    "ftp://a.example/x",
    "//a.example/x",
    "",
]


def chat(url: object, kind: str = "image_url", name: str = "content") -> ChatRequest:
    part = {"type": kind, kind: url}
    return parse_chat_request(
        orjson.dumps({"messages": [{"role": "user", name: [{"type": "text", "text": "hi"}, part]}]})
    )


def edit(address: str) -> None:
    parse_edit_request(orjson.dumps({"prompt": "a hat", "images": [{"image_url": address}]}))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_fetched(address: str) -> None:
    assert check_link(address, "image_url", "image_url")
    edit(address)
    assert chat({"url": address}).links
    assert chat(address).links


@pytest.mark.parametrize("address", [*INNER, *OTHER_SCHEMES], ids=ascii)
def test_no_other_address_may(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"image_url' should be") as caught:
        check_link(address, "image_url", "there")
    assert caught.value.param == "there"
    if address:
        with pytest.raises(InvalidRequest) as caught:
            edit(address)
        assert caught.value.param == "images[0].image_url"
    for url in (address, {"url": address, "detail": "low"}):
        for kind, name in (("image_url", "content"), ("video_url", "content"), ("image_url", "images")):
            with pytest.raises(InvalidRequest, match=rf"'messages\[0\]\.{name}\[1\]\.{kind}' should be") as caught:
                chat(url, kind, name)
            assert caught.value.param == "messages"


def test_an_address_has_a_bound_and_an_image_has_none() -> None:
    with pytest.raises(InvalidRequest, match="at most 8,192 characters"):
        check_link("https://a.example/" + "a" * ADDRESS_LENGTH_LIMIT, "image_url", "image_url")
    assert not check_link("data:image/png;base64," + "A" * 2 * ADDRESS_LENGTH_LIMIT, "image_url", "image_url")
    assert not chat({"url": "data:image/png;base64,AAAA"}).links


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for address in (text, f"https://{text}", f"https://a.example/{text}"):
        try:
            check_link(address, "image_url", "image_url")
        except InvalidRequest as error:
            refused = error
        else:
            continue
        assert refused.param == "image_url"


def test_a_model_may_fetch_nothing() -> None:
    linked, inline = chat("https://a.example/x"), chat("data:image/png;base64,AAAA")
    check_chat(linked, make_model(abilities=frozenset({Ability.LINKED_IMAGES})))
    check_chat(inline, make_model(abilities=frozenset()))
    with pytest.raises(InvalidRequest, match="fetches nothing") as caught:
        check_chat(linked, make_model(abilities=frozenset()))
    assert caught.value.param == "messages"
