"""Settings of how a provider is reached and let in at, and of how its requests are worded."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.domain.catalog import Ability
from proxy.domain.wording import EditForm, Wording
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_settings
from proxy.telemetry.program import PROGRAM
from proxy.upstream.auth.auth import Auth, Place
from proxy.upstream.auth.aws import Aws
from proxy.upstream.auth.entra import Entra
from proxy.upstream.auth.google import Google

ENVIRONMENT = {"ACME_KEY": " made-up-secret \n", "EMPTY": " ", "ODD": "a\nb"}


def read(provider: str = "", model: str = "", environment: Mapping[str, str] = ENVIRONMENT) -> Settings:
    text = f"""
[[providers]]
name = "acme"
base_url = "https://api.acme.example/v1"
{provider}

[[models]]
id = "acme/image-1"
provider = "acme"
upstream_model = "image-1"
token_multiplier = 1
{model}
"""
    return read_settings(tomllib.loads(text), "lightmeter.toml", environment)


def mistakes(provider: str = "", model: str = "") -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(provider, model)
    return str(raised.value)


def test_a_key_is_taken_to_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    file = tmp_path / "key"
    expected = {
        'api_key_env = "ACME_KEY"': Auth(key="made-up-secret"),
        'auth = { type = "none" }': Auth(name="Authorization"),
        'auth = { type = "bearer", key_env = "ACME_KEY" }': Auth(
            Place.HEADER, "Authorization", "Bearer", "made-up-secret"
        ),
        'auth = { type = "header", name = "api-key", key_env = "ACME_KEY" }': Auth(
            Place.HEADER, "api-key", key="made-up-secret"
        ),
        'auth = { type = "header", name = "Authorization", scheme = "Key", key_env = "ACME_KEY" }': Auth(
            Place.HEADER, "Authorization", "Key", "made-up-secret"
        ),
        'auth = { type = "query", name = "key", key_env = "ACME_KEY" }': Auth(Place.QUERY, "key", key="made-up-secret"),
        f'auth = {{ type = "file", path = "{file}" }}': Auth(name="Authorization", key_file=str(file)),
        f'auth = {{ type = "query", name = "key", key_file = "{file}" }}': Auth(Place.QUERY, "key", key_file=str(file)),
    }
    for text, auth in expected.items():
        settings = read(text)
        (provider,) = settings.provider_list(ENVIRONMENT)
        assert provider.auth == auth
        assert "made-up-secret" not in repr(provider)
        assert ("made-up-secret" in settings.secret_texts(ENVIRONMENT)) == (auth.key != "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('auth = { type = "basic" }', "auth.type: is 'basic': should be one of bearer, header, query"),
        ("auth = {}", "auth.type: is missing"),
        ('auth = "bearer"', "auth: should be a section"),
        ('auth = { type = "bearer" }', "needs one of two: the variable with the key, key_env, or the file"),
        ('auth = { type = "bearer", key_env = "ACME_KEY", key_file = "x" }', "needs one of two"),
        ('auth = { type = "bearer", key_env = "ACME_KEY", name = "x" }', "auth: name does not belong to the type"),
        ('auth = { type = "header", key_env = "ACME_KEY" }', "needs name: the header that carries the key"),
        ('auth = { type = "header", name = "a b", key_env = "ACME_KEY" }', "auth.name: is 'a b': should be one word"),
        ('auth = { type = "header", name = "Host", key_env = "ACME_KEY" }', "it says how a request is sent"),
        ('auth = { type = "query", key_env = "ACME_KEY" }', "needs name: the query's parameter"),
        ('auth = { type = "query", name = "v", key_env = "ACME_KEY" }\nquery = { v = "1" }', "query: has v"),
        ('auth = { type = "file" }', "needs path: the file with the key"),
        ('auth = { type = "file", path = "/nowhere/key" }', "auth.path: /nowhere/key cannot be read: No such file"),
        ('auth = { type = "none", key_env = "ACME_KEY" }', "which takes nothing else"),
        ('auth = { type = "bearer", key_env = "GONE" }', "auth.key_env: the environment has no GONE: export it"),
        ('auth = { type = "bearer", key_env = "EMPTY" }', "auth.key_env: the environment has no EMPTY"),
        ('auth = { type = "bearer", key_env = "ODD" }', "auth.key_env: ODD holds what cannot be in a header"),
        ('auth = { type = "entra", client_secret_env = "ACME_KEY" }', "client_secret_env is the secret of a client_id"),
        (
            'auth = { type = "entra", tenant_id = "t", client_id = "c", client_secret_env = "GONE" }',
            "auth.client_secret_env: the environment has no GONE",
        ),
        ('auth = { type = "google", tenant_id = "t" }', "auth: tenant_id does not belong to the type 'google'"),
        ('auth = { type = "google", credentials_file = "/nowhere" }', "auth.credentials_file: there is no file"),
        ('auth = { type = "none" }\napi_key_env = "ACME_KEY"', "api_key_env: is given beside auth"),
        ("query = { api-version = 2025-04-01 }", "query.api-version: should be a text in quotes"),
        ('query = { api_key = "made-up-secret" }', "query: api_key holds a secret, which has no place in a file"),
        ('paths = { draw = "/x" }', "should be one of generations, edits, variations, chat"),
        ('paths = { generations = "x" }', "paths.generations: is 'x': should be a path like /images/generations"),
        ('paths = { generations = "/x?y=1" }', "paths.generations: should be a path"),
        ('paths = { generations = "/{model}" }', "may have {upstream_model} in it, and nothing else in braces"),
        ('dialect = "gemini"\npaths = { generations = "/x" }', "paths.generations: the dialect 'gemini' has no"),
        ('dialect = "openrouter"\npaths = { edits = "/x" }', "has no such path; there are generations, chat"),
    ],
)  # fmt: skip
def test_a_mistake_about_a_door_is_told_without_its_secret(text: str, told: str) -> None:
    said = mistakes(text)
    assert said.startswith("lightmeter.toml: providers[0]")
    assert told in said
    assert "made-up-secret" not in said


@pytest.mark.parametrize("key", ["key_env", "name", "scheme"])
def test_a_key_in_the_wrong_place_is_not_repeated(key: str) -> None:
    given = {"key_env": '"ACME_KEY"', "name": '"api-key"', key: '"sk-secret of mine?"'}
    text = ", ".join(f"{name} = {value}" for name, value in given.items())
    assert "secret of mine" not in mistakes(f'auth = {{ type = "header", {text} }}')


def test_a_file_that_is_no_key_is_told_without_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "key"
    contents = {b" \n": "is empty", b"one\ntwo": "in one line", b"\xff": "in one line", b"x" * 70_000: "has more than"}
    for content, why in contents.items():
        file.write_bytes(content)
        said = mistakes(f'auth = {{ type = "file", path = "{file}" }}')
        assert why in said
        assert "two" not in said


@pytest.mark.parametrize(
    "url", ["https://{model}.example/v1", "https://api.example/{}/x", "https://api.example/v1?api-version=1"]
)
def test_a_base_url_has_the_model_in_it_and_nothing_else(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings({"providers": [{"name": "a", "base_url": url}]}, "f.toml", {})
    said = str(raised.value)
    assert "providers[0].base_url" in said
    assert "{upstream_model}" in said or "a query belongs into query" in said


def test_a_model_is_worded_as_it_is_told() -> None:
    settings = read(
        "send_model = false",
        """
rename = { image_config.image_size = "resolution", "n" = "count.images" }
words = { resolution = { 1K = "1k" } }
constants = { watermark = false, nested = { a = [1, 2.5, "x"] } }
[models.extra_parameters]
seed = "integer"
complexity = ["low", "high"]
""",
    )
    model = settings.catalog().get("acme/image-1")
    assert model.wording == Wording(
        ((("image_config", "image_size"), ("resolution",)), (("n",), ("count", "images"))),
        {("resolution",): {"1K": "1k"}},
        {"watermark": False, "nested": {"a": [1, 2.5, "x"]}},
        names_model=False,
    )
    assert model.parameters == {"n", "size", "complexity"}
    assert set(model.extras) == {"seed", "complexity"}
    assert settings.catalog().takes_unknown


ALL = set(Ability)


@pytest.mark.parametrize(
    ("edits", "missing"),
    [
        ("form", set()),
        ("files", {Ability.LINKED_IMAGES, Ability.FILE_IDS}),
        ("unmasked_files", ALL - {Ability.EDITS}),
        ("image_objects", {Ability.VARIATIONS, Ability.FILE_IDS}),
        ("image_urls", {Ability.VARIATIONS, Ability.FILE_IDS, Ability.MASKS}),
        ("input_images", ALL - {Ability.EDITS}),
        ("none", ALL - {Ability.LINKED_IMAGES}),
    ],
)
def test_how_a_provider_takes_edits_says_what_it_can_be_asked_for(edits: str, missing: set[Ability]) -> None:
    model = read(f'edits = "{edits}"').catalog().get("acme/image-1")
    assert model.abilities == ALL - missing
    assert (EditForm.FORM if model.wording is None else model.wording.edits) == edits


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('edits = "json"', "providers[0].edits: is 'json': should be one of form, files"),
        ("edits = false", "providers[0].edits: is False: should be one of form, files"),
        ("edits = [1]", "providers[0].edits: should be one of form, files"),
        ('edits = "image_urls"\ndialect = "gemini"', "providers[0].edits: the dialect 'gemini' has its own way"),
    ],
)
def test_edits_that_are_no_way_to_take_them_are_told(text: str, told: str) -> None:
    assert told in mistakes(text)


def test_a_model_that_is_read_again_is_the_same() -> None:
    text = "[models.extra_parameters]\nseed = 'integer'\ncomplexity = ['low', 'high']\nmode = [1, true]"
    assert read(model=text).catalog().get("acme/image-1") == read(model=text).catalog().get("acme/image-1")
    assert read().catalog().get("acme/image-1").wording is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('rename = "x"', "rename: is 'x': should be names, like"),
        ("rename = { n = 1 }", "rename.n: is 1"),
        ('rename = { n = "a b" }', "rename.n: is 'a b': should be a name"),
        ('rename = { nothing = "x" }', "rename.nothing: no request has this field"),
        ('rename = { quality = "x" }', "rename.quality: quality is not forwarded: add it to parameters"),
        ('rename = { n = "model" }', "rename.n: model is taken by what every request says"),
        ('rename = { n = "size" }', "rename.n: size is forwarded under that name already"),
        ('rename = { n = "x", size = "x" }', "rename.n: another field is renamed to x too"),
        ('rename = { n = "x" }\nconstants = { x = 1 }', "rename.n: x is among the constants"),
        ('rename = { stream = "x" }', "rename.stream: every provider knows it by this name"),
        ('rename = { image_config.style = "x" }', "of image_config, aspect_ratio, image_size can be renamed"),
        ('rename = { size.depth = "x" }', "rename.size.depth: of size, width and height can be renamed"),
        ('parameters = ["n"]\nrename = { size.width = "x" }', "rename.size.width: of size, width and height"),
        ("constants = { n = 4 }", "constants: n is what a request is priced by"),
        ('constants = { quality = "high" }', "constants: quality is what a request is priced by"),
        ('constants = { image = "x" }', "constants: image is what an edit starts from"),
        ("constants = { x = 2026-01-01 }", "constants: x should be what JSON has"),
        ("constants = { x = nan }", "constants: x should be what JSON has"),
        ('parameters = ["user"]\nconstants = { user = "x" }', "constants.user: clients may send it too"),
        ('extra_parameters = { seed = "int" }', "extra_parameters.seed: is 'int': should be one of string, integer"),
        ("extra_parameters = { seed = [] }", "extra_parameters.seed: should be one of"),
        ("extra_parameters = { seed = [[1]] }", "extra_parameters.seed: should be one of"),
        ('extra_parameters = { n = "integer" }', "extra_parameters: n is known already"),
        ('extra_parameters = { "a b" = "integer" }', "extra_parameters: a b should be a name"),
    ],
)
def test_a_mistake_about_the_wording_is_told(text: str, told: str) -> None:
    said = mistakes(model=text)
    assert said.startswith("lightmeter.toml: models[0].")
    assert told in said


def test_other_dialects_keep_their_own_names() -> None:
    for dialect in ("gemini", "openrouter"):
        said = mistakes(f'dialect = "{dialect}"', 'rename = { image_config.image_size = "x" }')
        assert "rename.image_config.image_size" in said
    text = 'rename = { strength = "generationConfig.strength" }\nextra_parameters = { strength = "number" }'
    assert read('dialect = "gemini"', text).catalog().get("acme/image-1").wording is not None


def test_tokens_are_asked_for_as_told_and_their_secrets_are_not_repeated() -> None:
    text = 'auth = { type = "entra", tenant_id = "t", client_id = "c", client_secret_env = "ACME_KEY" }'
    settings = read(text)
    (provider,) = settings.provider_list(ENVIRONMENT)
    scope = "https://cognitiveservices.azure.com/.default"
    assert provider.auth == Auth(token=Entra(scope, "t", "c", "made-up-secret"))
    assert "made-up-secret" not in repr(provider)
    assert "made-up-secret" in settings.secret_texts(ENVIRONMENT)
    (provider,) = read('auth = { type = "google", scope = "s" }').provider_list(ENVIRONMENT)
    assert provider.auth == Auth(token=Google("s"))


@pytest.mark.parametrize(
    ("kind", "extra"), [("entra", "azure"), ("google", "google"), ('aws", region = "us-west-2', "aws")]
)
def test_a_type_without_its_library_says_what_to_install(
    kind: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.settings.auth.find_spec", lambda _module: None)
    said = mistakes(f'auth = {{ type = "{kind}" }}')
    kind = kind.partition('"')[0]
    assert f"providers[0].auth.type: '{kind}' needs a library of its own: {PROGRAM.install(extra)}" in said


@pytest.fixture
def _has_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.settings.auth.find_spec", lambda _module: True)


@pytest.mark.usefixtures("_has_libraries")
def test_keys_that_sign_are_read_and_not_repeated() -> None:
    environment = {**ENVIRONMENT, "SESSION": "made-up-session"}
    text = (
        'auth = { type = "aws", region = "us-west-2", access_key_env = "ACME_KEY", secret_key_env = "ACME_KEY", '
        'session_token_env = "SESSION" }'
    )
    settings = read(text, environment=environment)
    (provider,) = settings.provider_list(environment)
    source = Aws("us-west-2", "bedrock", "", "made-up-secret", "made-up-secret", "made-up-session")
    assert provider.auth == Auth(token=source, signs=True)
    assert "made-up-session" not in repr(provider)
    assert {"made-up-secret", "made-up-session"} <= set(settings.secret_texts(environment))
    text = 'auth = { type = "aws", region = "us-gov-west-1", service = "other", profile = "images" }'
    (provider,) = read(text).provider_list(ENVIRONMENT)
    assert provider.auth.token == Aws("us-gov-west-1", "other", "images")


@pytest.mark.usefixtures("_has_libraries")
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", "the type 'aws' needs region"),
        (', region = "https://x"', "should be a region like us-west-2"),
        (', region = "us-west-2", access_key_env = "ACME_KEY"', "access_key_env and secret_key_env belong together"),
        (', region = "us-west-2", session_token_env = "ACME_KEY"', "session_token_env belongs to access_key_env"),
        (
            ', region = "us-west-2", profile = "p", access_key_env = "ACME_KEY", secret_key_env = "ACME_KEY"',
            "profile is given beside access_key_env",
        ),
        (
            ', region = "us-west-2", access_key_env = "ACME_KEY", secret_key_env = "GONE"',
            "auth.secret_key_env: the environment has no GONE",
        ),
        (', region = "us-west-2", key_env = "ACME_KEY"', "key_env does not belong to the type 'aws'"),
        (', region = "us-west-2" }\ndialect = "fal"\nquery = { ', "the dialect 'fal' has to be polled"),
    ],
)
def test_a_mistake_about_what_signs_is_told(more: str, told: str) -> None:
    assert told in mistakes(f'auth = {{ type = "aws"{more} }}')
