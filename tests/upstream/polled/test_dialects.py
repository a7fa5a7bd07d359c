"""What is sent to each provider that is polled, and what its answers say, in the shapes that it publishes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import ProviderRefusal, UpstreamError
from proxy.domain.requests.image import ImageRequest, Task, parse_image_request
from proxy.domain.requests.unknown import accept_unknown
from proxy.upstream.dialects.polled import POLLED_DIALECTS
from proxy.upstream.dialects.polled.protocol import TaskState, Ticket
from tests.domain.samples import written as body_of

DIALECTS = sorted(POLLED_DIALECTS)
IMAGE = "https://files.example/1.png"
NAMES = {
    "bfl": "flux-2-pro",
    "fal": "fal-ai/flux-2-pro",
    "replicate": "black-forest-labs/flux-1.1-pro",
}


def model(dialect: str, *parameters: str, **more: Any) -> Model:
    fields: dict[str, Any] = {
        "id": "m", "provider": dialect, "upstream_model": NAMES[dialect], "token_multiplier": Decimal(1),
        "parameters": frozenset(parameters), **more,
    }  # fmt: skip
    return Model(**fields)


def asked(made: Model, **fields: Any) -> ImageRequest:
    request = accept_unknown(parse_image_request(orjson.dumps({"model": "m", "prompt": "a cube", **fields})), made)
    assert isinstance(request, ImageRequest)
    return request


def written(dialect: str, *parameters: str, more: dict[str, Any] | None = None, **fields: Any) -> Any:
    made = model(dialect, *parameters, **(more or {}))
    body = body_of(POLLED_DIALECTS[dialect].write_generation(asked(made, **fields), made))
    inner = body.pop("input", body)
    assert inner.pop("prompt") == "a cube"
    return inner


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_what_the_model_lists_is_sent(dialect: str) -> None:
    fields: dict[str, Any] = {
        "size": "1024x768",
        "n": 2,
        "output_format": "png",
        "image_config": {"aspect_ratio": "16:9"},
    }
    assert written(dialect, **fields) == {}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", ["1024x768", "2K", "4K"])
def test_a_size_is_pixels(dialect: str, size: str) -> None:
    width, height = {"1024x768": (1024, 768), "2K": (2048, 2048), "4K": (4096, 4096)}[size]
    sent = written(dialect, "size", size=size)
    assert sent.get("image_size", sent) == {"width": width, "height": height}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_auto_leaves_the_size_open(dialect: str) -> None:
    assert written(dialect, "size", size="auto") == written(dialect, "size") == {}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fields", [{"size": "1376x768"}, {"image_config": {"aspect_ratio": "16:9"}}])
def test_an_aspect_ratio_where_the_model_takes_one(dialect: str, fields: dict[str, Any]) -> None:
    sent = written(dialect, "size", "image_config", **fields)
    assert sent["aspect_ratio"] == "16:9"
    assert {"width", "image_size"}.isdisjoint(sent)


@pytest.mark.parametrize(("dialect", "format_name"), [("bfl", "jpeg"), ("fal", "jpeg"), ("replicate", "jpg")])
def test_a_format_has_its_name(dialect: str, format_name: str) -> None:
    assert written(dialect, "output_format", output_format="jpeg") == {"output_format": format_name}


@pytest.mark.parametrize(("dialect", "name"), [("fal", "num_images"), ("replicate", "num_outputs")])
def test_several_images_of_one_task(dialect: str, name: str) -> None:
    assert written(dialect, "n", n=3) == {name: 3}
    # Not every model knows the field.
    assert written(dialect, "n", n=1) == {}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_unknown_fields_take_no_place_that_is_priced_and_tell_nobody(dialect: str) -> None:
    unknown = {
        "seed": 7, "width": 9_999, "height": 9_999, "aspect_ratio": "1:1", "webhook_url": "https://x.example",
        "webhook": "https://x.example", "webhook_secret": "s",
    }  # fmt: skip
    more = {"unknown_parameters": "forward", "abilities": frozenset({Ability.LINKED_IMAGES})}
    assert written(dialect, more=more, **unknown) == {"seed": 7}


@pytest.mark.parametrize(("dialect", "name"), [("fal", "num_images"), ("replicate", "num_outputs")])
def test_nor_do_they_ask_for_more_images(dialect: str, name: str) -> None:
    assert written(dialect, more={"unknown_parameters": "forward"}, **{name: 4}) == {}


def test_where_a_task_is_asked_for() -> None:
    paths = {}
    for dialect in DIALECTS:
        made = model(dialect)
        paths[dialect] = POLLED_DIALECTS[dialect].images_path(asked(made), made)
    assert paths == {
        "bfl": "/flux-2-pro",
        "fal": "/fal-ai/flux-2-pro",
        "replicate": "/models/black-forest-labs/flux-1.1-pro/predictions",
    }


@pytest.mark.parametrize("name", ["a" * 64, "owner/name:" + "a" * 64])
def test_a_version_has_a_path_of_its_own(name: str) -> None:
    made, dialect = model("replicate", upstream_model=name), POLLED_DIALECTS["replicate"]
    assert dialect.images_path(asked(made), made) == "/predictions"
    assert body_of(dialect.write_generation(asked(made), made))["version"] == "a" * 64


@pytest.mark.parametrize("name", ["fal-ai/nano-banana", "fal-ai/nano-banana/edit"])
def test_an_edit_at_fal_has_a_path_below_its_model(name: str) -> None:
    request = ImageRequest("m", "x", task=Task.EDIT)
    path = POLLED_DIALECTS["fal"].images_path(request, model("fal", upstream_model=name))
    assert path == "/fal-ai/nano-banana/edit"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("answer", [{}, {"id": "1"}, {"polling_url": 1}, {"urls": []}, {"status_url": "x"}])
def test_an_answer_without_a_ticket(dialect: str, answer: dict[str, Any]) -> None:
    assert POLLED_DIALECTS[dialect].read_ticket(answer) is None


def test_tickets() -> None:
    fal = {"status_url": "s", "response_url": "r", "cancel_url": "c", "request_id": "1", "queue_position": 0}
    assert POLLED_DIALECTS["fal"].read_ticket(fal) == Ticket("s", "r", "c")
    bfl = POLLED_DIALECTS["bfl"]
    assert bfl.read_ticket({"id": "1", "polling_url": "p", "cost": 4.5}) == Ticket("p", cost_usd=Decimal("0.045"))
    for cost in (None, "4", True, -1, [4]):
        assert bfl.read_ticket({"polling_url": "p", "cost": cost}) == Ticket("p")
    assert POLLED_DIALECTS["replicate"].read_ticket({"urls": {"get": "g", "cancel": "c"}}) == Ticket("g", "", "c")


@pytest.mark.parametrize(
    ("dialect", "answer", "state"),
    [
        ("bfl", {"status": "Pending"}, TaskState.PENDING),
        ("bfl", {"status": "Reviewing"}, TaskState.PENDING),
        ("bfl", {"status": None}, TaskState.PENDING),
        ("bfl", {}, TaskState.PENDING),
        ("bfl", {"status": "Task not found"}, TaskState.UNKNOWN),
        ("fal", {"status": "IN_QUEUE", "queue_position": 3}, TaskState.PENDING),
        ("fal", {"status": "IN_PROGRESS", "logs": []}, TaskState.PENDING),
        ("fal", {"status": "COMPLETED"}, TaskState.DONE),
        ("replicate", {"status": "starting"}, TaskState.PENDING),
        ("replicate", {"status": "processing", "output": [IMAGE]}, TaskState.PENDING),
    ],
)
def test_statuses(dialect: str, answer: dict[str, Any], state: TaskState) -> None:
    said = POLLED_DIALECTS[dialect].read_status(answer)
    assert (said.state, said.error) == (state, None)


@pytest.mark.parametrize(
    ("dialect", "answer", "kind"),
    [
        ("fal", {"status": "COMPLETED", "error": "it broke", "error_type": "runner_error"}, UpstreamError),
        ("fal", {"status": "COMPLETED", "error": "no", "error_type": "content_policy_violation"}, ProviderRefusal),
        ("replicate", {"status": "failed", "error": "CUDA out of memory"}, UpstreamError),
        ("replicate", {"status": "failed", "error": None}, UpstreamError),
        ("replicate", {"status": "canceled", "error": None}, UpstreamError),
        ("replicate", {"status": "failed", "error": "NSFW content detected. Try running it again"}, ProviderRefusal),
        ("replicate", {"status": "failed", "error": "The input was flagged as sensitive (E005)"}, ProviderRefusal),
    ],
)
def test_failures(dialect: str, answer: dict[str, Any], kind: type[Exception]) -> None:
    said = POLLED_DIALECTS[dialect].read_status(answer)
    assert said.state is TaskState.FAILED
    assert isinstance(said.error, kind)


@pytest.mark.parametrize(
    ("dialect", "answer", "images"),
    [
        ("fal", {"images": [{"url": IMAGE}, {"url": IMAGE + "2"}]}, (IMAGE, IMAGE + "2")),
        ("fal", {"image": {"url": IMAGE}}, (IMAGE,)),
        ("fal", {"images": [], "image": {"url": IMAGE}}, (IMAGE,)),
        ("fal", {"video": {"url": IMAGE}}, ()),
        ("replicate", {"output": IMAGE}, (IMAGE,)),
        ("replicate", {"output": [IMAGE, IMAGE + "2"]}, (IMAGE, IMAGE + "2")),
        ("replicate", {"output": {"images": [IMAGE]}}, (IMAGE,)),
        ("replicate", {"output": [{"url": IMAGE}]}, (IMAGE,)),
        ("replicate", {"output": "a poem"}, ()),
        ("replicate", {"output": None}, ()),
        ("replicate", {"output": [None, 1, "javascript:x"]}, ()),
    ],
)
def test_results(dialect: str, answer: dict[str, Any], images: tuple[str, ...]) -> None:
    assert POLLED_DIALECTS[dialect].read_result(answer) == images
