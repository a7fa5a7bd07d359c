from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.errors import UpstreamUncertain
from proxy.upstream.decompression import STEP_BYTES, decompressed, decompression_of

TEXT = b'{"created":1,"data":[{"b64_json":"' + b"AbCd" * 40_000 + b'"}]}'


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def inflate(encoding: str, body: bytes, size: int = 1_000_000) -> bytes:
    """What comes out of a body that comes in pieces of ``size`` bytes, the first of them of two at least."""
    first = body[: max(2, size)]
    decompression = decompression_of(encoding, first)
    if decompression is None:
        return body
    taken = []
    for piece in (b"", *pieces(body[len(first) :], size)):
        decompression.feed(piece)
        while part := decompression.take():
            assert len(part) <= STEP_BYTES
            taken.append(part)
    decompression.finish()
    return b"".join(taken)


BODIES = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "in capitals": (" GZip ", gzip.compress(TEXT)),
    "not labelled": ("", gzip.compress(TEXT)),
    "labelled otherwise": ("br", gzip.compress(TEXT)),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "deflate without a header": ("deflate", raw_deflate(TEXT)),
    "several members": ("gzip", b"".join(gzip.compress(part) for part in pieces(TEXT, 50_000))),
    "members without content": ("gzip", gzip.compress(b"") * 50 + gzip.compress(TEXT) + gzip.compress(b"")),
    "padding": ("gzip", gzip.compress(TEXT) + b"\0" * 512),
    "something after it": ("gzip", gzip.compress(TEXT) + b"\r\nsomething"),
    "padding between members": ("gzip", gzip.compress(TEXT[:9]) + b"\0" * 7 + gzip.compress(TEXT[9:])),
}


@pytest.mark.parametrize(("encoding", "body"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("size", [1, 2, 7, 4_096, 1_000_000])
def test_what_is_compressed_is_read_however_it_is_cut(encoding: str, body: bytes, size: int) -> None:
    assert inflate(encoding, body, size) == TEXT


@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "x-gzip", "deflate", "utf-8", "none"])
@pytest.mark.parametrize(
    "body", [b'{"data":[]}', b" \n[1]", b"data: {}\n\n", b"event: x\ndata: 1\n\n", b"\xef\xbb\xbf{}"]
)
def test_what_is_labelled_as_compressed_and_is_not_stays_as_it_is(encoding: str, body: bytes) -> None:
    assert decompression_of(encoding, body) is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "sdch", "x" * 1_000, "\u00e9"])
def test_what_nobody_here_can_decompress_says_so(encoding: str) -> None:
    with pytest.raises(UpstreamUncertain, match=r"compressed \((br|zstd|compress|sdch|unknown)\)") as caught:
        decompression_of(encoding, b"\x1b\x00\xf8\x25")
    assert caught.value.headers() == {"x-should-retry": "false"}


@pytest.mark.parametrize(("encoding", "body"), [BODIES["gzip"], BODIES["deflate"], BODIES["several members"]])
def test_what_ends_too_early_broke_off(encoding: str, body: bytes) -> None:
    for end in (10, len(body) // 2, len(body) - 1):
        with pytest.raises(UpstreamUncertain, match="broke off"):
            inflate(encoding, body[:end])


def test_what_is_broken_cannot_be_decompressed() -> None:
    body = bytearray(gzip.compress(os.urandom(10_000)))
    body[-6] ^= 1
    with pytest.raises(UpstreamUncertain, match="cannot be decompressed"):
        inflate("gzip", bytes(body))
    with pytest.raises(UpstreamUncertain, match="cannot be decompressed"):
        inflate("deflate", b"\xff" * 100)


def test_a_bomb_comes_in_steps_and_takes_no_more_memory_than_one() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    decompression = decompression_of("", bomb)
    assert decompression is not None
    assert [len(decompression.take()) for _ in range(10)] == [STEP_BYTES] * 10
    assert len(decompressed("gzip", bomb, 100_000)) == 100_000


def test_a_refusal_is_read_as_far_as_it_goes() -> None:
    body = gzip.compress(TEXT)
    assert decompressed("gzip", body, 1_000_000) == TEXT
    assert TEXT.startswith(decompressed("gzip", body[:-20], 1_000_000))
    assert decompressed("br", b"\x1b\x00", 1_000_000) == b""
    assert decompressed("", b"plain", 1_000_000) == b"plain"
    assert decompressed("gzip", b"", 1_000_000) == b""


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 60))
@settings(max_examples=100, deadline=2_000)
def test_any_members_give_what_went_into_them(parts: list[bytes], size: int) -> None:
    assert inflate("gzip", b"".join(gzip.compress(part) for part in parts), size) == b"".join(parts)


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["", "gzip", "deflate", "br"]))
@settings(max_examples=200, deadline=2_000)
def test_no_body_is_too_odd(body: bytes, encoding: str) -> None:
    assert isinstance(decompressed(encoding, body, 10_000), bytes)
    assert isinstance(decompressed(encoding, b"\x1f\x8b\x08" + body, 10_000), bytes)
