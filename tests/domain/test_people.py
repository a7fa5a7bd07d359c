from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import InvalidRequest
from proxy.domain.people import (
    NOBODY,
    TAG_PATTERN,
    TAGS_HEADER,
    TAGS_LIMIT,
    USER_LENGTH_LIMIT,
    People,
    Person,
    Users,
    parse_tags,
)

PLAIN = People()


def test_who_it_is_for_is_what_the_most_trusted_place_says() -> None:
    trusting = People(user_header="x-openwebui-user-email")
    headers = {"x-openwebui-user-email": "ann@example.com"}
    fields = {"safety_identifier": "safe", "user": "old"}
    assert trusting.read(headers, fields, "acme").user == "ann@example.com"
    assert trusting.read({}, fields, "acme").user == "safe"
    assert trusting.read({"x-openwebui-user-email": ""}, {"user": " old "}, "acme").user == "old"
    # Nobody can say who they are by a header that nobody trusts.
    assert PLAIN.read(headers, {}, "acme") is NOBODY
    assert PLAIN.read({}, {"user": 5}, "acme") is NOBODY


def test_users_are_recorded_as_the_operator_says() -> None:
    fields = {"user": "ann@example.com"}
    hashed = People(Users.HASHED)
    user = hashed.read({}, fields, "acme").user
    assert re.fullmatch(r"sha256:[0-9a-f]{32}", user)
    assert hashed.read({}, fields, "acme").user == user
    assert user not in {hashed.read({}, fields, "other").user, hashed.read({}, {"user": "bob"}, "acme").user}
    assert People(Users.NONE, "x-user").read({"x-user": "ann"}, fields, "acme") is NOBODY
    assert People(Users.NONE).read({TAGS_HEADER: "env=prod"}, fields, "acme") == Person("", (("env", "prod"),))


def test_a_user_that_is_too_long_is_hashed() -> None:
    assert PLAIN.read({}, {"user": "u" * USER_LENGTH_LIMIT}, "acme").user == "u" * USER_LENGTH_LIMIT
    assert PLAIN.read({}, {"user": "u" * (USER_LENGTH_LIMIT + 1)}, "acme").user.startswith("sha256:")
    assert People(Users.HASHED).read({}, {"user": "\ud800"}, "acme").user.startswith("sha256:")


def test_bytes_that_are_no_text_can_be_written_down() -> None:
    assert People(user_header="x-user").read({"x-user": "ann\udcff"}, {}, "acme").user == "ann?"


def test_tags_are_names_and_values() -> None:
    assert parse_tags("project=apollo, env=prod") == (("project", "apollo"), ("env", "prod"))
    assert parse_tags("a=b=c") == (("a", "b=c"),)
    assert Person("ann", parse_tags("a=b")).facts() == {"user": "ann", "tags": {"a": "b"}}
    assert (NOBODY.facts(), Person("ann").facts()) == ({}, {"user": "ann"})


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "=b", "a=", "a=b,", "a=b,a=c", "a b=c", "a=b c", "ä=b", "a=ä", "a=b;c=\x7f"),
        *("a" * 41 + "=b", "a=" + "b" * 101, ",".join(f"t{number}=x" for number in range(TAGS_LIMIT + 1))),
    ],
)
def test_what_are_no_tags_is_refused_by_the_headers_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        PLAIN.read({TAGS_HEADER: text}, {}, "acme")
    assert refused.value.param == TAGS_HEADER


@given(st.lists(st.from_regex(TAG_PATTERN, fullmatch=True), min_size=1, max_size=TAGS_LIMIT))
def test_tags_are_read_as_they_were_written(tags: list[str]) -> None:
    by_name = {tag.partition("=")[0]: tag for tag in tags}
    assert [f"{name}={value}" for name, value in parse_tags(" ,\t".join(by_name.values()))] == list(by_name.values())
