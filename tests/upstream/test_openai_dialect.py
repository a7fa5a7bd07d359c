from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import ProviderRefusal, ProxyError, UpstreamError, UpstreamMisconfigured, UpstreamRateLimit
from proxy.domain.requests.image import KNOWN_PARAMETERS, ImageRequest, parse_image_request
from proxy.domain.wording import Wording
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.dialects.openai import OpenAIDialect
from tests.domain.samples import make_model
from tests.support.examples import examples

DIALECT = OpenAIDialect()

EVERY_FIELD: dict[str, Any] = {
    "n": 2,
    "size": "1024x1024",
    "quality": "high",
    "style": "vivid",
    "user": "user-1",
    "image_config": {"aspect_ratio": "16:9", "image_size": "4K"},
    "background": "opaque",
    "moderation": "low",
    "output_format": "png",
    "output_compression": 0,
    "partial_images": 0,
    "response_format": "b64_json",
    "stream": False,
    "safety_identifier": "user-1",
    "complexity": "high",
    "frame_count": 4,
    "frame_duration_ms": 100,
    "svg": {"model": "made-up", "reasoning": {"effort": "low"}},
}


def request_with(fields: dict[str, Any]) -> ImageRequest:
    return parse_image_request(orjson.dumps({"model": "acme/image-1", "prompt": "a cube", **fields}))


def written(fields: dict[str, Any], **model: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.write_generation(request_with(fields), make_model(**model)))
    return body


# --- What is asked ----------------------------------------------------------------------------------------------------


def test_it_is_the_dialect_that_settings_call_openai() -> None:
    assert isinstance(DIALECTS["openai"], OpenAIDialect)


def test_images_are_asked_for_at_the_same_path_for_every_model() -> None:
    assert {DIALECT.images_path(request_with({}), make_model(id=model_id)) for model_id in "xy"} == {
        "/images/generations"
    }


def test_the_key_is_a_bearer_token_and_no_key_is_no_header() -> None:
    assert DIALECT.authorize("made-up") == {"Authorization": "Bearer made-up"}
    assert DIALECT.authorize("") == {}


def test_the_sample_has_every_field() -> None:
    assert EVERY_FIELD.keys() == KNOWN_PARAMETERS


def test_the_model_takes_the_providers_name_and_the_prompt_goes_along() -> None:
    body = written({}, id="acme/image-1", upstream_model="image-1-2026", parameters=frozenset())
    assert body == {"model": "image-1-2026", "prompt": "a cube"}


names = st.sets(st.sampled_from(sorted(KNOWN_PARAMETERS)))


@given(names, names)
def test_a_field_is_forwarded_where_the_model_lists_it_and_left_out_otherwise(sent: set[str], listed: set[str]) -> None:
    body = written({name: EVERY_FIELD[name] for name in sent}, parameters=frozenset(listed))
    expected = {name: EVERY_FIELD[name] for name in sent & listed}
    if "size" in listed - sent and "image_config" in sent - listed:
        # Said in the words that the provider knows.
        expected["size"] = "5504x3072"
    assert body == {"model": "image-1", "prompt": "a cube", **expected}


@pytest.mark.parametrize("name", sorted(KNOWN_PARAMETERS))
def test_null_is_not_forwarded(name: str) -> None:
    assert written({name: None}) == {"model": "image-1", "prompt": "a cube"}


def test_no_byte_of_the_clients_body_is_forwarded_unread() -> None:
    body = b' {"\\u006e" : 1,\t"n": 3, "prompt":"\\u0061 \\"cube\\"\\ud83d\\ude00", "model":"acme/image-1"} '
    assert DIALECT.write_generation(parse_image_request(body), make_model()) == (
        '{"model":"image-1","prompt":"a \\"cube\\"\U0001f600","n":3}'.encode()
    )


# --- What is answered -------------------------------------------------------------------------------------------------


def refusal(body: bytes, status: int = 400) -> ProxyError:
    return DIALECT.read_refusal(status, {}, body)


def test_an_error_in_openais_form_is_read() -> None:
    error = refusal(
        b'{"error":{"message":"Your request was rejected by the safety system.","type":"image_generation_user_error",'
        b'"param":"prompt","code":"moderation_blocked"},"request_id":"req_internal"}'
    )
    assert isinstance(error, ProviderRefusal)
    assert error.wire_status == 400
    assert error.body() == {
        "error": {
            "message": "Your request was rejected by the safety system.",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "moderation_blocked",
        }
    }


@pytest.mark.parametrize(
    ("body", "message", "code", "param"),
    [
        (b'{"error":"Too violent."}', "Too violent.", "provider_refusal", None),
        (b'{"error":{"message":"Too violent."}}', "Too violent.", "provider_refusal", None),
        (b'{"error":{"message":"No.","code":400,"param":["n"]}}', "No.", "provider_refusal", None),
        (b'{"error":{"message":"No.","code":null,"param":null}}', "No.", "provider_refusal", None),
        (b'{"error":{"message":"No.","code":"blocked","param":"n"}}', "No.", "blocked", "n"),
        (b'{"error":{"code":"blocked"}}', "The provider refused the request.", "blocked", None),
        (b'{"error":{"message":{"text":"No."}}}', "No.", "provider_refusal", None),
    ],
)
def test_what_can_be_read_of_an_error_is_kept(body: bytes, message: str, code: str, param: str | None) -> None:
    error = refusal(body)
    assert (error.message, error.wire_code, error.param) == (message, code, param)


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{}", b"[]", b"null", b"1", b'""', b'{"error":null}', b'{"error":[]}', b'{"error":7}',
        b'{"error":{}}', b'{"message":7}', b'{"error":{"message":"No.', b"<html>Bad Request</html>",
        b"\xff\xfe\x00", b'{"error":{"message":"\xff"}}', b"[" * 60_000, b"[" * 900 + b'{"error":"No."}' + b"]" * 900,
    ],
    ids=lambda body: ascii(body)[:30],
)  # fmt: skip
def test_an_error_that_cannot_be_read_is_told_by_its_status_alone(body: bytes) -> None:
    error = refusal(body)
    assert isinstance(error, ProviderRefusal)
    assert (error.message, error.wire_code, error.param) == (
        "The provider refused the request.",
        "provider_refusal",
        None,
    )
    assert type(refusal(body, 401)) is UpstreamMisconfigured
    assert type(refusal(body, 500)) is UpstreamError


def test_a_providers_refusal_of_the_gateways_key_says_nothing_of_the_key() -> None:
    body = b'{"error":{"message":"Incorrect API key provided: made-up-secret.","code":"invalid_api_key"}}'
    for status in (401, 403):
        error = refusal(body, status)
        assert error.wire_status == 502
        assert "made-up-secret" not in str(error.body())
        assert error.wire_code == "upstream_error"


def test_the_wait_that_a_provider_asks_for_is_passed_on() -> None:
    error = DIALECT.read_refusal(429, {"Retry-After": "20"}, b'{"error":{"message":"Slow down, org-0123456789."}}')
    assert isinstance(error, UpstreamRateLimit)
    assert error.headers() == {"Retry-After": "20"}
    assert "org-" not in error.message


errors = st.dictionaries(
    st.sampled_from(["message", "code", "param", "type"]),
    st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=20) | st.lists(st.text(max_size=3), max_size=2),
)


@given(
    st.integers(100, 599).filter(lambda status: not 200 <= status < 300),
    st.binary(max_size=40) | errors.map(lambda error: orjson.dumps({"error": error})),
)
@examples(200)
def test_any_answer_that_is_no_success_becomes_an_error_of_the_wire(status: int, body: bytes) -> None:
    error = refusal(body, status)
    assert 400 <= error.wire_status < 600
    assert orjson.loads(orjson.dumps(error.body()))["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("fields", "sides"),
    [
        ({"size": "1536x1024"}, {"w": 1536, "h": 1024}),
        ({"size": "2K"}, {"w": 2048, "h": 2048}),
        ({"image_config": {"aspect_ratio": "3:2"}}, {"w": 1536, "h": 1024}),
        ({"size": "auto"}, {}),
        ({}, {}),
    ],
)
def test_a_provider_may_have_a_field_for_each_side(fields: dict[str, Any], sides: dict[str, int]) -> None:
    wording = Wording(((("size", "width"), ("w",)), (("size", "height"), ("h",))))
    model = make_model(parameters=frozenset({"size"}), wording=wording)
    written = orjson.loads(DIALECT.write_generation(parse_image_request({"prompt": "x", **fields}), model))
    assert written == {"model": model.upstream_model, "prompt": "x", **sides}
