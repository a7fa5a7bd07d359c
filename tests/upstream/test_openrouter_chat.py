"""OpenRouter's own fields of a chat: what is forwarded, and what would change who answers and what it costs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.domain.catalog import Model
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.chat import CHAT_PARAMETERS, ChatRequest, parse_chat_request
from proxy.domain.requests.unknown import accept_unknown
from proxy.settings.models import ModelSettings
from proxy.upstream.dialects import DIALECTS
from proxy.upstream.dialects.openrouter_chat import IN_IMAGE_CONFIG, LEFT_OUT, PASSED_ON, OpenRouterChat
from tests.domain.samples import make_model

CHAT = OpenRouterChat()
WISHES = {"order": ["one"], "only": ["one"], "sort": "price", "data_collection": "deny", "zdr": True, "ignore": ["two"]}


def model(**fields: Any) -> Model:
    return make_model(chat_fields=CHAT.own_fields, **fields)


def asked(given: dict[str, Any], **fields: Any) -> ChatRequest:
    request = accept_unknown(
        parse_chat_request(orjson.dumps({"messages": [{"role": "user"}], **given})), model(**fields)
    )
    assert isinstance(request, ChatRequest)
    return request


def written(given: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(CHAT.write(asked(given, **fields), model(**fields)))
    return body


@pytest.mark.parametrize("name", PASSED_ON)
def test_what_changes_no_price_is_forwarded(name: str) -> None:
    assert written({name: {"a": 1}})[name] == {"a": 1}
    assert name not in written({name: None})


@pytest.mark.parametrize("name", [*LEFT_OUT, "plugins"])
@pytest.mark.parametrize("policy", ["refuse", "drop", "forward"])
def test_what_would_have_another_model_answer_is_understood_and_left_out(name: str, policy: str) -> None:
    assert name not in written({name: ["acme/dear"]}, unknown_parameters=policy)


def test_a_wish_for_who_may_not_answer_is_forwarded_and_one_for_who_should_is_the_operators() -> None:
    assert written({"provider": WISHES})["provider"] == {"data_collection": "deny", "zdr": True, "ignore": ["two"]}
    assert "provider" not in written({"provider": {"order": ["one"]}})
    listed = written({"provider": WISHES, "plugins": [{"id": "web"}]}, parameters=CHAT_PARAMETERS)
    assert (listed["provider"], listed["plugins"]) == (WISHES, [{"id": "web"}])
    with pytest.raises(InvalidRequest) as refused:
        written({"provider": "one"})
    assert refused.value.param == "provider"


@pytest.mark.parametrize(("usage", "wants"), [({"include": True}, True), ({"include": False}, False), (True, False)])
def test_usage_may_be_asked_for_in_its_words(usage: object, wants: bool) -> None:
    assert asked({"usage": usage, "stream": True}).wants_usage is wants


@pytest.mark.parametrize("name", IN_IMAGE_CONFIG)
def test_members_of_image_config_that_single_models_have_are_forwarded(name: str) -> None:
    config = {"image_size": "2k", name: [1]}
    assert written({"image_config": config})["image_config"] == {"image_size": "2K", name: [1]}
    with pytest.raises(UnknownParameter) as refused:
        written({"image_config": {"quality": "high"}})
    assert refused.value.param == "image_config.quality"


def test_they_are_known_where_every_provider_of_the_model_knows_them() -> None:
    settings = ModelSettings(id="m", provider="p", upstream_model="u", token_multiplier=1)
    own, both = (
        settings.to_model([DIALECTS[name] for name in names]) for names in (["openrouter"], ["openrouter", "openai"])
    )
    request = parse_chat_request(orjson.dumps({"messages": [{"role": "user"}], "top_k": 4}))
    assert accept_unknown(request, own).fields["top_k"] == 4
    with pytest.raises(UnknownParameter):
        accept_unknown(request, both)
