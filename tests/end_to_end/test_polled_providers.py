"""Providers that accept a task: asked once, polled to its end, its images delivered as they were asked for."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.support.gateways import (
    PROVIDER_KEY,
    Answer,
    RunningGateway,
    ask,
    configuration,
    image_model,
    running_gateway,
)
from tests.support.polled_provider import Look, PolledProvider, polled_provider
from tests.support.processes import wait_for

PRICE = 5_000


@dataclass(frozen=True)
class Way:
    """How one dialect is asked for a model."""

    base: str
    upstream_model: str
    path: str
    sizes: Mapping[str, Any]


WAYS = {
    "bfl": Way("/v1", "flux-2-pro", "/v1/flux-2-pro", {"width": 1024, "height": 768}),
    "fal": Way("", "fal-ai/flux-2-pro", "/fal-ai/flux-2-pro", {"image_size": {"width": 1024, "height": 768}}),
    "replicate": Way(
        "/v1",
        "black-forest-labs/flux-1.1-pro",
        "/v1/models/black-forest-labs/flux-1.1-pro/predictions",
        {"width": 1024, "height": 768},
    ),
}


def toml_of(folder: Path, polled: PolledProvider, **changes: Any) -> str:
    way = WAYS[polled.dialect]
    model = {"upstream_model": way.upstream_model, "parameters": ["n", "size", "output_format", "stream"]}
    settings = {
        "dialect": polled.dialect,
        "base_url": polled.url + way.base,
        "result_hosts": [polled.url],
        "poll_interval": 0.05,
        "max_poll_interval": 0.1,
        **changes.pop("provider", {}),
    }
    models = [image_model(**{**model, **changes.pop("model", {})})]
    return configuration(f"embedded:{folder}/data", polled.url, models=models, provider=settings, **changes)


@pytest.fixture(scope="module", params=list(WAYS))
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGateway, PolledProvider]]:
    folder = tmp_path_factory.mktemp("polled")
    with polled_provider(request.param) as provider, running_gateway(folder, toml_of(folder, provider)) as gateway:
        yield gateway, provider


@pytest.fixture
def pair(running: tuple[RunningGateway, PolledProvider]) -> tuple[RunningGateway, PolledProvider]:
    """The two, with nothing remembered from the test before."""
    gateway, provider = running
    provider.reset()
    return gateway, provider


def entries(gateway: RunningGateway, key: str) -> list[tuple[str, int, int]]:
    gateway.check_books(key)
    return [(entry["outcome"], entry["images"], entry["charged"]) for entry in gateway.ledger(key)]


def test_the_address_of_the_image_is_passed_on(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, size="1024x768", output_format="png")
    assert answer.status == 200, answer.body
    assert [image["url"] for image in answer.json["data"]] == [f"{provider.url}/files/task-1-0.png?sig=a%2Bb%2F"]
    way = WAYS[provider.dialect]
    assert provider.paths == [way.path]
    body = provider.only.body
    assert body.get("input", body) == {"prompt": "a translucent blue cube", **way.sizes, "output_format": "png"}
    assert set(provider.keys) == {PROVIDER_KEY}
    assert provider.fetches == []
    assert entries(gateway, key) == [("delivered", 1, PRICE)]


def test_base64_is_fetched_without_the_key(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    provider.image *= 40
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, response_format="b64_json")
    assert base64.b64decode(answer.json["data"][0]["b64_json"]) == provider.image
    (headers,) = provider.fetches
    assert PROVIDER_KEY not in str(headers)
    assert entries(gateway, key) == [("delivered", 1, PRICE)]


def test_more_images_are_as_many_tasks_under_one_entry(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, n=3)
    assert len({image["url"] for image in answer.json["data"]}) == 3
    assert len(provider.tasks) == (3 if provider.dialect == "bfl" else 1)
    assert entries(gateway, key) == [("delivered", 3, 3 * PRICE)]


def test_the_openai_sdk_streams_what_is_polled(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    key = gateway.make_key(10 * PRICE)
    client = openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0)
    events = list(client.images.generate(model="acme/image-1", prompt="a cube", stream=True))
    assert [event.type for event in events] == ["image_generation.completed"]
    assert base64.b64decode(events[0].b64_json) == provider.image
    assert entries(gateway, key) == [("delivered", 1, PRICE)]


def test_an_edit_carries_its_images(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    key = gateway.make_key(10 * PRICE)
    client = openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0)
    images = [("one.png", provider.image), ("two.png", provider.image * 2)]
    if provider.dialect == "replicate":
        with pytest.raises(openai.BadRequestError):
            client.images.edit(model="acme/image-1", prompt="greener", image=images)
        assert provider.tasks == {}
        return
    client.images.edit(model="acme/image-1", prompt="greener", image=images)
    body = provider.only.body
    given = (
        [body["input_image"], body["input_image_2"]]
        if provider.dialect == "bfl"
        else [address.removeprefix("data:image/png;base64,") for address in body["image_urls"]]
    )
    assert [base64.b64decode(text) for text in given] == [provider.image, provider.image * 2]
    assert entries(gateway, key) == [("delivered", 1, PRICE)]


@pytest.mark.parametrize(
    ("end", "status", "code", "outcome"),
    [
        ("moderated", {400, 422}, {"content_moderated", "provider_refusal"}, "refused"),
        ("failed", {502}, {"upstream_error"}, "failed"),
        ("unknown", {502}, {"upstream_error"}, "failed"),
    ],
)
def test_a_task_without_an_image_is_charged_nothing(
    pair: tuple[RunningGateway, PolledProvider], end: str, status: set[int], code: set[str], outcome: str
) -> None:
    gateway, provider = pair
    provider.end = end
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key)
    assert answer.status in status
    assert answer.json["error"]["code"] in code
    assert len(provider.tasks) == 1
    assert entries(gateway, key) == [(outcome, 0, 0)]


def test_what_is_refused_before_it_is_accepted_is_as_at_any_provider(
    pair: tuple[RunningGateway, PolledProvider],
) -> None:
    gateway, provider = pair
    key = gateway.make_key(10 * PRICE)
    provider.submit = Look(422, {}, b'{"detail":[{"loc":["body","width"],"msg":"too large","type":"value_error"}]}')
    answer = gateway.generate(key)
    assert (answer.status, answer.json["error"]["param"]) == (422, "width")
    assert entries(gateway, key) == [("refused", 0, 0)]


def test_looks_that_fail_do_not_end_a_task(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    provider.looks = [
        Look(503, {"Retry-After": "0"}), Look(429), Look(404), Look(500, {}, b"<html>"), Look(200, {}, b"[]"),
    ]  # fmt: skip
    key = gateway.make_key(10 * PRICE)
    assert gateway.generate(key).status == 200
    # Where a result has a place of its own, that is a look more.
    assert provider.only.polls == (7 if provider.dialect == "fal" else 6)
    assert entries(gateway, key) == [("delivered", 1, PRICE)]


@pytest.mark.parametrize("where", ["poll_host", "result_host"])
def test_nothing_is_asked_of_a_host_that_is_not_listed(pair: tuple[RunningGateway, PolledProvider], where: str) -> None:
    gateway, provider = pair
    with polled_provider() as other:
        setattr(provider, where, other.url)
        key = gateway.make_key(10 * PRICE)
        answer = gateway.generate(key, response_format="b64_json")
        assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
        assert (other.keys, other.fetches) == ([], [])
    assert len(provider.tasks) == 1
    assert entries(gateway, key) == [("failed", 0, 0)]


@pytest.mark.parametrize(("status", "image"), [(404, b""), (302, b""), (200, b"<html>no image at all</html>")])
def test_what_cannot_be_fetched_is_not_charged(
    pair: tuple[RunningGateway, PolledProvider], status: int, image: bytes
) -> None:
    gateway, provider = pair
    provider.image_status, provider.image, provider.image_kind = status, image, "text/html"
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, response_format="b64_json")
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert len(provider.fetches) == (1 if status == 200 else 3)
    assert entries(gateway, key) == [("failed", 0, 0)]


def test_an_image_is_passed_on_while_it_is_fetched(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    provider.image = provider.image + bytes(1_000_000)
    provider.half = threading.Event()
    key = gateway.make_key(10 * PRICE)
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps({"model": "acme/image-1", "prompt": "x", "response_format": "b64_json"})
    connection.request("POST", "/v1/images/generations", body, headers)
    response = connection.getresponse()
    begin = response.read(300_000)
    provider.half.set()
    whole = json.loads(begin + response.read())
    connection.close()
    assert base64.b64decode(whole["data"][0]["b64_json"]) == provider.image
    assert entries(gateway, key) == [("delivered", 1, PRICE)]


def test_of_several_images_those_are_charged_that_are_delivered(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    # The second image of a task, or that of the second task.
    of_one_task = provider.dialect != "bfl"
    provider.broken_images = {"1"} if of_one_task else {"2-0"}
    provider.tells_images_apart = True
    key = gateway.make_key(10 * PRICE)
    answer = gateway.generate(key, n=3, response_format="b64_json")
    outcome, images = ("truncated", 1) if of_one_task else ("delivered", 2)
    assert (answer.status, len(answer.json["data"])) == (200, images)
    assert entries(gateway, key) == [(outcome, images, images * PRICE)]


def test_what_a_ticket_says_of_its_cost_settles_it(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"accounting": {"units_per_usd": 100_000}}
    with polled_provider() as provider:
        toml = toml_of(tmp_path, provider, **changes) + '\n[models.settle]\nby = "cost"\n'
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key(10 * PRICE)
            answer = gateway.generate(key, n=2)
            assert answer.status == 200
            assert "usage" not in answer.json
            # Two tickets of 4 credits each.
            assert entries(gateway, key) == [("delivered", 2, 8_000)]


def test_blanks_are_sent_while_it_is_polled(tmp_path: Path) -> None:
    server = {"json_keepalive_seconds": 0.1}
    with (
        polled_provider() as provider,
        running_gateway(tmp_path, toml_of(tmp_path, provider, server=server)) as gateway,
    ):
        provider.holds = True
        key = gateway.make_key(10 * PRICE)
        address = urlsplit(gateway.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/images/generations", '{"model":"acme/image-1","prompt":"x"}', headers)
        response = connection.getresponse()
        assert response.read(3) == b"   "
        provider.release()
        assert len(json.loads(response.read())["data"]) == 1
        connection.close()


def test_a_task_outlives_its_lease_and_ends_with_total_timeout(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"accounting": {"lease_seconds": 1}, "provider": {"total_timeout": 4}}
    with polled_provider() as provider, running_gateway(tmp_path, toml_of(tmp_path, provider, **changes)) as gateway:
        provider.holds = True
        key = gateway.make_key(10 * PRICE)
        with ThreadPoolExecutor() as threads:
            answer = threads.submit(gateway.generate, key)
            threading.Event().wait(2.5)
            assert gateway.quota(key)["reserved"] == PRICE
            assert gateway.ledger(key) == []
            late: Answer = answer.result(timeout=20)
        assert (late.status, late.headers["x-should-retry"]) == (504, "false")
        assert entries(gateway, key) == [("failed", 0, 0)]


def test_an_accepted_task_is_never_tried_elsewhere(tmp_path: Path) -> None:
    with polled_provider() as first, polled_provider() as second:
        toml = toml_of(tmp_path, first).replace('provider = "sample"\nupstream_model = "flux-2-pro"\n', "")
        for number, (name, url) in enumerate((("sample", first.url), ("second", second.url))):
            toml += (
                f'\n[[models.deployments]]\nprovider = "{name}"\nupstream_model = "flux-2-pro"\npriority = {number}\n'
            )
            if number:
                toml += (
                    f'[[providers]]\nname = "second"\ndialect = "bfl"\nbase_url = "{url}/v1"\npoll_interval = 0.05\n'
                )
        with running_gateway(tmp_path, toml) as gateway:
            key = gateway.make_key(10 * PRICE)
            first.end = "failed"
            assert gateway.generate(key).status == 502
            assert (len(first.tasks), len(second.tasks)) == (1, 0)
            # What was refused before there was a task may go on.
            first.submit = Look(429, {}, b"{}")
            assert gateway.generate(key).status == 200
            assert len(second.tasks) == 1


@pytest.mark.parametrize("dialect", ["fal", "replicate"])
@pytest.mark.parametrize("client_gone", ["cancel", "finish"])
def test_a_client_that_leaves(tmp_path: Path, dialect: str, client_gone: str) -> None:
    accounting = {"client_gone": client_gone}
    with (
        polled_provider(dialect) as provider,
        running_gateway(tmp_path, toml_of(tmp_path, provider, accounting=accounting)) as gateway,
    ):
        provider.holds = True
        key = gateway.make_key(10 * PRICE)
        address = urlsplit(gateway.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/images/generations", '{"model":"acme/image-1","prompt":"x"}', headers)
        wait_for(lambda: provider.polls > 1, "looks at the task")
        connection.close()
        if client_gone == "cancel":
            wait_for(lambda: provider.only.cancelled, "the task's end")
        else:
            provider.release()
        wait_for(lambda: len(gateway.ledger(key)) == 1, "the entry")
        made = 0 if client_gone == "cancel" else 1
        assert provider.only.cancelled is (client_gone == "cancel")
        assert entries(gateway, key) == [("abandoned", made, made * PRICE)]


def test_what_outlasts_its_time_is_cancelled(tmp_path: Path) -> None:
    settings = {"total_timeout": 1}
    with (
        polled_provider("replicate") as provider,
        running_gateway(tmp_path, toml_of(tmp_path, provider, provider=settings)) as gateway,
    ):
        provider.holds = True
        key = gateway.make_key(10 * PRICE)
        assert gateway.generate(key).status == 504
        wait_for(lambda: provider.only.cancelled, "the task's end")
        assert entries(gateway, key) == [("failed", 0, 0)]


def test_chat_is_no_business_of_theirs(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    body = {"model": "acme/image-1", "messages": [{"role": "user", "content": "x"}], "modalities": ["image", "text"]}
    answer = ask("POST", f"{gateway.url}/v1/chat/completions", key=gateway.make_key(10 * PRICE), body=body)
    assert answer.status == 400
    assert provider.tasks == {}


def test_many_are_polled_at_once(pair: tuple[RunningGateway, PolledProvider]) -> None:
    gateway, provider = pair
    provider.holds = True
    key = gateway.make_key(100 * PRICE)
    with ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(gateway.generate, key) for _ in range(20)]
        wait_for(lambda: len(provider.tasks) == 20, "the tasks")
        provider.release()
        assert [answer.result(timeout=20).status for answer in answers] == [200] * 20
    assert entries(gateway, key) == [("delivered", 1, PRICE)] * 20
