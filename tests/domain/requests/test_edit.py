from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.catalog import Ability
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.edit import (
    IMAGES_LIMIT,
    FieldKind,
    check_task,
    kind_of_field,
    parse_edit_request,
    request_of_form,
)
from proxy.domain.requests.image import ImageRequest, Task
from proxy.domain.requests.inputs import Reference
from proxy.domain.requests.unknown import accept_unknown
from tests.domain.samples import make_model
from tests.support.sources import upload

TEXTS = [("model", "m"), ("prompt", "a cube"), ("n", "2"), ("size", "4K"), ("stream", "true"), ("quality", "7")]
ONE = [upload()]


def known(request: ImageRequest) -> ImageRequest:
    """The request, where a model that refuses unknown fields accepts it."""
    assert accept_unknown(request, make_model()) == request
    return request


def edit(*texts: tuple[str, str]) -> ImageRequest:
    return known(request_of_form([("prompt", "a cube"), *texts], ONE, Task.EDIT))


def vary(*texts: tuple[str, str]) -> ImageRequest:
    return known(request_of_form(texts, ONE, Task.VARIATION))


# --- Forms ------------------------------------------------------------------------------------------------------------


@given(st.permutations(TEXTS))
def test_the_order_of_the_parts_does_not_matter(texts: list[tuple[str, str]]) -> None:
    asked = request_of_form(texts, ONE, Task.EDIT)
    assert (asked.model, asked.prompt, asked.n, asked.size, asked.stream) == ("m", "a cube", 2, "4K", True)
    assert asked.fields == {"prompt": "a cube", "n": 2, "size": "4K", "stream": True, "quality": "7"}
    assert asked.inputs.images == ONE


def test_a_variation_has_no_prompt() -> None:
    assert (vary(("n", "3")).n, vary().prompt) == (3, "")
    with pytest.raises(UnknownParameter) as caught:
        vary(("prompt", "a cube"))
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "0"), ("n", "two"), ("n", "1.0"), ("n", "٢"), ("n", "9" * 400), ("n", "-1"), ("stream", "yes"),
        ("stream", "1"), ("model", " "), ("image_config", "{"), ("image_config", "null"), ("output_compression", "101"),
        ("prompt", "again"), ("input_fidelity", "h" * 1_001), ("seed", "1"), ("image_config", "[]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        edit((name, text))
    assert caught.value.param == name


def test_a_text_that_is_empty_was_left_out_but_a_prompt_is_needed() -> None:
    assert edit(("n", ""), ("size", "")).fields == {"prompt": "a cube"}
    for texts in ([("n", "1")], [("prompt", "")]):
        with pytest.raises(InvalidRequest) as caught:
            request_of_form(texts, ONE, Task.EDIT)
        assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    "texts",
    [
        [("image_config", '{"image_size":"4K","aspect_ratio":null}')],
        [("image_config[image_size]", "4K"), ("image_config[aspect_ratio]", "")],
    ],
)
def test_image_config_is_json_or_fields_of_its_own(texts: list[tuple[str, str]]) -> None:
    asked = edit(*texts)
    assert asked.image_size == "4K"
    assert asked.fields["image_config"] == {"image_size": "4K"}


@pytest.mark.parametrize(
    ("texts", "param"),
    [
        ([("image_config[colour]", "red")], "image_config.colour"),
        ([("image_config", '{"image_size":"4K"}'), ("image_config[image_size]", "1K")], "image_config"),
        ([("image_config[image_size]", "1K"), ("image_config[image_size]", "4K")], "image_config[image_size]"),
    ],
)
def test_image_config_says_one_thing(texts: list[tuple[str, str]], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        edit(*texts)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("names", "task", "param"),
    [
        ([], Task.EDIT, "image"),
        (["mask"], Task.EDIT, "image"),
        (["image", "mask", "mask"], Task.EDIT, "mask"),
        (["image[]"] * (IMAGES_LIMIT + 1), Task.EDIT, "image"),
        (["image", "image"], Task.VARIATION, "image"),
    ],
)
def test_the_files_that_are_needed_and_no_others(names: list[str], task: Task, param: str) -> None:
    texts = [("prompt", "a cube")] if task is Task.EDIT else []
    with pytest.raises(InvalidRequest) as caught:
        request_of_form(texts, [upload(name) for name in names], task)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "edit_kind", "variation_kind"),
    [
        ("image", FieldKind.FILE, FieldKind.FILE),
        ("image[]", FieldKind.FILE, None),
        ("image[0]", FieldKind.FILE, None),
        ("mask", FieldKind.FILE, None),
        ("n", FieldKind.TEXT, FieldKind.TEXT),
        ("prompt", FieldKind.TEXT, None),
        ("image_config[colour]", FieldKind.TEXT, None),
        ("images", None, None),
        ("image[x]", None, None),
        ("N", None, None),
    ],
)
def test_what_belongs_into_a_field(name: str, edit_kind: FieldKind | None, variation_kind: FieldKind | None) -> None:
    assert (kind_of_field(name, Task.EDIT), kind_of_field(name, Task.VARIATION)) == (edit_kind, variation_kind)


@pytest.mark.parametrize(("name", "text"), [("n", "two"), ("n", "2.0"), ("stream", "True"), ("partial_images", " 1")])
def test_a_text_that_is_no_number_is_given_back_in_the_message(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"not '{text}'"):
        edit((name, text))


# --- JSON -------------------------------------------------------------------------------------------------------------

LINK = {"image_url": "https://a.example/cat.png"}


def parse(**fields: Any) -> ImageRequest:
    return known(parse_edit_request(orjson.dumps({"prompt": "a cube", **fields})))


def test_images_are_referred_to_in_json() -> None:
    asked = parse(images=[LINK, {"file_id": "file-1", "image_url": None}], mask={"file_id": "m"}, n=2, size="4K")
    assert asked.inputs.images == [Reference(LINK["image_url"]), Reference(file_id="file-1")]
    assert asked.inputs.mask == Reference(file_id="m")
    assert (asked.task, asked.n, asked.size) == (Task.EDIT, 2, "4K")
    assert asked.fields == {"prompt": "a cube", "n": 2, "size": "4K"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": LINK}, "images"),
        ({"images": [LINK] * (IMAGES_LIMIT + 1)}, "images"),
        ({"images": ["https://a.example/"]}, "images[0]"),
        ({"images": [LINK, {}]}, "images[1]"),
        ({"images": [{**LINK, "file_id": "f"}]}, "images[0]"),
        ({"images": [{"image_url": 1}]}, "images[0].image_url"),
        ({"images": [{"image_url": "file:///etc/passwd"}]}, "images[0].image_url"),
        ({"images": [{"image_url": "data:text/html;base64,AAAA"}]}, "images[0].image_url"),
        ({"images": [{"file_id": " "}]}, "images[0].file_id"),
        ({"images": [{"file_id": "f" * 1_001}]}, "images[0].file_id"),
        ({"images": [{"path": "x"}]}, "images[0].path"),
        ({"images": [LINK], "mask": "x"}, "mask"),
        ({"images": [LINK], "image": "x"}, "image"),
        ({"images": [LINK], "prompt": None}, "prompt"),
        ({"images": [LINK], "n": "2"}, "n"),
    ],
)
def test_what_is_wrong_in_json_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param


# --- What a model's provider can do -----------------------------------------------------------------------------------

DATA = {"image_url": "data:image/png;base64,AAAA"}


@pytest.mark.parametrize(
    ("request_", "abilities", "param"),
    [
        (parse(images=[DATA]), set(), "model"),
        (parse(images=[DATA]), {Ability.EDITS}, None),
        (parse(images=[DATA, LINK]), {Ability.EDITS}, "images[1].image_url"),
        (parse(images=[LINK]), {Ability.EDITS, Ability.LINKED_IMAGES}, None),
        (parse(images=[{"file_id": "f"}]), {Ability.EDITS, Ability.LINKED_IMAGES}, "images[0].file_id"),
        (parse(images=[DATA], mask=DATA), {Ability.EDITS}, "mask"),
        (parse(images=[DATA], mask=LINK), {Ability.EDITS, Ability.MASKS}, "mask.image_url"),
        (edit(), {Ability.VARIATIONS}, "model"),
        (edit(), {Ability.EDITS}, None),
        (vary(), {Ability.EDITS}, "model"),
        (vary(), {Ability.VARIATIONS}, None),
    ],
)
def test_what_the_provider_cannot_do_is_refused_by_name(
    request_: ImageRequest, abilities: set[Ability], param: str | None
) -> None:
    model = make_model(abilities=frozenset(abilities))
    if param is None:
        check_task(request_, model)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_task(request_, model)
    assert caught.value.param == param


# --- Objects, and files beside the images -----------------------------------------------------------------------------


def test_an_object_in_a_form_has_a_field_for_each_member_or_is_json() -> None:
    svg = {"model": "made-up", "reasoning": {"effort": "low"}}
    assert edit(("svg[reasoning][effort]", "low"), ("svg[model]", "made-up")).fields["svg"] == svg
    assert edit(("svg", orjson.dumps(svg).decode())).fields["svg"] == svg
    assert "svg" not in edit(("svg[model]", "")).fields


@pytest.mark.parametrize(
    "texts",
    [
        [("svg[a]", "1"), ("svg[a][b]", "1")],
        [("svg[a][b]", "1"), ("svg[a]", "1")],
        [("svg[a][b]", "1"), ("svg[a][b][c]", "1")],
        [("svg", "{}"), ("svg[a]", "1")],
        [("svg", "[]")],
        [("quality[a]", "1")],
        [("svg" + "[a]" * 9, "1")],
        [("svg[a\u00e9]", "1")],
        [("svg[]", "1")],
    ],
)
def test_an_object_in_a_form_says_one_thing(texts: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        edit(*texts)
    assert caught.value.param in {texts[-1][0], "svg"}


def test_a_mask_and_a_markup_stand_beside_the_images() -> None:
    image, mask, markup = (upload(name) for name in ("image", "mask", "markup"))
    asked = request_of_form([("prompt", "x")], [markup, image, mask], Task.EDIT)
    assert (asked.inputs.images, asked.inputs.mask, asked.inputs.markup) == ([image], mask, markup)
    assert asked.inputs.uploads == [image, mask, markup]
    with pytest.raises(InvalidRequest) as caught:
        request_of_form([("prompt", "x")], [markup, image, upload("markup")], Task.EDIT)
    assert caught.value.param == "markup"
    assert parse(images=[LINK], markup=LINK).inputs.markup == Reference(LINK["image_url"])
    assert kind_of_field("markup", Task.EDIT) is FieldKind.FILE
    assert kind_of_field("markup", Task.VARIATION) is None
