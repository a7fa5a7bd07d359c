"""Forms taken apart: the same however they are cut, and refused by name where they are not what they should be."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import InvalidRequest, PayloadTooLarge, ProxyError, UnknownParameter
from proxy.domain.requests.edit import FieldKind
from proxy.web.intake.form_reader import HEADERS_LIMIT, TEXTS_LIMIT, Form, FormLimits, FormReader
from tests.support.forms import BOUNDARY, FORM, PNG, form, form_of, part
from tests.support.sources import Bytes

LIMITS = FormLimits(max_files=3, max_file_bytes=1_000, max_text_bytes=500)
BODY = form(
    part("prompt", "a cube"),
    part("image", PNG),
    part("n", "2"),
    part("mask", b"\r\n--b0undar\r\n--\r", kind="", file_name="m"),
)


def reader(limits: FormLimits = LIMITS, *, hashes: bool = True, kind: str = FORM) -> FormReader:
    return FormReader(kind, limits, Bytes(), kind_of_field, hashes=hashes)


def kind_of_field(name: str) -> FieldKind | None:
    if name in ("image", "mask"):
        return FieldKind.FILE
    return None if name.startswith("un") else FieldKind.TEXT


def read(body: bytes, cuts: list[int] | None = None) -> tuple[Form, bytes]:
    """The form, and what has to be stored of it, for a body that comes in pieces."""
    form_reader, stored = reader(), b""
    ends = [0, *sorted(cuts or []), len(body)]
    for begin, end in pairwise(ends):
        stored += b"".join(form_reader.feed(body[begin:end]))
    return form_reader.finish(), stored


def test_a_form_has_texts_and_files() -> None:
    whole, stored = read(BODY)
    image, mask = whole.files
    assert whole.texts == (("prompt", "a cube"), ("n", "2"))
    assert (image.name, image.file_name, image.kind, image.start, image.size_bytes) == (
        *("image", "cat.png", "image/png"), 0, len(PNG),
    )  # fmt: skip
    assert (mask.name, mask.kind, mask.start) == ("mask", "application/octet-stream", len(PNG))
    assert stored == PNG + b"\r\n--b0undar\r\n--\r"
    assert image.sha256 == hashlib.sha256(PNG).hexdigest()


def test_an_empty_text_in_a_files_place_is_one_left_out_and_any_other_is_refused() -> None:
    whole, stored = read(form(part("prompt", "a cube"), part("image", PNG), part("mask", "")))
    assert ([file.name for file in whole.files], whole.texts, stored) == (["image"], (("prompt", "a cube"),), PNG)
    with pytest.raises(InvalidRequest, match="'mask' should be a file") as caught:
        read(form(part("image", PNG), part("mask", "null")))
    assert caught.value.param == "mask"


def test_it_is_the_same_byte_by_byte_and_cut_in_two_anywhere() -> None:
    whole = read(BODY)
    assert read(BODY, list(range(len(BODY)))) == whole
    for at in range(len(BODY) + 1):
        assert read(BODY, [at]) == whole


@given(st.lists(st.binary(max_size=60).filter(bool), min_size=1, max_size=3), st.data())
def test_files_are_what_they_were(files: list[bytes], data: st.DataObject) -> None:
    if any(BOUNDARY.encode() in file for file in files):
        return
    body = form_of([("image", file) for file in files])
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    whole, stored = read(body, cuts)
    assert [stored[file.start : file.start + file.size_bytes] for file in whole.files] == files


def test_a_form_that_is_cut_is_never_whole() -> None:
    for end in range(len(BODY) - 2):
        with pytest.raises(InvalidRequest):
            read(BODY[:end])


@pytest.mark.parametrize(
    ("costly", "why"),
    [
        (f"\r\n--{BOUNDARY}x" * 100, "more boundaries"),
        (f"\r\n--{BOUNDARY}-x" * 100, "more boundaries"),
        (f"\r\n--{BOUNDARY}\rx" * 100, "more boundaries"),
        (f"\r\n--{BOUNDARY}" + " \t" * 1_000, "blanks"),
    ],
)
def test_what_is_parsed_byte_by_byte_is_refused_where_there_is_much_of_it(costly: str, why: str) -> None:
    form_reader = reader(FormLimits(max_files=3, max_file_bytes=10_000, max_text_bytes=10_000))
    with pytest.raises(InvalidRequest, match=why):
        form_reader.feed(part("image", PNG)[:-2] + costly.encode())


def test_as_many_parts_as_there_may_be_and_blanks_after_a_boundary_are_read() -> None:
    parts = [*[part(f"t{index}", "") for index in range(TEXTS_LIMIT)], *[part("image", PNG)] * LIMITS.max_files]
    blanks = form(*parts).replace(f"--{BOUNDARY}\r\n".encode(), f"--{BOUNDARY} \t\r\n".encode())
    body = f"--{BOUNDARY}\r\n".encode() + blanks.partition(b"\r\n")[2]
    for cuts in ([], list(range(len(body)))):
        whole, _ = read(body, cuts)
        assert (len(whole.texts), len(whole.files)) == (TEXTS_LIMIT, LIMITS.max_files)


def test_what_comes_after_the_end_is_not_read() -> None:
    assert read(BODY + b"epilogue")[0] == read(BODY)[0]


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (form(part("prompt", b"a file")), InvalidRequest, "prompt"),
        (form(part("image", "a text")), InvalidRequest, "image"),
        (form(part("picture", PNG)), InvalidRequest, "picture"),
        (form(part("unknown", PNG)), UnknownParameter, "unknown"),
        (form(part("unknown", "a text")), UnknownParameter, "unknown"),
        (form(part("image", b"")), InvalidRequest, "image"),
        (form(part("image", PNG, more="Content-Transfer-Encoding: base64\r\n")), InvalidRequest, "image"),
        (form(part("prompt", "x").replace(b' name="prompt"', b"")), InvalidRequest, None),
        (form(part("prompt", "x").replace(b"form-data", b"attachment")), InvalidRequest, None),
        (form(part("prompt", "x", more="content-disposition: form-data; name=n\r\n")), InvalidRequest, None),
        (form(part("prompt", "x", more="X: y\r\n" * HEADERS_LIMIT)), InvalidRequest, None),
        (form(part("prompt", "x", more=f"X: {'y' * 5_000}\r\n")), InvalidRequest, None),
        (form(part("prompt", "ä").replace("ä".encode(), b"\xe4")), InvalidRequest, "prompt"),
        (form(part("prompt", "x" * 501)), PayloadTooLarge, "prompt"),
        (form(part("prompt", "x" * 300), part("user", "x" * 300)), PayloadTooLarge, "user"),
        (form(part("image", b"x" * 1_001)), PayloadTooLarge, "image"),
        (form(*[part("image", PNG)] * 4), PayloadTooLarge, "image"),
        (form(*[part(f"t{index}", "") for index in range(TEXTS_LIMIT + 1)]), InvalidRequest, f"t{TEXTS_LIMIT}"),
        (b"no form at all", InvalidRequest, None),
        (b"preamble\r\n" + form(part("prompt", "x")), InvalidRequest, None),
        (b"", InvalidRequest, None),
    ],
)
def test_what_is_wrong_is_named(body: bytes, kind: type[ProxyError], param: str | None) -> None:
    with pytest.raises(kind) as caught:
        read(body)
    assert (type(caught.value), caught.value.param) == (kind, param)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"{FORM}{'x' * 300}",
        "multipart/form-data; boundary=€",
        "multipart/form-data; boundary=\udcff",
    ],
)
def test_a_form_needs_a_boundary(kind: str) -> None:
    with pytest.raises(InvalidRequest):
        reader(kind=kind)


def test_what_makes_two_forms_the_same_request() -> None:
    same = read(form(part("n", "2"), part("image", PNG), part("prompt", "a cube")))[0].identity()
    assert read(form(part("prompt", "a cube"), part("image", PNG), part("n", "2")))[0].identity() == same
    for other in (
        form(part("n", "1"), part("image", PNG), part("prompt", "a cube")),
        form(part("n", "2"), part("image", PNG + b"x"), part("prompt", "a cube")),
        form(part("n", "2"), part("mask", PNG), part("prompt", "a cube")),
    ):
        assert read(other)[0].identity() != same


def test_a_name_in_the_extended_form_is_a_files_as_well() -> None:
    body = form(part("image", PNG).replace(b'filename="cat.png"', b"filename*=utf-8''k%C3%A4tzchen.png"))
    assert read(body)[0].files[0].size_bytes == len(PNG)
