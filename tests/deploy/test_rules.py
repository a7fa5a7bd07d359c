from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.prometheus import FOLDER
from tests.support.requirements import program

TESTS = sorted((FOLDER / "tests").glob("*.yml"))
_expected = re.compile(r"alertname: (\w+)\n\s+exp_alerts:( \[\])?\n")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("promtool", "prometheus"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_configuration_and_the_rules_are_valid() -> None:
    checked = promtool("check", "config", FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    linted = promtool("check", "rules", "--lint=all", "--lint-fatal", FOLDER / "rules.yml", FOLDER / "alerts.yml")
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_are_silent_when_not(path: Path) -> None:
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_is_expected_to_fire_once_and_to_be_silent_once() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text()))
    expected = [found for path in TESTS for found in _expected.findall(path.read_text())]
    assert len(alerts) > 10
    assert {name for name, silent in expected if not silent} == alerts
    assert {name for name, silent in expected if silent} == alerts


def test_each_alert_says_what_is_the_matter_and_what_to_do() -> None:
    for alert in (FOLDER / "alerts.yml").read_text().split("- alert: ")[1:]:
        for field in ("severity: (critical|warning)\n", "summary: ", "description: ", "what_to_do: "):
            assert re.search(rf"^ +{field}", alert, re.MULTILINE), (alert.splitlines()[0], field)


def test_a_rule_that_is_wrong_fails(tmp_path: Path) -> None:
    for name in ("rules.yml", "alerts.yml"):
        (tmp_path / name).write_text((FOLDER / name).read_text().replace("lightmeter_store_up == 0", "vector(1) == 0"))
    (tmp_path / "tests").mkdir()
    test = tmp_path / "tests" / "store.yml"
    test.write_text((FOLDER / "tests" / "store.yml").read_text())
    assert promtool("test", "rules", test).returncode == 1
