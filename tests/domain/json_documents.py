"""Images answers in every spelling that JSON allows, and what an ordinary JSON parser makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

from hypothesis import strategies as st

TOP_LEVEL = {"created", "data", "background", "output_format", "quality", "size"}
IN_AN_IMAGE = {"url", "b64_json", "revised_prompt", "media_type"}
PAYLOADS = {"url", "b64_json"}
ADDRESSES = ("http:", "https:", "data:image/")

# --- The reference: a whole document in memory, every object as its pairs, so that what is there twice is seen twice --


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was spelt."""

    spelling: str


Pairs: TypeAlias = "tuple[tuple[str, Any], ...]"


def parse(text: bytes) -> Any:
    """The document, objects as tuples of pairs. Raises ValueError for all that is not JSON, or no text in its names."""
    return json.loads(
        text.decode(),
        object_pairs_hook=_pairs,
        parse_int=Number,
        parse_float=Number,
        parse_constant=_no_constant,
    )


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    for name, _ in pairs:
        name.encode()
    return tuple(pairs)


def _no_constant(word: str) -> Any:
    raise ValueError(word)


def parse_object(text: bytes) -> Pairs | None:
    """The document, or None where it is no JSON object."""
    try:
        answer = parse(text)
    except ValueError:
        return None
    return answer if isinstance(answer, tuple) else None


def is_address(text: str) -> bool:
    """Whether it is the address of an image."""
    return text.lower().startswith(ADDRESSES)


def allowed(answer: Pairs) -> Pairs:
    """What the allow-list leaves of an answer: in an image, no string as ``url`` but an address."""
    return tuple(
        (name, [_image(image) for image in value if not isinstance(image, list)] if isinstance(value, list) else value)
        for name, value in answer
        if (name == "data" and isinstance(value, list)) or (name in TOP_LEVEL and _is_flat(value))
    )


def count_images(answer: Pairs) -> int:
    """The images of an answer that have a payload."""
    lists = [value for name, value in answer if name == "data" and isinstance(value, list)]
    return sum(
        any(name in PAYLOADS and isinstance(value, str) and value for name, value in _image(image))
        for images in lists
        for image in images
        if isinstance(image, tuple)
    )


def last_usage(answer: Pairs) -> Any:
    """The provider's usage, the last where there are several; None where there is none."""
    return next((value for name, value in reversed(answer) if name == "usage" and isinstance(value, tuple)), None)


def plain(value: Any) -> Any:
    """The value as ``json.loads`` gives it without hooks."""
    if isinstance(value, tuple):
        return {name: plain(inner) for name, inner in value}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return json.loads(value.spelling) if isinstance(value, Number) else value


def _image(image: Any) -> Any:
    if not isinstance(image, tuple):
        return image
    return tuple(
        (name, value)
        for name, value in image
        if name in IN_AN_IMAGE
        and _is_flat(value)
        and (name != "url" or not isinstance(value, str) or is_address(value))
    )


def _is_flat(value: Any) -> bool:
    return not isinstance(value, list | tuple)


# --- Writing: blanks anywhere, any character of a name escaped -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Raw:
    """A string or a literal, as it stands in the document."""

    text: bytes


Members: TypeAlias = "tuple[tuple[str, Node], ...]"
Node: TypeAlias = "Raw | list[Node] | Members"


@dataclass(frozen=True, slots=True)
class Document:
    """``payload_ends`` are the offsets, one for each image that has a payload, at which its first payload is whole."""

    text: bytes
    payload_ends: tuple[int, ...]


class _Writer:
    def __init__(self, blanks: Sequence[bytes], escapes: Sequence[bool]) -> None:
        self.text = bytearray()
        self._blanks: Iterator[bytes] = cycle(blanks)
        self._escapes: Iterator[bool] = cycle(escapes)

    def document(self, members: Members) -> Document:
        ends: list[int] = []
        self._mark(b"")
        for at, (name, value) in enumerate(members):
            self._member(at, name)
            if name == "data" and isinstance(value, list):
                self._images(value, ends)
            else:
                self._value(value)
        self._close(b"{}", bool(members))
        return Document(bytes(self.text), tuple(ends))

    def _images(self, images: list[Node], ends: list[int]) -> None:
        for at, image in enumerate(images):
            assert isinstance(image, tuple)
            self._mark(b"," if at else b"[")
            counted = False
            for inner_at, (name, value) in enumerate(image):
                self._member(inner_at, name)
                self._value(value, blank_after=False)
                if not counted and name in PAYLOADS and isinstance(value, Raw) and _is_payload(name, value):
                    counted = True
                    ends.append(len(self.text))
                self._mark(b"")
            self._close(b"{}", bool(image))
        self._close(b"[]", bool(images))

    def _value(self, value: Node, *, blank_after: bool = True) -> None:
        if isinstance(value, Raw):
            self.text += value.text
            if blank_after:
                self._mark(b"")
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                self._mark(b"," if at else b"[")
                self._value(inner)
            self._close(b"[]", bool(value))
        else:
            for at, (name, inner) in enumerate(value):
                self._member(at, name)
                self._value(inner)
            self._close(b"{}", bool(value))

    def _member(self, at: int, name: str) -> None:
        self._mark(b"," if at else b"{")
        self._mark(b'"' + "".join(map(self._character, name)).encode() + b'"')
        self._mark(b":")

    def _character(self, character: str) -> str:
        if next(self._escapes):
            units = character.encode("utf-16-be")
            return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
        return json.dumps(character, ensure_ascii=False)[1:-1]

    def _close(self, brackets: bytes, begun: bool) -> None:
        if not begun:
            self._mark(brackets[:1])
        self._mark(brackets[1:])

    def _mark(self, mark: bytes) -> None:
        self.text += mark + next(self._blanks)


def _is_payload(name: str, value: Raw) -> bool:
    if name == "url":
        text = json.loads(value.text)
        return isinstance(text, str) and is_address(text)
    return value.text.startswith(b'"') and value.text != b'""'


def write(members: Members, blanks: Sequence[bytes] = (b"",), escapes: Sequence[bool] = (False,)) -> Document:
    return _Writer(blanks, escapes).document(members)


# --- Making them up --------------------------------------------------------------------------------------------------

_LITERALS = [
    "true", "false", "null", "0", "-0", "7", "-1", "1744000000", "9007199254740993", "0.5", "-12.25", "10.0",
    "1e5", "1E5", "1e+5", "2E-5", "0e0", "1.5e300",
]  # fmt: skip
_FRAGMENTS = [
    "a", "A8BORw0KGgo=", "https://images.example/1.png?a=b&c=d", " ", "é", "€", "\U0001f600", "\u2028",
    "\\\\", "\\\\\\\\", '\\"', '\\\\\\"', "\\/", "\\n", "\\t", "\\u0022", "\\u005c", "\\u0000", "\\u00e9",
    "\\ud83d\\ude00", "{", "}", "[", "]", ",", ":", '\\"data\\":[', '\\"}]}', "null", "0",
]  # fmt: skip
_STRANGE_NAMES = [
    "", "Data", "data ", "dat", "datas", "é", "\U0001f600", 'a"b', "a\\", '"', "a\nb", "{", "url", "usage",
]  # fmt: skip
_AT_THE_TOP = [*sorted(TOP_LEVEL - {"data"}), "usage", "usage", "cost", "model", "url", "b64_json"]
_AN_IMAGES = [*sorted(IN_AN_IMAGE), *sorted(PAYLOADS), "usage", "data", "cost", "index"]

_literals = st.sampled_from(_LITERALS).map(lambda spelling: Raw(spelling.encode()))
_strings = st.lists(st.sampled_from(_FRAGMENTS), max_size=5).map(lambda parts: Raw(f'"{"".join(parts)}"'.encode()))
_filled_strings = _strings.filter(lambda string: string.text != b'""')
_strange_names = st.sampled_from(_STRANGE_NAMES)
_values: st.SearchStrategy[Node] = st.recursive(
    _strings | _literals,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.tuples(_strange_names | st.sampled_from(_AN_IMAGES), inner), max_size=3).map(tuple)
    ),
    max_leaves=6,
)
_LEADS = [
    "http:", "https:", "data:image/", "HTTPS:", "Data:Image\\/", "\\u0068ttp\\u003A", "h\\u0054tps:",
    "\\u0064ata:image\\u002f", "javascript:", "\\u006aavascript:", "file:", "data:text/", " https:", "\\nhttps:",
    "ht\\ttps:", "http\\u017f:", "//",
]  # fmt: skip
_addresses = st.builds(
    lambda lead, rest: Raw(b'"%b%b' % (lead.encode(), rest.text[1:])), st.sampled_from(_LEADS), _strings
)
_payloads: st.SearchStrategy[tuple[str, Node]] = st.tuples(
    st.just("b64_json"), _filled_strings | _filled_strings | _strings
) | st.tuples(st.just("url"), _addresses | _addresses | _strings)
_others: st.SearchStrategy[tuple[str, Node]] = st.tuples(
    st.sampled_from(_AN_IMAGES) | _strange_names, _strings | _values
)
_images: st.SearchStrategy[Node] = st.lists(_payloads | _payloads | _others, max_size=4).map(tuple)
_data: st.SearchStrategy[Node] = (
    st.lists(_images, min_size=1, max_size=4) | st.lists(_images, max_size=3) | st.just(Raw(b"null"))
)
_blanks = st.lists(st.sampled_from([b"", b"", b" ", b"\t", b"\r\n", b"\n  "]), min_size=1, max_size=7)
_escapes = st.just([False]) | st.lists(st.booleans(), min_size=1, max_size=7)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Valid images answers: an object with one ``data`` among other members."""
    members = draw(st.lists(st.tuples(st.sampled_from(_AT_THE_TOP) | _strange_names, _values), max_size=4))
    data = draw(_data)
    members.insert(draw(st.integers(0, len(members))), ("data", data))
    document = write(tuple(members), draw(_blanks), draw(_escapes))
    lead = draw(st.sampled_from([b"", b"", b" \r\n"]))
    return Document(lead + document.text, tuple(len(lead) + end for end in document.payload_ends))
