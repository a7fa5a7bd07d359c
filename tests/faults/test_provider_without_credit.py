"""A provider whose account has run out: the operator's affair, another deployment's request, and never the client's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.support.deployments import SPARE, deployed
from tests.support.dialects import CHAT, DIALECTS, IMAGES, Stage, body_of, stage
from tests.support.gateways import RunningGateway, ask
from tests.support.scripted_provider import Reply, scripted_provider

ERRORS: dict[str, tuple[int, dict[str, Any]]] = {
    "hard limit": (400, {"message": "Billing hard limit has been reached.", "code": "billing_hard_limit_reached"}),
    "not active": (400, {"message": "Check your billing details.", "code": "billing_not_active"}),
    "deactivated": (400, {"message": "Deactivated.", "code": "account_deactivated"}),
    "no quota": (429, {"message": "Check your plan and billing details.", "type": "insufficient_quota"}),
    "no credits": (402, {"message": "Insufficient credits. Add more: https://x.example/credits", "code": 402}),
    "place": (400, {"code": 400, "message": "User location is not supported.", "status": "FAILED_PRECONDITION"}),
    "free tier": (403, {"code": 403, "message": "Enable billing.", "status": "FAILED_PRECONDITION"}),
}


def reply(name: str) -> Reply:
    status, error = ERRORS[name]
    return Reply(status, {"Retry-After": "1"}, orjson.dumps({"error": error}))


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One gateway for all, whose models have one provider each."""
    with stage(tmp_path_factory.mktemp("without-credit")) as made:
        yield made


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("path", [IMAGES, CHAT])
def test_the_client_is_told_of_no_money_and_does_not_try_again(play: Stage, dialect: str, path: str, name: str) -> None:
    play.reply(reply(name))
    key = play.gateway.make_key(100_000)
    with openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=key) as sdk:
        draw = sdk.images.generate if path == IMAGES else sdk.chat.completions.create
        fields = {name: value for name, value in body_of(path, dialect).items() if name != "modalities"}
        with pytest.raises(openai.InternalServerError) as caught:
            draw(**fields)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
    assert "illing" not in caught.value.message
    assert "redit" not in caught.value.message
    assert play.provider.received == 1
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("failed", 0)
    play.gateway.check_books(key)


WORDS = {
    "hard limit": "billing_hard_limit_reached",
    "not active": "billing_not_active",
    "deactivated": "account_deactivated",
    "no quota": "insufficient_quota",
    "no credits": "",
    "place": "FAILED_PRECONDITION",
    "free tier": "FAILED_PRECONDITION",
}
"""The provider's own word for each error, as the operator finds it in its pages; some have a status alone."""


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_operator_is_told_in_log_and_metric(play: Stage, dialect: str, name: str) -> None:
    before, log = out_of_credit(play.gateway, dialect), play.gateway.server
    assert before is not None
    play.reply(reply(name))
    answer = play.ask(dialect)
    assert out_of_credit(play.gateway, dialect) == before + 1
    said = log.wait_for_output(rf'.*"{answer.headers["x-request-id"]}".*')[0]
    assert f'"provider_error":"{WORDS[name]}"' in said
    told = rf".*provider {dialect} refuses this gateway's account \({ERRORS[name][0]}, {WORDS[name] or 'no code'}\).*"
    assert '"level":"error"' in log.wait_for_output(told)[0]


@pytest.mark.parametrize("name", ERRORS)
def test_a_deployment_without_credit_is_asked_once(tmp_path: Path, name: str) -> None:
    with (
        scripted_provider(lambda _number: reply(name)) as empty,
        scripted_provider(lambda _number: Reply()) as spare,
        deployed(tmp_path, {"url": empty.url}, {"url": spare.url, "deployment": SPARE}) as gateway,
    ):
        keys = [gateway.make_key(1_000_000) for _ in range(3)]
        statuses = [gateway.generate(keys[number % 3]).status for number in range(24)]
        assert statuses == [200] * 24
        assert (empty.received, spare.received) == (1, 24)
        for key in keys:
            gateway.check_books(key)
        assert out_of_credit(gateway, "place0") == 1
        assert 'lightmeter_retries_total{reason="out_of_credit"} 1.0' in gateway.metrics()
        assert 'lightmeter_deployment_state{model="acme/image-1",provider="place0"} 2.0' in gateway.metrics()


WITHIN_A_200 = {
    "JSON": b'{"error":%b}',
    "an array": b'[{"error":%b}]',
    "events": b'data: {"error":%b}\n\n',
    "a named event": b'event: error\ndata: {"error":%b}\n\n',
    "a byte order mark": b'\xef\xbb\xbf{"error": %b}',
}


@pytest.mark.parametrize("name", WITHIN_A_200)
@pytest.mark.parametrize(
    ("error", "asked"),
    [
        ({"code": 429, "type": "insufficient_quota"}, 1),
        ({"code": 402, "message": "no credits"}, 1),
        ({"code": "billing_hard_limit_reached"}, 1),
        ({"code": 429, "message": "slow down"}, 1),
        ({"code": 503, "message": "overloaded"}, None),
    ],
)
def test_so_it_is_with_an_error_within_a_200(
    tmp_path: Path, name: str, error: dict[str, Any], asked: int | None
) -> None:
    body = WITHIN_A_200[name] % orjson.dumps(error)
    with (
        scripted_provider(lambda _number: Reply(200, {}, body)) as empty,
        scripted_provider(lambda _number: Reply()) as spare,
        deployed(tmp_path, {"url": empty.url}, {"url": spare.url, "deployment": SPARE}) as gateway,
    ):
        key = gateway.make_key(1_000_000)
        assert [gateway.generate(key).status for _ in range(6)] == [200] * 6
        assert spare.received == 6
        assert asked is None or empty.received == asked
        assert {entry["outcome"] for entry in gateway.ledger(key)} == {"delivered"}
        gateway.check_books(key)


CHUNK = orjson.dumps({"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Here "}}]})


def test_so_it_is_with_an_error_after_a_chat_has_begun_to_flow(tmp_path: Path) -> None:
    error = {"message": "Billing hard limit has been reached.", "code": "billing_hard_limit_reached"}
    body = b"data: %b\n\ndata: %b\n\n" % (CHUNK, orjson.dumps({"error": error}))
    with (
        scripted_provider(lambda _number: Reply(200, {"Content-Type": "text/event-stream"}, body)) as empty,
        scripted_provider(lambda _number: Reply(200, {"Content-Type": "text/event-stream"}, body)) as spare,
        deployed(tmp_path, {"url": empty.url}, {"url": spare.url, "deployment": SPARE}) as gateway,
    ):
        key = gateway.make_key(1_000_000)
        asked = {**body_of(CHAT, "acme/image-1"), "stream": True}
        answer = ask("POST", f"{gateway.url}{CHAT}", key=key, body=asked)
        assert answer.status == 200
        assert b"Here " in answer.body
        assert b"event: error" in answer.body
        assert b"illing" not in answer.body
        assert out_of_credit(gateway, "place0") == 1
        gateway.server.wait_for_output('"provider_error":"billing_hard_limit_reached"')
        ask("POST", f"{gateway.url}{CHAT}", key=key, body=asked)
        # Content was on its way: nobody else is asked for this one, but for the next.
        assert (empty.received, spare.received) == (1, 1)


def test_where_every_deployment_is_without_credit_nobody_is_asked_for_a_while(tmp_path: Path) -> None:
    with (
        scripted_provider(lambda _number: reply("no quota")) as one,
        scripted_provider(lambda _number: reply("no credits")) as other,
        deployed(tmp_path, {"url": one.url}, {"url": other.url}) as gateway,
    ):
        key = gateway.make_key(1_000_000)
        first = gateway.generate(key)
        assert (first.status, first.headers["x-should-retry"]) == (502, "false")
        later = [ask("POST", f"{gateway.url}{IMAGES}", key=key, body={"model": "acme/image-1", "prompt": "x"})
                 for _ in range(5)]  # fmt: skip
        assert {answer.status for answer in later} == {502}
        assert all(60 < int(answer.headers["Retry-After"]) <= 120 for answer in later)
        assert (one.received, other.received) == (1, 1)
        gateway.check_books(key)


def out_of_credit(gateway: RunningGateway, provider: str) -> float | None:
    name = f'lightmeter_upstream_out_of_credit_total{{provider="{provider}"}} '
    found = [line for line in gateway.metrics().splitlines() if line.startswith(name)]
    return float(found[0].removeprefix(name)) if found else None
