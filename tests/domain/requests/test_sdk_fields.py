"""Every field that the installed package of OpenAI knows is known here: a new release shows what is new."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import image_create_variation_params, image_edit_params, image_generate_params
from openai.types.chat import completion_create_params

from proxy.domain.requests.chat import CHAT
from proxy.domain.requests.edit import EDIT_FORM, VARIATION_FORM
from proxy.domain.requests.image import GENERATION
from proxy.domain.requests.kinds import Fields


def names(*params: Any) -> set[str]:
    """The fields of a request, as its TypedDicts have them."""
    return set().union(*(params_of.__required_keys__ | params_of.__optional_keys__ for params_of in params))


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        (
            GENERATION,
            names(
                image_generate_params.ImageGenerateParamsNonStreaming,
                image_generate_params.ImageGenerateParamsStreaming,
            ),
        ),
        (
            EDIT_FORM,
            names(image_edit_params.ImageEditParamsNonStreaming, image_edit_params.ImageEditParamsStreaming),
        ),
        (VARIATION_FORM, names(image_create_variation_params.ImageCreateVariationParams)),
        (
            CHAT,
            names(
                completion_create_params.CompletionCreateParamsNonStreaming,
                completion_create_params.CompletionCreateParamsStreaming,
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Fields) else "",
)
def test_every_field_of_the_package_is_known(fields: Fields, sent: set[str]) -> None:
    assert len(sent) > 5
    assert sent - set(fields.kinds) == set()
