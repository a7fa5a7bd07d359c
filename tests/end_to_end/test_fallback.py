"""Other models that stand in for one, over sockets: when they are asked, and that what was made is what is charged."""

from __future__ import annotations

import csv
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import openai
import pytest

from tests.domain.answer_samples import events_of
from tests.end_to_end.test_command_line import lightmeter
from tests.end_to_end.test_deployments import value
from tests.support.fallbacks import check_units, model_at, toml_of, units_by_state
from tests.support.gateways import (
    ADMIN_TOKEN,
    ALL_PARAMETERS,
    RunningGateway,
    ask,
    key_id,
    running_gateway,
    sample_provider,
)
from tests.support.processes import free_port, wait_for
from tests.support.scripted_provider import Reply, Script, ScriptedProvider, scripted_provider

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


def failing(_number: int) -> Reply:
    return Reply(503)


def making(_number: int) -> Reply:
    return Reply()


@contextmanager
def gateway_of(
    folder: Path, scripts: dict[str, Script], *models: dict[str, Any], **changes: Any
) -> Iterator[tuple[RunningGateway, list[ScriptedProvider]]]:
    """A gateway, and the providers that do as ``scripts`` say, by the names of their models."""
    with ExitStack() as stack:
        providers = {name: stack.enter_context(scripted_provider(script)) for name, script in scripts.items()}
        urls = {name: provider.url for name, provider in providers.items()}
        toml = toml_of(f"embedded:{folder}/data", urls, *models, **changes)
        yield stack.enter_context(running_gateway(folder, toml)), [*providers.values()]


def last(gateway: RunningGateway, key: str) -> dict[str, Any]:
    gateway.check_books(key)
    return gateway.ledger(key)[-1]


def key_with(gateway: RunningGateway, quota_units: int | None = None, **limits: Any) -> str:
    return gateway.make_key(quota_units, **limits)


def received(providers: Sequence[ScriptedProvider]) -> list[int]:
    return [provider.received for provider in providers]


# --- When another model is asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", ["0.5", "1", "3"])
def test_what_another_model_made_is_charged_at_its_price(tmp_path: Path, multiplier: str) -> None:
    models = model_at("a", "1", fallback=["b"]), model_at("b", multiplier)
    price = int(5_000 * float(multiplier))
    with gateway_of(tmp_path, {"a": failing, "b": making}, *models) as (gateway, providers):
        key = gateway.make_key()
        answer = gateway.generate(key, model="a")
        assert (answer.status, answer.headers["x-lightmeter-attempts"]) == (200, "2")
        assert received(providers) == [1, 1]
        entry = last(gateway, key)
        assert {name: entry[name] for name in ("model", "asked_model", "provider", "outcome", "attempts")} == {
            "model": "b", "asked_model": "a", "provider": "b", "outcome": "delivered", "attempts": 2,
        }  # fmt: skip
        assert (entry["unit_price"], entry["charged"], entry["overage"]) == (price, price, 0)
        assert entry["reserved"] == max(5_000, price)
        usage = gateway.admin("GET", f"/admin/v1/keys/{key_id(key)}/usage").json
        assert [*usage["by_model"]] == ["b"]
        check_units(gateway, "a", "b")
        assert units_by_state(gateway, "b")["charged"] == price
        assert "charged" not in units_by_state(gateway, "a")
        assert value(gateway, 'images_total{model="b",tier="standard"}') == 1
        assert value(gateway, 'fallbacks_total{asked_instead="b",model="a"}') == 1
        assert value(gateway, 'retries_total{reason="unavailable"}') == 1
        assert value(gateway, 'requests_total{endpoint="/v1/images/generations",model="a",outcome="delivered"}') == 1
        gateway.server.wait_for_output('"made_by":"b"')
        # Where the model itself makes it, nothing is said of others.
        providers[0].script = making
        assert gateway.generate(key, model="a").headers["x-lightmeter-attempts"] == "1"
        entry = last(gateway, key)
        assert (entry["model"], entry["charged"], "asked_model" in entry) == ("a", 5_000, False)
        check_units(gateway, "a", "b")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(429), 200),
        (Reply(503), 200),
        (Reply(402, body=b'{"error":{"message":"no credit","code":"insufficient_credits"}}'), 200),
        (Reply(400), 400),
        (Reply(500), 502),
        (Reply(502), 502),
        (Reply(504), 504),
        (Reply(401), 502),
        (Reply(broken=True), 502),
        (Reply(200, body=b"no images"), 502),
    ],
)
def test_it_is_asked_only_where_nothing_can_have_been_made(tmp_path: Path, reply: Reply, status: int) -> None:
    models = model_at("a", fallback=["b"]), model_at("b")
    with gateway_of(tmp_path, {"a": lambda _: reply, "b": making}, *models) as (gateway, providers):
        key = gateway.make_key()
        answer = gateway.generate(key, model="a")
        assert answer.status == status, answer.body
        assert received(providers) == [1, int(status == 200)]
        entry = last(gateway, key)
        assert (entry["model"], entry["charged"]) == (("b", 5_000) if status == 200 else ("a", 0))
        check_units(gateway, "a", "b")


def test_a_model_that_cannot_be_reached_has_others_asked_and_then_nobody_tries_it(tmp_path: Path) -> None:
    models = model_at("a", fallback=["b"]), model_at("b")
    with scripted_provider(making) as second:
        urls = {"a": f"http://127.0.0.1:{free_port()}", "b": second.url}
        toml = toml_of(f"embedded:{tmp_path}/data", urls, *models)
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key()
            attempts = [gateway.generate(key, model="a").headers["x-lightmeter-attempts"] for _ in range(12)]
            # Its breaker opens; what is sent straight to the other one takes nothing from the retry budget.
            assert attempts == ["2"] * 5 + ["1"] * 7
            assert second.received == 12
            assert value(gateway, 'retries_total{reason="unreachable"}') == 5
            assert value(gateway, 'fallbacks_total{asked_instead="b",model="a"}') == 12
            assert Counter(entry["model"] for entry in gateway.ledger(key)) == {"b": 12}
            gateway.check_books(key)
            check_units(gateway, "a", "b")


def test_a_model_with_deployments_has_all_of_them_asked_first(tmp_path: Path) -> None:
    first = {name: what for name, what in model_at("a").items() if name not in ("provider", "upstream_model")}
    models = model_at("b"), {**first, "fallback": ["b"]}
    with ExitStack() as stack:
        scripts = {"a": failing, "a2": failing, "b": making}
        providers = {name: stack.enter_context(scripted_provider(script)) for name, script in scripts.items()}
        toml = toml_of(
            f"embedded:{tmp_path}/data", {name: provider.url for name, provider in providers.items()}, *models
        )
        # The last section of the file is the model with them.
        toml += "".join(
            f'\n[[models.deployments]]\nprovider = "{name}"\nupstream_model = "x"\n' for name in ("a", "a2")
        )
        gateway = stack.enter_context(running_gateway(tmp_path, toml))
        key = gateway.make_key()
        assert gateway.generate(key, model="a").headers["x-lightmeter-attempts"] == "3"
        assert [provider.received for provider in providers.values()] == [1, 1, 1]
        assert last(gateway, key)["attempts"] == 3


def test_where_nobody_can_the_client_is_told_so_and_pays_nothing(tmp_path: Path) -> None:
    models = model_at("a", fallback=["b", "c"]), model_at("b", "2"), model_at("c", "3")
    limited = Reply(429, {"Retry-After": "7"})
    scripts: dict[str, Script] = {"a": failing, "b": failing, "c": lambda _: limited}
    with gateway_of(tmp_path, scripts, *models) as (gateway, providers):
        key = gateway.make_key()
        answer = gateway.generate(key, model="a")
        assert (answer.status, answer.json["error"]["code"]) == (429, "upstream_rate_limit")
        assert answer.headers["Retry-After"] == "7"
        assert received(providers) == [1, 1, 1]
        entry = last(gateway, key)
        assert (entry["model"], entry["asked_model"], entry["outcome"], entry["charged"]) == ("c", "a", "refused", 0)
        assert (entry["reserved"], entry["attempts"]) == (15_000, 3)
        check_units(gateway, "a", "b", "c")


def test_what_a_fallback_may_have_made_is_asked_of_nobody_else(tmp_path: Path) -> None:
    models = model_at("a", fallback=["b", "c"]), model_at("b"), model_at("c")
    scripts: dict[str, Script] = {"a": failing, "b": lambda _: Reply(broken=True), "c": making}
    with gateway_of(tmp_path, scripts, *models) as (gateway, providers):
        key = gateway.make_key()
        answer = gateway.generate(key, model="a")
        assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
        assert received(providers) == [1, 1, 0]
        assert last(gateway, key)["outcome"] == "failed"


def test_the_lists_of_fallbacks_are_not_followed_further(tmp_path: Path) -> None:
    models = model_at("a", fallback=["b"]), model_at("b", fallback=["a"])
    with gateway_of(tmp_path, {"a": failing, "b": failing}, *models) as (gateway, providers):
        key = gateway.make_key()
        assert gateway.generate(key, model="a").status == 502
        assert received(providers) == [1, 1]
        providers[0].script = making
        assert gateway.generate(key, model="b").status == 200
        assert last(gateway, key)["model"] == "a"


# --- Who may be asked -------------------------------------------------------------------------------------------------


def test_a_model_that_the_key_or_its_team_may_not_use_is_not_asked(tmp_path: Path) -> None:
    models = model_at("a", fallback=["x/b", "c"]), model_at("x/b", "2"), model_at("c", "3")
    scripts: dict[str, Script] = {"a": failing, "x/b": making, "c": making}
    with gateway_of(tmp_path, scripts, *models) as (gateway, providers):
        limits = {"models": ["a", "c"]}
        assert gateway.admin("POST", "/admin/v1/teams", body={"id": "some", "limits": limits}).status == 201
        for team, allowed, made_by, reserved in (
            ("acme", ["a", "c"], "c", 15_000),
            ("acme", ["a", "x/*"], "x/b", 10_000),
            ("some", ["*"], "c", 15_000),
            ("some", ["a", "x/b"], None, 5_000),
            ("acme", ["a"], None, 5_000),
        ):
            key = gateway.make_key(team=team, models=allowed)
            assert gateway.generate(key, model="a").status == (502 if made_by is None else 200)
            entry = last(gateway, key)
            assert (entry["model"], entry["reserved"]) == (made_by or "a", reserved)
        assert received(providers) == [5, 1, 2]


@pytest.mark.parametrize("scope", ["quota_units", "quota_units_per_day", "quota_units_per_month"])
def test_a_model_that_the_quota_has_no_room_for_is_not_asked_and_refuses_nobody(tmp_path: Path, scope: str) -> None:
    models = model_at("a", fallback=["dear", "b"]), model_at("dear", "3"), model_at("b", "2")
    scripts: dict[str, Script] = {"a": failing, "dear": making, "b": making}
    with gateway_of(tmp_path, scripts, *models) as (gateway, providers):
        for quota, made_by, reserved in ((15_000, "dear", 15_000), (14_999, "b", 10_000), (9_999, None, 5_000)):
            key = key_with(gateway, **{scope: quota})
            assert gateway.generate(key, model="a").status == (502 if made_by is None else 200)
            entry = last(gateway, key)
            assert (entry["model"], entry["reserved"]) == (made_by or "a", reserved)
        before = received(providers)
        refused = gateway.generate(key_with(gateway, **{scope: 4_999}), model="a")
        assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
        assert "needs 5,000 quota units" in refused.json["error"]["message"]
        assert received(providers) == before


@pytest.mark.parametrize(
    ("stands_in", "fields"),
    [
        ({"sizes": ["2K"]}, {"size": "1024x1024"}),
        ({"max_n": 2}, {"n": 3}),
        ({"default_n": 2, "max_n": 2}, {"n": 3}),
        ({"parameters": ["n"]}, {"stream": True}),
        ({}, {"something": "new"}),
    ],
)
def test_a_model_that_cannot_take_the_request_is_left_out(
    tmp_path: Path, stands_in: dict[str, Any], fields: dict[str, Any]
) -> None:
    taking: dict[str, Any] = {"parameters": [*ALL_PARAMETERS, "stream"], "unknown_parameters": "drop"}
    models = (
        model_at("a", **taking, fallback=["b", "c"]), model_at("b", "9", **stands_in), model_at("c", "2", **taking),
    )  # fmt: skip
    scripts: dict[str, Script] = {"a": failing, "b": making, "c": making}
    with gateway_of(tmp_path, scripts, *models) as (gateway, providers):
        key = gateway.make_key()
        assert gateway.generate(key, model="a", **fields).status == 200
        assert received(providers) == [1, 0, 1]
        entry = last(gateway, key)
        assert (entry["model"], entry["reserved"]) == ("c", 10_000 * fields.get("n", 1))


def test_a_model_that_has_retired_is_not_asked(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    models = model_at("a", fallback=["b", "c"]), model_at("b", "9"), model_at("c", "2")
    with ExitStack() as stack:
        providers = [stack.enter_context(scripted_provider(script)) for script in (failing, making, making)]
        urls = dict(zip("abc", (provider.url for provider in providers), strict=True))
        toml = toml_of(f"embedded:{tmp_path}/data", urls, *models)
        toml = toml.replace('id = "b"\n', f'id = "b"\nretires = {yesterday}\n')
        gateway = stack.enter_context(running_gateway(tmp_path, toml))
        key = gateway.make_key()
        assert gateway.generate(key, model="a").status == 200
        entry = last(gateway, key)
        assert (entry["model"], entry["reserved"]) == ("c", 10_000)
        assert received(providers) == [1, 0, 1]


def test_an_alias_has_the_fallbacks_of_its_model_and_may_be_one(tmp_path: Path) -> None:
    models = model_at("a", fallback=["spare"]), model_at("b", "2")
    aliases = {"id": "latest", "alias_of": "a"}, {"id": "spare", "alias_of": "b"}
    with gateway_of(tmp_path, {"a": failing, "b": making}, *models, *aliases) as (gateway, providers):
        key = gateway.make_key()
        assert gateway.generate(key, model="latest").status == 200
        entry = last(gateway, key)
        assert (entry["model"], entry["asked_model"], entry["charged"]) == ("b", "a", 10_000)
        only = gateway.make_key(models=["latest"])
        assert gateway.generate(only, model="latest").status in (502, 503)
        assert last(gateway, only)["model"] == "a"
        assert received(providers)[1] == 1


# --- What is asked of it ----------------------------------------------------------------------------------------------


def test_each_model_is_asked_in_its_own_words_for_as_many_images(tmp_path: Path) -> None:
    first: dict[str, Any] = {"default_n": 2, "parameters": ["n", "size", "quality"], "four_k_long_edge": 0}
    other: dict[str, Any] = {"parameters": ["n", "image_config"], "upstream_model": "other-1", "four_k_long_edge": 2048}
    with sample_provider(tmp_path) as provider:
        url = provider.url
        models = model_at("a", **first, fallback=["b"]), model_at("b", "2", **other)
        urls = {"a": f"http://127.0.0.1:{free_port()}", "b": url}
        with running_gateway(tmp_path / "gateway", toml_of(f"embedded:{tmp_path}/data", urls, *models)) as gateway:
            key = gateway.make_key()
            answer = gateway.generate(key, model="a", size="2048x2048", quality="high")
            assert (answer.status, len(answer.json["data"])) == (200, 2)
            (sent,) = provider.requests()
            assert sent["body"] == {
                "model": "other-1",
                "prompt": "a translucent blue cube",
                "n": 2,
                "image_config": {"aspect_ratio": "1:1", "image_size": "4K"},
            } or sent["body"] == {"model": "other-1", "prompt": "a translucent blue cube", "n": 2}
            entry = last(gateway, key)
            # 4K by the other one's long edge.
            assert (entry["tier"], entry["unit_price"], entry["charged"]) == ("4k", 25_000, 50_000)
            check_units(gateway, "a", "b")


@pytest.fixture(scope="module", name="talking")
def _talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A model that nobody can reach, and two that the sample provider makes in its place."""
    folder = tmp_path_factory.mktemp("talking")
    with sample_provider(folder) as provider:
        streams: dict[str, Any] = {"parameters": [*ALL_PARAMETERS, "stream"]}
        models = (
            model_at("a", **streams, fallback=["b"]),
            model_at("b", "2", **streams, text="free"),
            model_at("c", **streams, text="free", fallback=["d"]),
            model_at("d", "2", **streams),
        )
        nowhere = f"http://127.0.0.1:{free_port()}"
        urls = {"a": nowhere, "b": provider.url, "c": nowhere, "d": provider.url}
        with running_gateway(folder / "gateway", toml_of(f"embedded:{folder}/data", urls, *models)) as gateway:
            yield gateway


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_says_which_model_answered_and_costs_what_that_one_does(
    talking: RunningGateway, *, stream: bool
) -> None:
    key = talking.make_key()
    body = {"model": "a", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    answer = ask("POST", f"{talking.url}/v1/chat/completions", key=key, body={**body, "modalities": ["image"]})
    documents = list(events_of(answer.body)) if stream else [answer.json]
    assert {document["model"] for document in documents} == {"b"}
    entry = last(talking, key)
    assert (entry["model"], entry["asked_model"], entry["charged"]) == ("b", "a", 10_000)


@pytest.mark.parametrize(("model", "other", "is_free"), [("a", "b", True), ("c", "d", False)])
def test_text_is_charged_by_the_rule_of_the_model_that_wrote_it(
    talking: RunningGateway, model: str, other: str, *, is_free: bool
) -> None:
    key = talking.make_key()
    body = {"model": model, "messages": [{"role": "user", "content": "[sample images=0] x"}]}
    assert ask("POST", f"{talking.url}/v1/chat/completions", key=key, body=body).status == 200
    entry = last(talking, key)
    assert (entry["model"], entry["charged"] == 0) == (other, is_free)
    assert entry["outcome"] == ("empty" if is_free else "delivered")
    assert entry["charged"] <= entry["reserved"]
    check_units(talking, model, other)


def test_streams_and_edits_go_to_another_model_as_well(talking: RunningGateway) -> None:
    key = talking.make_key()
    answer = talking.generate(key, model="a", stream=True)
    assert [event["type"] for event in events_of(answer.body)][-1] == "image_generation.completed"
    assert last(talking, key)["charged"] == 10_000
    with openai.OpenAI(base_url=f"{talking.url}/v1", api_key=key, max_retries=0) as client:
        assert client.images.edit(model="a", prompt="a hat", image=[PNG, PNG + b"1"], n=2).data
    entry = last(talking, key)
    assert (entry["model"], entry["images"], entry["charged"]) == ("b", 2, 20_000)


def test_an_export_and_the_verification_of_the_ledger_know_both_models(talking: RunningGateway) -> None:
    key = talking.make_key(team="exported")
    assert talking.generate(key, model="a").status == 200
    admin = {"LIGHTMETER_ADMIN_URL": talking.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    (row,) = csv.DictReader(lightmeter("ledger", "export", "--team", "exported", environment=admin).splitlines())
    assert (row["model"], row["asked_model"], row["charged"]) == ("b", "a", "10000")
    lightmeter("ledger", "verify", environment=admin)


def test_a_named_request_runs_once_also_at_another_model(talking: RunningGateway) -> None:
    key = talking.make_key()
    body, headers = {"model": "a", "prompt": "x"}, {"Idempotency-Key": "one"}
    answers = [
        ask("POST", f"{talking.url}/v1/images/generations", key=key, body=body, headers=headers) for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json["data"] == answers[1].json["data"]
    (entry,) = talking.ledger(key)
    assert (entry["model"], entry["charged"]) == ("b", 10_000)
    talking.check_books(key)


@pytest.mark.parametrize(
    ("settle", "charged"),
    [
        ({}, 2 * 2_000),
        ({"by": "usage", "per_million": {"output_image": 3_000_000}}, 2 * 3_000),
        ({"by": "cost"}, 2 * 25_000),
    ],
)
def test_the_price_table_and_the_settling_of_the_model_that_made_it_count(
    tmp_path: Path, settle: dict[str, Any], charged: int
) -> None:
    # The one that is asked for has a table as well, and is settled otherwise.
    first: dict[str, Any] = {
        "prices": [{"base": 9_000}],
        "settle": {"by": "usage", "per_million": {"output_image": 90_000_000}},
    }
    rules = [{"quality": "low", "base": 2_000}, {"quality": "high", "base": 30_000}]
    models = (
        model_at("a", **first, fallback=["b"]),
        model_at("b", "2", prices=rules, **({"settle": settle} if settle else {})),
    )
    reported = b'"usage":{"total_tokens":1000,"output_tokens":1000,"cost":0.25}'
    body = b'{"created":1,"quality":"low","data":[{"url":"https://x.example/1"}],%b}' % reported
    changes = {"accounting": {"units_per_usd": 100_000}}
    with gateway_of(tmp_path, {"a": failing, "b": lambda _: Reply(body=body)}, *models, **changes) as (gateway, _all):
        key = gateway.make_key()
        assert gateway.generate(key, model="a", quality="auto").status == 200
        entry = last(gateway, key)
        assert (entry["model"], entry["asked_model"]) == ("b", "a")
        assert (entry["reserved"], entry["charged"], entry["overage"]) == (60_000, charged, 0)
        check_units(gateway, "a", "b")
        named = gateway.make_key(14_000)
        assert gateway.generate(named, model="a", quality="low").status == 200
        # The dearer of the two: 9,000 at the one that was asked for, 4,000 at the other.
        assert last(gateway, named)["reserved"] == 9_000


# --- More images than a model makes at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_all_of_several_requests_go_to_another_model_where_none_was_taken(tmp_path: Path, at_once: int | None) -> None:
    more = {} if at_once is None else {"images_at_once": at_once}
    models = model_at("a", images_at_once=1, fallback=["b"]), model_at("b", "0.5", **more)
    three = Reply(body=b'{"created":1,"data":[{"url":"https://x.example/1"},{"url":"https://x.example/2"}]}')
    numbers = iter(range(100))

    def one(_number: int) -> Reply:
        return Reply(body=b'{"created":1,"data":[{"url":"https://x.example/%d"}]}' % next(numbers))

    with gateway_of(tmp_path, {"a": failing, "b": one if at_once == 1 else lambda _: three}, *models) as (
        gateway,
        providers,
    ):
        key = gateway.make_key()
        answer = gateway.generate(key, model="a", n=2)
        assert (answer.status, len(answer.json["data"])) == (200, 2)
        assert received(providers) == [2, 2 if at_once == 1 else 1]
        entry = last(gateway, key)
        assert (entry["model"], entry["images"], entry["charged"], entry["reserved"]) == ("b", 2, 5_000, 10_000)
        assert (entry["provider"], entry["attempts"]) == ("b", 2)
        check_units(gateway, "a", "b")


def test_a_model_that_took_some_of_several_requests_keeps_them_all(tmp_path: Path) -> None:
    models = model_at("a", images_at_once=1, fallback=["b"]), model_at("b")
    scripts: dict[str, Script] = {"a": lambda number: Reply(503 if number else 200), "b": making}
    with gateway_of(tmp_path, scripts, *models) as (gateway, providers):
        key = gateway.make_key()
        answer = gateway.generate(key, model="a", n=3)
        assert (answer.status, len(answer.json["data"])) == (200, 1)
        assert received(providers) == [3, 0]
        entry = last(gateway, key)
        assert (entry["model"], entry["charged"]) == ("a", 5_000)


def test_several_requests_that_nobody_takes_cost_nothing(tmp_path: Path) -> None:
    models = model_at("a", fallback=["b"]), model_at("b", images_at_once=1)
    with gateway_of(tmp_path, {"a": failing, "b": failing}, *models) as (gateway, providers):
        key = gateway.make_key()
        assert gateway.generate(key, model="a", n=3).status == 502
        assert received(providers) == [1, 3]
        assert last(gateway, key)["charged"] == 0
        check_units(gateway, "a", "b")


# --- Load -------------------------------------------------------------------------------------------------------------


def test_no_more_requests_go_to_another_model_than_retries_are_saved_up(tmp_path: Path) -> None:
    held, requests = threading.Event(), 60
    models = model_at("a", fallback=["b"]), model_at("b")
    with (
        gateway_of(tmp_path, {"a": lambda _: Reply(503, held=held), "b": making}, *models) as (gateway, providers),
        ThreadPoolExecutor(requests) as clients,
    ):
        key = gateway.make_key()
        asked = [clients.submit(gateway.generate, key, model="a") for _ in range(requests)]
        wait_for(lambda: providers[0].received == requests, "all requests at the first one")
        began = monotonic()
        held.set()
        statuses = Counter(future.result().status for future in asked)
        took_s = monotonic() - began
        retries = providers[1].received
        assert 10 <= retries <= 10 + took_s
        assert statuses == {200: retries, 502: requests - retries}
        assert value(gateway, "retries_over_budget_total") == requests - retries
        gateway.check_books(key)
        check_units(gateway, "a", "b")


@pytest.mark.parametrize(("multiplier", "quota", "most"), [("0.5", 50_000, 10), ("3", 100_000, 20)])
def test_parallel_requests_at_the_limit_spend_what_the_ledger_says_and_no_more(
    tmp_path: Path, multiplier: str, quota: int, most: int
) -> None:
    models = model_at("a", fallback=["b"]), model_at("b", multiplier)
    flaky: Script = lambda number: Reply(503 if number % 3 == 0 else 200)  # noqa: E731 - a table of two
    with (
        gateway_of(tmp_path, {"a": flaky, "b": making}, *models) as (gateway, _providers),
        ThreadPoolExecutor(24) as clients,
    ):
        key = gateway.make_key(quota)
        statuses = Counter(
            answer.status for answer in clients.map(lambda _: gateway.generate(key, model="a"), range(72))
        )
        assert set(statuses) <= {200, 429, 502}
        assert statuses[200] >= min(most, 5)
        quota_left = gateway.quota(key)
        assert quota_left["posted"] + quota_left["reserved"] <= quota
        entries = gateway.ledger(key)
        assert all(entry["charged"] - entry["overage"] <= entry["reserved"] for entry in entries)
        assert all(entry["overage"] == 0 for entry in entries)
        assert {entry["charged"] for entry in entries if entry.get("asked_model")} <= {
            0,
            int(5_000 * float(multiplier)),
        }
        gateway.check_books(key)
        check_units(gateway, "a", "b")


def test_a_client_that_leaves_is_not_served_elsewhere(tmp_path: Path) -> None:
    held = threading.Event()
    models = model_at("a", fallback=["b"]), model_at("b")
    with gateway_of(tmp_path, {"a": lambda _: Reply(503, held=held), "b": making}, *models) as (gateway, providers):
        key = gateway.make_key()
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            body = b'{"model":"a","prompt":"x"}'
            client.sendall(
                b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
            )
            wait_for(lambda: providers[0].received == 1, "the request at the first one")
        wait_for(lambda: "lightmeter_open_requests 1.0" in gateway.metrics(), "the gateway to look")
        threading.Timer(1.0, held.set).start()
        wait_for(lambda: gateway.quota(key)["reserved"] == 0, "the end of the request")
        assert received(providers) == [1, 0]
        gateway.check_books(key)
