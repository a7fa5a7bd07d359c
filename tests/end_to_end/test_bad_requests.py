from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.end_to_end.conftest import BAD_REQUESTS
from tests.support.examples import examples
from tests.support.gateways import Answer, RunningGateway, SampleProvider, ask

GENERATIONS = "/v1/images/generations"


def check_refused(answer: Answer, status: int, param: str | None) -> None:
    assert answer.status == status
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["param"] == param
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["Content-Type"].startswith("application/json")


REFUSED = [{**row, "body": json.dumps(row["body"])} for row in BAD_REQUESTS["json"]] + BAD_REQUESTS["raw"]


@pytest.mark.parametrize("row", REFUSED, ids=[row["name"] for row in REFUSED])
def test_a_bad_request_is_refused_by_field_and_costs_nothing(
    gateway: RunningGateway, quiet_provider: SampleProvider, row: dict[str, Any]
) -> None:
    key = gateway.make_key(100_000)
    answer = ask("POST", gateway.url + GENERATIONS, key=key, body=row["body"].encode())
    check_refused(answer, row["status"], row.get("param"))
    assert gateway.quota(key)["remaining"] == 100_000
    assert gateway.ledger(key) == []
    assert quiet_provider.requests() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        "model",
        "prompt",
        "n",
        "size",
        "quality",
        "style",
        "user",
        "background",
        "output_format",
        "response_format",
        "stream",
    ]
)
BODIES = st.fixed_dictionaries({}, optional={"model": st.just("acme/image-1"), "prompt": st.just("x")}).flatmap(
    lambda good: st.dictionaries(FIELDS | st.text(max_size=12), JSON, min_size=1, max_size=4).map(
        lambda odd: {**good, **odd}
    )
)


@given(body=BODIES, as_text=st.booleans())
@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_is_metered_or_costs_nothing(
    gateway: RunningGateway, body: dict[str, Any], as_text: bool
) -> None:
    key = gateway.make_key(10**9)
    text = json.dumps(body)
    answer = ask("POST", gateway.url + GENERATIONS, key=key, body=(text if not as_text else text[:-1] + ",}").encode())
    entries = gateway.ledger(key)
    if answer.status == 200:
        assert [entry["charged"] for entry in entries] == [len(answer.json["data"]) * entries[0]["unit_price"]]
    else:
        # Also the provider's own refusal of what was forwarded costs nothing.
        assert 400 <= answer.status < 500, answer.body
        assert answer.json["error"]["message"]
        assert sum(entry["charged"] for entry in entries) == 0
    gateway.check_books(key)


@pytest.mark.parametrize("row", BAD_REQUESTS["ambiguous"], ids=[row["name"] for row in BAD_REQUESTS["ambiguous"]])
def test_an_ambiguous_request_is_metered_as_it_is_forwarded(
    gateway: RunningGateway, quiet_provider: SampleProvider, row: dict[str, Any]
) -> None:
    key = gateway.make_key(100_000)
    answer = ask("POST", gateway.url + GENERATIONS, key=key, body=row["body"].encode())
    assert answer.status == 200
    (forwarded,) = quiet_provider.requests()
    assert gateway.ledger(key)[0]["requested_images"] == forwarded["body"]["n"] == 10


def test_a_stranger_learns_that_its_key_is_bad_and_nothing_of_models(gateway: RunningGateway) -> None:
    stranger = gateway.make_key()
    gateway.admin("DELETE", f"/admin/v1/keys/{stranger[3:].rpartition('_')[0]}")
    for fields in ({"model": "nobody/none"}, {"n": 0}, {"seed_phrase": "x"}, {}):
        check_refused(gateway.generate(stranger, **fields), 401, None)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "didn't provide an API key"),
        ({"Authorization": "Basic bG06bG0="}, "should be 'Bearer"),
        ({"Authorization": "Bearer"}, "malformed"),
        ({"Authorization": "Bearer sk-something-else"}, "malformed"),
    ],
)
def test_without_a_key_nothing_is_done(gateway: RunningGateway, headers: dict[str, str], message: str) -> None:
    for method, path in (("POST", GENERATIONS), ("GET", "/v1/models"), ("GET", "/v1/key")):
        answer = ask(method, gateway.url + path, body=b"{}" if method == "POST" else None, headers=headers)
        check_refused(answer, 401, None)
        assert message in answer.json["error"]["message"]
        assert answer.json["error"]["code"] == "invalid_api_key"
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_typo_in_a_key_is_noticed_without_asking_the_store(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    typo = key[:-1] + ("a" if key[-1] != "a" else "b")
    before = store_calls(gateway)
    answer = gateway.generate(typo)
    check_refused(answer, 401, None)
    assert "malformed" in answer.json["error"]["message"]
    assert store_calls(gateway) == before
    assert gateway.generate(key).status == 200
    assert store_calls(gateway) == before + 2


def store_calls(gateway: RunningGateway) -> float:
    lines = gateway.metrics().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("lightmeter_store_duration_seconds_count"))


def test_insufficient_quota_tells_what_is_left_and_not_to_retry(gateway: RunningGateway) -> None:
    key = gateway.make_key(7_000)
    answer = gateway.generate(key, n=2)
    check_refused(answer, 429, None)
    assert answer.json["error"]["code"] == "insufficient_quota"
    assert "needs 10,000 quota units and the key has 7,000 left" in answer.json["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert gateway.generate(key).status == 200


def test_a_model_that_the_key_may_not_use(gateway: RunningGateway) -> None:
    key = gateway.make_key(models=["other/*"])
    answer = gateway.generate(key)
    check_refused(answer, 403, "model")
    assert answer.json["error"]["code"] == "model_not_allowed"
    gateway.check_books(key)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/images", "/v1/images/generations/", "/v2/models", "/%76%31/key"])
def test_no_such_route(gateway: RunningGateway, path: str) -> None:
    answer = ask("GET", gateway.url + path)
    check_refused(answer, 404, None)
    assert answer.json["error"]["code"] == "not_found"


def test_the_wrong_method(gateway: RunningGateway) -> None:
    answer = ask("GET", gateway.url + GENERATIONS)
    check_refused(answer, 405, None)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_another_media_type(gateway: RunningGateway, headers: dict[str, str]) -> None:
    key = gateway.make_key()
    answer = ask("POST", gateway.url + GENERATIONS, key=key, body=b'{"a": 1}', headers=headers)
    check_refused(answer, 415, None)
    assert answer.json["error"]["code"] == "unsupported_media_type"


def test_a_body_past_the_limit(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    answer = gateway.generate(key, prompt="x" * (2**20 + 1))
    check_refused(answer, 413, None)
    assert answer.json["error"]["code"] == "payload_too_large"
