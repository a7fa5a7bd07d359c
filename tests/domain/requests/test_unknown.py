from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.domain.catalog import Ability, Catalog, Model
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.chat import ChatRequest, parse_chat_request
from proxy.domain.requests.edit import FieldKind, kind_of_field, parse_edit_request, request_of_form
from proxy.domain.requests.image import ImageRequest, Task, parse_image_request
from proxy.domain.requests.unknown import DROP, FIELDS_LIMIT, FORWARD, REFUSE, accept_unknown
from tests.domain.samples import make_model
from tests.support.sources import upload

LINK = "https://a.example/cat.png"


def generation(**fields: Any) -> ImageRequest:
    return parse_image_request(orjson.dumps({"prompt": "a cube", **fields}))


def edit(**fields: Any) -> ImageRequest:
    return parse_edit_request(orjson.dumps({"prompt": "a cube", "images": [{"image_url": LINK}], **fields}))


def chat(**fields: Any) -> ChatRequest:
    return parse_chat_request(orjson.dumps({"messages": [{"role": "user"}], **fields}))


def form(*texts: tuple[str, str]) -> ImageRequest:
    files = [upload("image"), upload("sketch")]
    return request_of_form([("prompt", "a cube"), *texts], files, Task.EDIT)


def model(policy: str, **fields: Any) -> Model:
    return make_model(unknown_parameters=policy, abilities=frozenset(Ability), **fields)


ASKED = [generation(seed=7), edit(seed=7), chat(seed_phrase=7), form(("seed", "7"))]
IDS = ["generation", "edit", "chat", "form"]


@pytest.mark.parametrize("asked", ASKED, ids=IDS)
def test_a_model_refuses_them_by_name_or_leaves_them_out_or_forwards_them(asked: ImageRequest | ChatRequest) -> None:
    with pytest.raises(UnknownParameter) as refused:
        accept_unknown(asked, model(REFUSE))
    assert refused.value.param in ("seed", "seed_phrase")
    left = accept_unknown(asked, model(DROP))
    assert (left.fields, dict(left.unknown)) == (asked.fields, {})
    sent = accept_unknown(asked, model(FORWARD))
    assert list(sent.unknown.values()) in ([7], ["7"])
    assert sent.fields == asked.fields


def test_a_file_in_a_field_that_nobody_knows_goes_the_same_way() -> None:
    asked = form()
    with pytest.raises(UnknownParameter) as refused:
        accept_unknown(asked, model(REFUSE))
    assert refused.value.param == "sketch"
    names = {
        policy: [file.name for file in accepted.inputs.uploads]
        for policy in (DROP, FORWARD)
        if isinstance(accepted := accept_unknown(asked, model(policy)), ImageRequest)
    }
    assert names == {DROP: ["image"], FORWARD: ["image", "sketch"]}


def test_a_member_of_image_config_goes_the_same_way() -> None:
    asked = generation(image_config={"image_size": "2k", "strength": 0.5})
    with pytest.raises(UnknownParameter) as refused:
        accept_unknown(asked, model(REFUSE))
    assert refused.value.param == "image_config.strength"
    assert accept_unknown(asked, model(DROP)).fields["image_config"] == {"image_size": "2K"}
    assert accept_unknown(asked, model(FORWARD)).fields["image_config"] == {"image_size": "2K", "strength": 0.5}
    # The same name, not within image_config.
    odd = accept_unknown(generation(**{"image_config.strength": 1}), model(FORWARD))
    assert odd.fields["image_config"] == {"strength": 1}


def test_null_is_no_unknown_field() -> None:
    for asked in (generation(seed=None), edit(seed=None), chat(seed_phrase=None), generation(image_config={"a": None})):
        assert accept_unknown(asked, model(REFUSE)) == asked
        assert asked.unknown == {}


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a\r\nb", "é", "x" * 101, "[a]", "-a"])
def test_what_could_be_no_name_of_a_form_is_not_forwarded(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        accept_unknown(generation(**{name: 1}), model(FORWARD))
    assert refused.value.param == name[:100]
    accept_unknown(generation(**{name: 1}), model(DROP))


@pytest.mark.parametrize("name", ["N", "Size", "n[]", "size[0]", "N.x", "QUALITY"])
def test_no_other_spelling_of_a_field_that_is_priced_is_forwarded(name: str) -> None:
    for asked in (generation(**{name: 10}), edit(**{name: 10}), form((name, "10"))):
        with pytest.raises(UnknownParameter) as refused:
            accept_unknown(asked, model(FORWARD))
        assert refused.value.param == name
        accept_unknown(asked, model(DROP))
    for member in ("imageSize", "Image_Size", "ASPECT_RATIO"):
        with pytest.raises(UnknownParameter) as refused:
            accept_unknown(generation(image_config={member: "4K"}), model(FORWARD))
        assert refused.value.param == f"image_config.{member}"
    with pytest.raises(UnknownParameter):
        accept_unknown(chat(Modalities=["image"]), model(FORWARD))
    # What another endpoint knows is no spelling of what this one does.
    assert accept_unknown(generation(image=["data:image/png;base64,AAAA"]), model(FORWARD)).unknown


def test_only_so_many_are_forwarded() -> None:
    accept_unknown(generation(**{f"a{index}": 1 for index in range(FIELDS_LIMIT)}), model(FORWARD))
    with pytest.raises(InvalidRequest):
        accept_unknown(generation(**{f"a{index}": 1 for index in range(FIELDS_LIMIT + 1)}), model(FORWARD))


@pytest.mark.parametrize(
    "address", ["http://a.example/", "https://127.0.0.1/", " HTTPS://169.254.169.254/", "file:///e"]
)
@pytest.mark.parametrize("nest", [lambda value: value, lambda value: {"a": [LINK, {"b": value}]}])
def test_an_address_in_them_is_a_public_one(address: str, nest: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        accept_unknown(generation(reference=nest(address)), model(FORWARD))
    assert refused.value.param == "reference"
    accept_unknown(generation(reference=nest(LINK)), model(FORWARD))
    accept_unknown(generation(reference=nest("data:image/png;base64,AAAA")), model(FORWARD))


def test_an_address_is_none_for_a_model_that_takes_no_links() -> None:
    without = make_model(unknown_parameters=FORWARD, abilities=frozenset())
    with pytest.raises(InvalidRequest, match="data: addresses"):
        accept_unknown(generation(reference=LINK), without)
    accept_unknown(generation(reference="cat.png"), without)


def test_what_they_say_counts_as_a_prompt_of_a_chat() -> None:
    assert chat(notes="x" * 1_000).prompt_tokens > chat().prompt_tokens + 1_000


def test_a_form_is_read_to_its_end_where_a_model_takes_unknown_fields() -> None:
    refusing, dropping = model(REFUSE), model(DROP, id="acme/image-2")
    catalog, before = Catalog([refusing, dropping]), Catalog([refusing])
    assert (before.takes_unknown, catalog.takes_unknown) == (False, True)
    before.replace(catalog)
    assert before.takes_unknown
    assert kind_of_field("seed", Task.EDIT) is None
    assert kind_of_field("seed", Task.EDIT, takes_unknown=True) is FieldKind.EITHER
    assert kind_of_field("n", Task.EDIT, takes_unknown=True) is FieldKind.TEXT
    assert kind_of_field("image", Task.EDIT, takes_unknown=True) is FieldKind.FILE
