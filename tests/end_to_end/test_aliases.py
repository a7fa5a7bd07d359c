"""Other names of models, over sockets: served, priced, limited and recorded as the model that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.domain.answer_samples import events_of
from tests.end_to_end.test_reload import configured, reload
from tests.support.gateways import (
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    ask,
    image_model,
    key_id,
    running_gateway,
)

REAL = image_model("acme/image-1", "1.5", parameters=[*ALL_PARAMETERS, "stream"])
OTHER = image_model("acme/image-2", "3")
ALIAS = {"id": "image-latest", "alias_of": "acme/image-1"}
DEFAULT = {"default_model": "image-latest"}


@pytest.fixture(scope="module", name="named")
def _named(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("named")
    toml = configured(folder, provider.url, ALIAS, REAL, OTHER, server=DEFAULT)
    with running_gateway(folder, toml) as running:
        yield running


def last(gateway: RunningGateway, key: str) -> tuple[str, int, int]:
    gateway.check_books(key)
    entry = gateway.ledger(key)[-1]
    return entry["model"], entry["unit_price"], entry["charged"]


def test_a_generation_by_an_alias_costs_and_records_what_the_model_does(
    named: RunningGateway, quiet_provider: SampleProvider
) -> None:
    key = named.make_key()
    for fields in ({"model": "image-latest"}, {"model": None}, {"model": "acme/image-1"}):
        assert named.generate(key, n=2, **fields).status == 200
        assert last(named, key) == ("acme/image-1", 7_500, 15_000)
    assert {received["body"]["model"] for received in quiet_provider.requests()} == {"image-1"}
    usage = named.admin("GET", f"/admin/v1/keys/{key_id(key)}/usage")
    assert [*usage.json["by_model"]] == ["acme/image-1"]
    assert "image-latest" not in named.metrics()


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_answered_with_the_name_that_its_client_knows(named: RunningGateway, *, stream: bool) -> None:
    key = named.make_key()
    body = {
        "messages": [{"role": "user", "content": "a cube"}],
        "modalities": ["image", "text"],
        "stream": stream,
    }
    for name, shown in (("image-latest", "image-latest"), ("acme/image-1", "acme/image-1"), (None, "acme/image-1")):
        answer = ask("POST", f"{named.url}/v1/chat/completions", key=key, body={**body, "model": name})
        documents = list(events_of(answer.body)) if stream else [answer.json]
        assert {document["model"] for document in documents} == {shown}
        assert last(named, key) == ("acme/image-1", 7_500, 7_500)


def test_an_edit_by_an_alias_is_one_of_the_model(named: RunningGateway) -> None:
    key = named.make_key()
    with openai.OpenAI(base_url=f"{named.url}/v1", api_key=key, max_retries=0) as client:
        assert client.images.edit(model="image-latest", prompt="a hat", image=b"\x89PNG\r\n\x1a\n" + bytes(60)).data
    assert last(named, key) == ("acme/image-1", 7_500, 7_500)


def test_an_alias_is_listed_beside_its_model(named: RunningGateway) -> None:
    key = named.make_key()
    listed = {model["id"]: model for model in ask("GET", f"{named.url}/v1/models", key=key).json["data"]}
    assert [*listed] == ["acme/image-1", "acme/image-2", "image-latest"]
    assert listed["image-latest"] == {**listed["acme/image-1"], "id": "image-latest", "alias_of": "acme/image-1"}
    assert "alias_of" not in listed["acme/image-1"]
    assert ask("GET", f"{named.url}/v1/models/image-latest", key=key).json == listed["image-latest"]
    with openai.OpenAI(base_url=f"{named.url}/v1", api_key=key, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == set(listed)
        assert client.models.retrieve("image-latest").owned_by == "acme"


@pytest.mark.parametrize(
    ("models", "good"),
    [
        (["image-latest"], ["image-latest"]),
        (["acme/image-1"], ["image-latest", "acme/image-1"]),
        (["acme/*"], ["image-latest", "acme/image-1", "acme/image-2"]),
        (["acme/image-2"], ["acme/image-2"]),
        (["image-latest", "acme/image-2"], ["image-latest", "acme/image-2"]),
    ],
)
def test_a_key_may_use_an_alias_that_it_lists_or_whose_model_it_lists(
    named: RunningGateway, models: list[str], good: list[str]
) -> None:
    key = named.make_key(models=models)
    listed = [model["id"] for model in ask("GET", f"{named.url}/v1/models", key=key).json["data"]]
    assert sorted(listed) == sorted(good)
    for name in ("image-latest", "acme/image-1", "acme/image-2"):
        answer = named.generate(key, model=name)
        assert (answer.status, ask("GET", f"{named.url}/v1/models/{name}", key=key).status) == (
            (200, 200) if name in good else (403, 404)
        )
        if name not in good:
            assert f"may not use the model '{name}'" in answer.json["error"]["message"]
    named.check_books(key)


def test_the_name_and_the_model_may_be_allowed_by_different_lists(named: RunningGateway) -> None:
    limits = {"limits": {"models": ["acme/image-1"]}}
    assert named.admin("POST", "/admin/v1/teams", body={"id": "listed", **limits}).status == 201
    key = named.make_key(team="listed", models=["image-latest"])
    assert [named.generate(key, model=name).status for name in ("image-latest", "acme/image-1")] == [200, 403]
    other = named.make_key(team="listed", models=["acme/image-2"])
    assert [named.generate(other, model=name).status for name in ("image-latest", "acme/image-2")] == [403, 403]


def test_a_named_request_by_an_alias_has_one_answer(named: RunningGateway) -> None:
    key = named.make_key(models=["image-latest"])
    body = {"model": "image-latest", "prompt": "x"}
    answers = [
        ask("POST", f"{named.url}/v1/images/generations", key=key, body=body, headers={"Idempotency-Key": "one"})
        for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json["data"] == answers[1].json["data"]
    assert len(named.ledger(key)) == 1
    named.check_books(key)


def test_a_reload_points_an_alias_elsewhere(provider: SampleProvider, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configured(tmp_path, provider.url, ALIAS, REAL, OTHER)) as gateway:
        key = gateway.make_key()
        assert gateway.generate(key, model="image-latest").status == 200
        moved = {"id": "image-latest", "alias_of": "acme/image-2"}
        reload(gateway, tmp_path, configured(tmp_path, provider.url, REAL, OTHER, moved))
        assert gateway.generate(key, model="image-latest").status == 200
        reload(gateway, tmp_path, configured(tmp_path, provider.url, REAL, OTHER))
        assert gateway.generate(key, model="image-latest").status == 404
        assert [(entry["model"], entry["charged"]) for entry in gateway.ledger(key)] == [
            ("acme/image-1", 7_500), ("acme/image-2", 15_000),
        ]  # fmt: skip
        gateway.check_books(key)
