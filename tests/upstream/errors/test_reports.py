from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.upstream.errors.reports import ErrorReport, read_report

GOOGLE = "type.googleapis.com/google.rpc."
DETAILS = [
    {"@type": f"{GOOGLE}ErrorInfo", "reason": "IMAGE_SIZE_NOT_SUPPORTED", "domain": "googleapis.com"},
    {"@type": f"{GOOGLE}BadRequest", "fieldViolations": [{"field": "image_config", "description": "no such size"}]},
    {"@type": f"{GOOGLE}RetryInfo", "retryDelay": "34.074824224s"},
    {"@type": f"{GOOGLE}Help", "links": [{"url": "https://example.com"}]},
    {"@type": 7},
]


def read(report: object) -> ErrorReport:
    return read_report(orjson.dumps(report))


LOCALIZED = {"@type": f"{GOOGLE}LocalizedMessage", "locale": "en-US", "message": "no people, please"}
PRECONDITION = {
    "@type": f"{GOOGLE}PreconditionFailure",
    "violations": [
        {"type": "TOS", "subject": "google.com/x", "description": "Accept the terms."},
        {"type": "REGION", "subject": "project/7"},
    ],
}
QUOTA = {
    "@type": f"{GOOGLE}QuotaFailure",
    "violations": [{"subject": "project:7", "description": "Quota exceeded for images per day."}],
}


def google(message: object, *details: object) -> dict[str, Any]:
    """As https://google.aip.dev/193 has it."""
    return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}}


MESSAGES: list[tuple[Any, str]] = [
    ({"error": {"message": "bad"}}, "bad"),
    ({"error": "bad"}, "bad"),
    ([{"error": {"message": "bad"}}], "bad"),
    ({"error": {"error": {"message": "bad"}}}, "bad"),
    ({"error": {"error": "bad"}}, "bad"),
    ({"error": ["bad", "worse"]}, "bad; worse"),
    ({"error": [{"message": "bad"}]}, "bad"),
    ({"error": '{"error": {"message": "bad"}}'}, "bad"),
    ({"error": {"message": '{"detail": "bad"}'}}, "bad"),
    ({"error": {"message": "{not JSON}"}}, "{not JSON}"),
    ({"detail": "bad"}, "bad"),
    ({"detail": {"message": "bad", "code": 7}}, "bad"),
    ({"detail": {"error": {"message": "bad"}}}, "bad"),
    ({"detail": [{"loc": ["body", "size"], "msg": "not a size", "type": "value_error"}]}, "size: not a size"),
    ({"detail": [{"loc": ["body", "images", 0, "url"], "msg": "x"}]}, "images[0].url: x"),
    ({"detail": [{"loc": ["body", "a"], "msg": "x"}, {"loc": ["body", "b"], "msg": "y"}]}, "a: x; b: y"),
    ({"detail": [{"loc": [], "msg": "x"}]}, "x"),
    ({"detail": [{"msg": "x"}]}, "x"),
    ({"message": "bad"}, "bad"),
    ({"message": ["bad", "worse"], "error": "Bad Request", "statusCode": 400}, "bad; worse; Bad Request"),
    ({"msg": "bad"}, "bad"),
    ({"errors": ["bad"]}, "bad"),
    ({"errors": [{"message": "bad"}, {"message": "worse"}]}, "bad; worse"),
    ({"errors": {"message": "bad"}}, "bad"),
    ({"errors": [{"message": "bad"}, {"message": "bad"}]}, "bad"),
    ({"id": "x", "name": "bad_request", "errors": ["size: is required"]}, "size: is required"),
    ({"error": "invalid_request", "error_description": "bad"}, "bad; invalid_request"),
    ({"title": "Unprocessable", "detail": "bad", "status": 422}, "bad"),
    ({"title": "bad", "status": 422}, "bad"),
    ({"reason": "The prompt is bad."}, "The prompt is bad."),
    ({"Message": "bad", "Code": "X"}, "bad"),
    ({"Error": {"Message": "bad"}}, "bad"),
    ({"errors": {"size": ["is unknown", "is odd"], "n": "is large"}}, "size: is unknown; size: is odd; n: is large"),
    ({"errors": {"size": 7}}, ""),
    ({"base_resp": {"status_code": 1008, "status_msg": "bad"}}, "bad"),
    ({"fault": {"faultstring": "bad"}}, "bad"),
    ({"err": "bad"}, "bad"),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, "bad"),
    ("bad", "bad"),
    (7, ""),
    (None, ""),
    ({"error": None}, ""),
    ({"error": {"message": None}}, ""),
    ({"error": {"message": 7}}, ""),
    ({"error": {"code": 400, "message": "bad", "details": DETAILS}},
     "bad; image_config: no such size (IMAGE_SIZE_NOT_SUPPORTED)"),
    *((google(message, LOCALIZED), told) for message, told in (
        ("", "no people, please"), (None, "no people, please"), ("bad", "bad"),
        ("Request contains an invalid argument.", "Request contains an invalid argument.; no people, please"),
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT; no people, please"),
        ("Bad Request", "Bad Request; no people, please"),
    )),
    (google("Precondition check failed.", PRECONDITION), "Precondition check failed.; Accept the terms.; project/7"),
    (google("", QUOTA), "Quota exceeded for images per day."),
    (google("", LOCALIZED, PRECONDITION), "no people, please; Accept the terms.; project/7"),
    (google("", {"@type": f"{GOOGLE}BadRequest", "fieldViolations": [7, {"description": " too large "}]}, LOCALIZED),
     "too large"),
    (google("", {"@type": f"{GOOGLE}LocalizedMessage", "message": 7}, {"@type": f"{GOOGLE}PreconditionFailure"},
            {"@type": f"{GOOGLE}QuotaFailure", "violations": [7, {"description": None}, {}]}), ""),
    ({"error": {"message": "bad", "metadata": {"reasons": ["violence", 7, "hate"], "flagged_input": "my prompt",
                                               "provider_name": "SecretCloud"}}}, "bad (violence, hate)"),
    ({"error": {"message": "Provider returned error", "metadata": {"provider_name": "SecretCloud",
                "raw": '{"error":{"message":"bad"}}'}}}, "Provider returned error; bad"),
    ({"error": {"message": "Provider returned error", "metadata": {"raw": "bad"}}}, "Provider returned error; bad"),
    ({"error": {"message": "Provider returned error", "metadata": {"raw": {"detail": "bad"}}}},
     "Provider returned error; bad"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), MESSAGES, ids=lambda value: ascii(value)[:60])
def test_the_message_is_found_wherever_it_stands(body: Any, message: str) -> None:
    report = read(body)
    assert report.message == message
    assert "SecretCloud" not in str(report)
    assert "my prompt" not in str(report)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Bad prompt", "Bad prompt"),
        (b"  Bad prompt\r\n", "Bad prompt"),
        (b"\xef\xbb\xbfBad prompt", "Bad prompt"),
        (b'\xef\xbb\xbf{"error": "bad"}', "bad"),
        (b'\n\t [ {"error": "bad"} ]', "bad"),
        (b"<html><head><title>400 Bad\n Request &amp; more</title></head><body>secrets</body></html>",
         "400 Bad Request & more"),
        (b"<!DOCTYPE html><html><body>secrets</body></html>", ""),
        (b'<?xml version="1.0"?><Error><Code>X</Code><Message>Not here</Message></Error>', "Not here"),
        (b'event: error\ndata: {"error":{"message":"bad"}}\n\n', "bad"),
        (b'data: {"error":"bad"}\n\ndata: [DONE]\n\n', "bad"),
        (b'{"error":{"message":"cut sho', ""),
        (b"\xff\xfe{", ""),
        (b"", ""),
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_text_or_the_title_of_a_page(body: bytes, message: str) -> None:
    assert read_report(body).message == message


@pytest.mark.parametrize(
    ("body", "code", "status", "param"),
    [
        ({"error": {"code": "moderation_blocked", "type": "user_error", "param": "image[0]"}},
         "moderation_blocked", None, "image[0]"),
        ({"error": {"code": 429, "message": "x"}}, None, 429, None),
        ({"error": {"code": "429", "message": "x"}}, None, 429, None),
        ({"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, "INVALID_ARGUMENT", 400, None),
        ({"error": {"status": 403, "code": "nope"}}, "nope", 403, None),
        ({"error": {"code": 1113, "message": "x"}}, None, None, None),
        ({"error": {"code": True, "message": "x"}}, None, None, None),
        ({"error": {"code": 200, "message": "x"}}, None, None, None),
        ({"error": {"code": "None", "param": "None", "type": "None"}}, None, None, None),
        ({"status": "error", "code": "two words", "message": "x"}, None, None, None),
        ({"detail": [{"loc": ["body", "images", 2], "msg": "x", "type": "missing"}]}, None, None, "images[2]"),
        ({"statusCode": 422, "message": "x"}, None, 422, None),
        ({"Code": "Bad", "StatusCode": 422}, "Bad", 422, None),
        ({"errors": {"size": ["is unknown"]}}, None, None, "size"),
        ({"error": {"message": "x", "innererror": {"code": "Filtered"}}}, "Filtered", None, None),
        ({"error": {"code": 400, "metadata": {"raw": '{"error":{"code":"bad_size","param":"size","status":500}}'}}},
         "bad_size", 400, "size"),
    ],
)  # fmt: skip
def test_code_status_and_param(body: Any, code: str | None, status: int | None, param: str | None) -> None:
    report = read(body)
    assert (report.code, report.status, report.param) == (code, status, param)


def test_all_words_are_kept_but_those_of_a_provider_behind_the_provider() -> None:
    assert read({"error": {"code": "a", "type": "b", "status": "C", "details": DETAILS}}).words == (
        "a", "C", "b", "IMAGE_SIZE_NOT_SUPPORTED",
    )  # fmt: skip
    raw = '{"error":{"code":"insufficient_quota"}}'
    assert read({"error": {"code": 429, "type": "b", "metadata": {"raw": raw}}}).words == ("b",)


def test_the_kind_of_a_failed_precondition_is_one_of_its_words() -> None:
    assert {"TOS", "REGION"} <= set(read(google("", PRECONDITION)).words)


def test_the_wait_in_googles_details_is_read() -> None:
    assert read({"error": {"details": DETAILS}}).retry_after_s == pytest.approx(34.07, abs=0.01)
    assert read({"error": {"details": [{"@type": f"{GOOGLE}RetryInfo", "retryDelay": "soon"}]}}).retry_after_s is None


def test_only_reasons_say_that_the_content_is_flagged() -> None:
    assert read({"error": {"metadata": {"reasons": ["violence"]}}}).is_flagged
    assert not read({"error": {"metadata": {"reasons": []}}}).is_flagged
    assert not read({"error": {"metadata": {"raw": '"reasons"'}}}).is_flagged


def test_what_is_nested_without_an_end_or_very_long_is_bounded() -> None:
    nested: Any = "bad"
    for _ in range(50):
        nested = {"error": [nested], "message": "x" * 10_000}
    report = read(nested)
    assert len(report.message) <= 8 * 4_098
    assert len(read({"errors": [f"{number}" for number in range(10_000)]}).message) < 100
    assert len(read({"errors": [{"code": f"w{number}"} for number in range(10_000)]}).words) <= 32


names = st.sampled_from(
    ["error", "errors", "detail", "details", "message", "msg", "code", "type", "status", "param", "loc", "reason",
     "metadata", "raw", "reasons", "@type", "retryDelay", "fieldViolations", "field", "description", "title"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from([f"{GOOGLE}{kind}" for kind in ("ErrorInfo", "RetryInfo", "BadRequest")]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
    max_leaves=30,
)  # fmt: skip


@example({"loc": [[]], "msg": ""})
@given(values)
@settings(max_examples=300, deadline=2_000)
def test_whatever_a_provider_says_something_of_the_right_kind_is_read(value: Any) -> None:
    report = read(value)
    assert isinstance(report.message, str)
    assert report.code is None or isinstance(report.code, str)
    assert report.param is None or isinstance(report.param, str)
    assert report.status is None or 400 <= report.status <= 599


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=2_000)
def test_no_body_is_too_odd(body: bytes) -> None:
    assert isinstance(read_report(body).message, str)
