"""Models that retire, over sockets: told before their day, and refused from then on."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai
import pytest

from tests.end_to_end.test_reload import configured, reload
from tests.support.gateways import (
    PROVIDER_KEY,
    RunningGateway,
    SampleProvider,
    ask,
    image_model,
    key_id,
    running_gateway,
)
from tests.support.processes import python_module

TODAY = datetime.now(UTC).date()
SOON, PAST = TODAY + timedelta(days=3), TODAY - timedelta(days=1)


def retiring(toml: str, **days: str) -> str:
    """``toml`` with what its models say of their end; JSON has no dates."""
    for name, ends in days.items():
        toml = toml.replace(f'id = "{name}"\n', f'id = "{name}"\n{ends}\n')
    return toml


def configuration_of(folder: Path, url: str) -> str:
    models = [image_model(name) for name in ("new", "soon", "gone", "lost")]
    toml = configured(
        folder, url, *models, {"id": "old-name", "alias_of": "new"}, {"id": "gone-too", "alias_of": "gone"}
    )
    return retiring(
        toml,
        **{
            "soon": f'retires = {SOON}\nreplaced_by = "new"',
            "gone": f'retires = {PAST}\nreplaced_by = "new"',
            "lost": f"retires = {TODAY}",
            "old-name": f'retires = {SOON}\nreplaced_by = "new"',
        },
    )


def test_models_that_retire(quiet_provider: SampleProvider, tmp_path: Path) -> None:
    toml = configuration_of(tmp_path, quiet_provider.url)
    with running_gateway(tmp_path, toml) as gateway:
        key = gateway.make_key()
        listed = {model["id"]: model for model in ask("GET", f"{gateway.url}/v1/models", key=key).json["data"]}
        assert [*listed] == ["new", "soon", "old-name"]
        for name in ("soon", "old-name"):
            assert (listed[name]["retires"], listed[name]["replaced_by"]) == (f"{SOON}", "new")
            assert gateway.generate(key, model=name).status == 200
        assert "retires" not in listed["new"]
        before = gateway.quota(key)
        quiet_provider.clear()
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            for name, told in {
                "gone": f"The model 'gone' was retired on {PAST}; use 'new' instead.",
                "gone-too": f"The model 'gone-too' was retired on {PAST}; use 'new' instead.",
                "lost": f"The model 'lost' was retired on {TODAY}.",
            }.items():
                for call in (
                    lambda name=name: client.images.generate(model=name, prompt="x"),
                    lambda name=name: client.models.retrieve(name),
                ):
                    with pytest.raises(openai.NotFoundError) as caught:
                        call()
                    assert isinstance(caught.value.body, dict)
                    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
                    assert caught.value.body["message"] == told
        assert (gateway.quota(key), quiet_provider.requests()) == (before, [])
        assert len(gateway.ledger(key)) == 2
        check_log(gateway)
        reload(gateway, tmp_path, toml.replace(f"retires = {PAST}", f"retires = {SOON}"))
        assert gateway.generate(key, model="gone-too").status == 200
        gateway.check_books(key)
        assert key_id(key) not in "".join(line for line in gateway.server.output.splitlines() if "retire" in line)


def check_log(gateway: RunningGateway) -> None:
    """Each is told at the start, and not again by requests."""
    told = [json.loads(line)["message"] for line in gateway.server.output.splitlines() if "retire" in line]
    assert told == [
        f"The model 'soon' retires on {SOON}, and is refused from then on; use 'new' instead.",
        f"The model 'gone' was retired on {PAST}; use 'new' instead.",
        f"The model 'lost' was retired on {TODAY}.",
        f"The model 'old-name' retires on {SOON}, and is refused from then on; use 'new' instead.",
    ]


def test_config_check_warns_of_them(tmp_path: Path) -> None:
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration_of(tmp_path, "http://127.0.0.1:9"))
    command = python_module("proxy.cli", "config", "check", "--config", str(path))
    environment = {"SAMPLE_PROVIDER_KEY": PROVIDER_KEY}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    warning = f"The model 'soon' retires on {SOON}, and is refused from then on; use 'new' instead."
    assert f"warning: {warning}\n" in text
    assert text.count("warning: The model") == 4
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    assert found["ok"]
    assert found["warnings"][0] == warning
    assert found["models"] == ["new", "soon", "gone", "lost", "old-name", "gone-too"]
