"""The contract's price tables over the wire, in every dialect, with the ledger read back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.end_to_end.test_command_line import lightmeter
from tests.support.gateways import ADMIN_TOKEN, RunningGateway, ask, running_gateway, toml_value
from tests.support.price_tables import (
    UNITS_PER_USD,
    VECTORS,
    events_answer,
    gemini_answer,
    gemini_usage,
    images_answer,
    openrouter_answer,
    openrouter_usage,
    path_of,
    request_of,
)
from tests.support.processes import wait_for
from tests.support.scripted_provider import Reply, ScriptedProvider, scripted_provider

LIMIT = 10_000_000
PARAMETERS = ["n", "size", "quality", "image_config", "stream", "background"]


@dataclass(frozen=True)
class Way:
    """How a vector goes over the wire: at a dialect's provider, asked for as JSON or as a stream."""

    name: str
    dialect: str
    write: Callable[[Mapping[str, Any], int], Reply]
    fields: Mapping[str, Any]

    def fits(self, vector: Mapping[str, Any]) -> bool:
        """Whether this dialect has words for what the answer says."""
        answer = vector["answer"]
        return self.dialect != "gemini" or not {"quality", "size", "cost_usd"} & answer.keys()


def _events(vector: Mapping[str, Any], _number: int) -> Reply:
    return events_answer(vector["answer"], "image_edit" if vector.get("task") == "edit" else "image_generation")


WAYS = (
    Way("openai", "openai", lambda vector, _number: images_answer(vector["answer"]), {}),
    Way("openai-stream", "openai", _events, {"stream": True}),
    Way("openai-events-for-json", "openai", _events, {}),
    Way("openrouter", "openrouter", lambda vector, _number: openrouter_answer(vector["answer"]), {}),
    Way(
        "gemini",
        "gemini",
        lambda vector, number: gemini_answer(vector["answer"], number, vector["request"].get("n", 1)),
        {},
    ),
)
CASES = [(way, number) for way in WAYS for number, vector in enumerate(VECTORS) if way.fits(vector)]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider(lambda _number: Reply()) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("price-tables")
    lines = [
        '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"',
        f'[store]\nurl = "embedded:{folder}/data"\n[accounting]\nunits_per_usd = {UNITS_PER_USD}',
    ]
    for dialect in ("openai", "openrouter", "gemini"):
        lines.append(f'[[providers]]\nname = "{dialect}"\ndialect = "{dialect}"\nbase_url = "{provider.url}"')
        for number, vector in enumerate(VECTORS):
            model = {
                "id": f"{dialect}/{number}",
                "provider": dialect,
                "upstream_model": "image-1",
                "token_multiplier": "1",
                "parameters": PARAMETERS,
                **vector["model"],
            }
            lines.append("[[models]]\n" + "\n".join(f"{name} = {toml_value(value)}" for name, value in model.items()))
    with running_gateway(folder, "\n".join(lines)) as running:
        yield running


def send(gateway: RunningGateway, provider: ScriptedProvider, key: str, way: Way, number: int) -> int:
    """The status of one request."""
    vector, before = VECTORS[number], provider.received
    provider.script = lambda received: way.write(vector, received - before)
    body = request_of(vector, model=f"{way.dialect}/{number}", **way.fields)
    return ask("POST", gateway.url + path_of(vector), key=key, body=body).status


@pytest.mark.parametrize(
    ("way", "number"), CASES, ids=[f"{way.name}: {VECTORS[number]['name']}" for way, number in CASES]
)
def test_what_is_reserved_and_charged_is_what_the_table_says(
    gateway: RunningGateway, provider: ScriptedProvider, way: Way, number: int
) -> None:
    vector, key = VECTORS[number], gateway.make_key(LIMIT)
    status = send(gateway, provider, key, way, number)
    assert status == 200 or not vector["answer"]["images"]
    (entry,) = gateway.ledger(key)
    charged = vector["charged_units"]
    assert {name: entry[name] for name in ("reserved", "charged", "overage", "images")} == {
        "reserved": vector["reserved_units"],
        "charged": charged,
        "overage": vector["overage_units"],
        "images": vector["answer"]["images"],
    }
    quota = gateway.quota(key)
    assert (quota["posted"], quota["reserved"], quota["remaining"]) == (charged, 0, LIMIT - charged)
    has_prices = bool({"prices", "inputs", "settle"} & vector["model"].keys())
    assert ("basis" in entry) == (has_prices and vector["answer"]["images"] > 0)
    if "basis" in entry:
        assert explained(entry, vector) == charged
    gateway.check_books(key)


def explained(entry: dict[str, Any], vector: dict[str, Any]) -> int:
    """The charge worked out anew from what the ledger's entry says."""
    basis, settle = entry["basis"], vector["model"].get("settle", {})
    if basis["by"] == "usage":
        tokens = basis["tokens"]
        assert tokens == vector["answer"]["usage"]
        multiplier = round(float(vector["model"].get("token_multiplier", "1")) * 10_000)
        total = sum(count * settle["per_million"][kind] for kind, count in tokens.items())
        return int(-(-total * multiplier // 10**10))
    if basis["by"] == "cost":
        assert basis["cost_usd"] == vector["answer"]["cost_usd"]
        return int(entry["charged"])
    references = basis.get("references", {"images": 0, "unit_price": 0})
    rows = [*basis["prices"], references]
    return sum(int(row["images"]) * int(row["unit_price"]) for row in rows)


def test_what_is_reserved_has_to_fit(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    for number, vector in enumerate(VECTORS):
        key = gateway.make_key(vector["reserved_units"] - 1)
        assert send(gateway, provider, key, WAYS[0], number) == 429
        assert gateway.ledger(key) == []
        gateway.check_books(key)


def test_the_counters_are_what_the_ledger_adds_up_to_and_the_metrics_agree(gateway: RunningGateway) -> None:
    admin = {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    assert json.loads(lightmeter("ledger", "verify", "--json", environment=admin))["ok"] is True
    states: dict[tuple[str, str], float] = {}
    for line in gateway.metrics().splitlines():
        if line.startswith("lightmeter_quota_units_total{"):
            model, state = (part.split('"')[1] for part in line.partition("}")[0].split(","))
            states[model, state] = float(line.rpartition(" ")[2])
    for model in {model for model, _state in states}:
        reserved, charged, overage, released = (
            states.get((model, state), 0.0) for state in ("reserved", "charged", "overage", "released")
        )
        assert reserved == charged - overage + released


# --- What holds of all money holds of tables --------------------------------------------------------------------------

LEFT_OPEN = next(number for number, vector in enumerate(VECTORS) if vector["name"].startswith("left open: the dearest"))
OVERAGE = next(number for number, vector in enumerate(VECTORS) if vector["overage_units"] == 10_505)


def test_parallel_requests_at_the_limit_never_pass_it(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    vector = VECTORS[LEFT_OPEN]
    reserved, charged = vector["reserved_units"], vector["charged_units"]
    go_on = threading.Event()
    provider.script = lambda _number: replace(images_answer(vector["answer"]), held=go_on)
    key = gateway.make_key(5 * reserved)
    body = request_of(vector, model=f"openai/{LEFT_OPEN}")
    with ThreadPoolExecutor(20) as threads:
        url = gateway.url + path_of(vector)
        requests = [threads.submit(ask, "POST", url, key=key, body=body) for _ in range(20)]
        try:
            wait_for(lambda: sum(request.done() for request in requests) == 15, "the refusals")
            assert gateway.quota(key)["reserved"] == 5 * reserved
        finally:
            go_on.set()
        statuses = sorted(request.result().status for request in requests)
    assert statuses == [200] * 5 + [429] * 15
    assert gateway.quota(key)["posted"] == 5 * charged
    gateway.check_books(key)


def test_overage_by_tokens_is_recorded_and_ends_at_the_limit(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    vector = VECTORS[OVERAGE]
    key = gateway.make_key(4_000)
    assert [send(gateway, provider, key, WAYS[0], OVERAGE) for _ in range(3)] == [200, 429, 429]
    (entry,) = gateway.ledger(key)
    assert (entry["charged"], entry["overage"]) == (vector["charged_units"], vector["overage_units"])
    gateway.check_books(key)


def test_the_same_call_twice_is_charged_once(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    vector, key = VECTORS[LEFT_OPEN], gateway.make_key(LIMIT)
    provider.script = lambda _number: images_answer(vector["answer"])
    before, body = provider.received, request_of(vector, model=f"openai/{LEFT_OPEN}")
    answers = [
        ask("POST", gateway.url + path_of(vector), key=key, body=body, headers={"Idempotency-Key": "one"})
        for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body
    assert provider.received == before + 1
    assert [entry["charged"] for entry in gateway.ledger(key)] == [vector["charged_units"]]
    gateway.check_books(key)


def test_requests_side_by_side_add_their_tokens_up(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    number = next(place for place, vector in enumerate(VECTORS) if vector["name"] == "by usage")
    answers: list[dict[str, Any]] = [{"images": 1, "usage": {"input_text": 50, "output_image": 4_160}}, {"images": 1}]
    key = gateway.make_key(LIMIT)
    for told, charged in (([0, 0, 0], 3 * 12_505), ([0, 1, 1], 12_505 + 2 * 20_000)):
        body = request_of(VECTORS[number], model=f"gemini/{number}", n=3)
        provider.script = _side_by_side(answers, told, provider.received)
        assert ask("POST", f"{gateway.url}/v1/images/generations", key=key, body=body).status == 200
        entry = gateway.ledger(key)[-1]
        assert (entry["images"], entry["reserved"], entry["charged"]) == (3, 60_000, charged)
    gateway.check_books(key)


def _side_by_side(answers: list[dict[str, Any]], told: list[int], before: int) -> Callable[[int], Reply]:
    def reply(received: int) -> Reply:
        place = received - before
        answer = answers[told[place]]
        parts = [{"inlineData": {"mimeType": "image/png", "data": f"AAA{place}"}}]
        usage = {"usageMetadata": gemini_usage(answer["usage"])} if "usage" in answer else {}
        document = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}], **usage}
        return Reply(body=json.dumps(document).encode())

    return reply


def test_a_chat_reserves_and_charges_by_its_task(gateway: RunningGateway, provider: ScriptedProvider) -> None:
    number = next(place for place, vector in enumerate(VECTORS) if vector["name"] == "by usage")
    usage = openrouter_usage({"input_text": 50, "output_image": 4_160})
    images = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    message = {"role": "assistant", "content": "", "images": images}
    chat = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    provider.script = lambda _number: Reply(body=json.dumps({"id": "1", "object": "chat.completion", **chat}).encode())
    key = gateway.make_key(LIMIT)
    body = {
        "model": f"openrouter/{number}",
        "messages": [{"role": "user", "content": "draw"}],
        "modalities": ["image", "text"],
        "max_tokens": 10,
        "image_config": {"image_size": "4K"},
    }
    assert ask("POST", f"{gateway.url}/v1/chat/completions", key=key, body=body).status == 200
    (entry,) = gateway.ledger(key)
    assert (entry["reserved"], entry["charged"], entry["price_rule"]) == (45_000, 12_505, "size=4k")
    gateway.check_books(key)
