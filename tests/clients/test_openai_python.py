"""The image tests of OpenAI's package for Python, from its own source, against a real gateway."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import IMAGE_PRICE, PARAMETERS, charges
from tests.support.gateways import SampleProvider, configuration, image_model, running_gateway
from tests.support.locked import source_of
from tests.support.processes import wait_for

SUITE = "tests/api_resources/test_images.py"
SUITE_S = 100

# Those that a gateway cannot let pass, each with its reason. One that passes has to leave the list.
EXCEPTIONS: dict[str, str] = {}

# Their conftest has a key of its own in it. Loaded beside it, this puts ours there, and tells how each test ended.
PLUGIN = """
import json, os, pathlib, sys

ended = {}

def pytest_collection_finish(session):
    sys.modules["tests.conftest"].api_key = os.environ["GATEWAY_KEY"]

def pytest_runtest_logreport(report):
    failed = report.failed and (str(report.longrepr).splitlines() or [""])[-1]
    if report.when == "call" or not report.passed:
        ended[report.nodeid.partition("::")[2]] = [report.outcome, failed or ""]

def pytest_sessionfinish():
    pathlib.Path(os.environ["ENDED"]).write_text(json.dumps(ended))
"""


# pip builds what it reads the metadata of.
@pytest.mark.timeout(300)
def test_openais_own_image_tests_pass(provider: SampleProvider, tmp_path: Path, cache: Path) -> None:
    source = source_of("openai", cache)
    models = sorted(set(re.findall(r'\bmodel="([^"]+)"', (source / SUITE).read_text())))
    assert models
    toml = configuration(
        f"embedded:{tmp_path}/store",
        provider.url,
        models=[image_model(name, upstream_model=name, parameters=PARAMETERS) for name in models],
        server={"default_model": models[0]},
    )
    with running_gateway(tmp_path / "gateway", toml) as gateway:
        key = gateway.make_key()
        ended = run_suite(source, tmp_path, gateway.url, key)
        failed = {name: error for name, (outcome, error) in ended.items() if outcome != "passed"}
        assert failed.keys() == EXCEPTIONS.keys(), failed
        assert len(ended) >= 100
        # A test that closes its stream at once has asked for an image all the same, and its settlement may come later.
        wait_for(lambda: len(gateway.ledger(key)) >= len(ended) - len(EXCEPTIONS), "an entry for each test")
        assert {charged for _, _, charged in charges(gateway, key)} == {IMAGE_PRICE}


def run_suite(source: Path, folder: Path, url: str, key: str) -> dict[str, tuple[str, str]]:
    """How each test of the suite ended, and the last line of its error."""
    (folder / "gateway_key.py").write_text(PLUGIN)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTEST_"))}
    told = folder / "ended.json"
    command = [sys.executable, "-m", "pytest", "-p", "gateway_key", "-p", "no:schemathesis", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, "-o", "addopts=", "--quiet", "--tb=short", SUITE],
        cwd=source,
        env={
            **inherited,
            "TEST_API_BASE_URL": f"{url}/v1",
            "GATEWAY_KEY": key,
            "ENDED": str(told),
            "PYTHONPATH": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=SUITE_S,
        check=False,
    )
    assert told.exists(), ran.stdout[-3_000:] + ran.stderr[-3_000:]
    ended: dict[str, tuple[str, str]] = json.loads(told.read_text())
    assert ended, ran.stdout[-3_000:]
    return ended
