"""What a supervisor does before it becomes another program, and how that gets to know of everything."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from proxy.admin_side import ADMIN_TOKEN_FILE
from proxy.metering.embedded.server import EmbeddedStoreError
from proxy.metering.private_folder import make_private_folder
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import parse_settings
from proxy.supervisor import handover
from proxy.supervisor.front import Front
from tests.support.gateways import ADMIN_TOKEN, PROVIDER_KEY, configuration


class _BecomeError(Exception):
    """In place of another program."""


def test_what_is_handed_over_needs_no_folder_of_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def become(_program: str, _command: list[str], environment: dict[str, str]) -> NoReturn:
        descriptor = json.loads(environment[handover.VARIABLE])["supervisor"]
        seen.append(handover.read_handed(os.dup(descriptor)))
        raise _BecomeError

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(os, "execve", become)
    try:
        with pytest.raises(_BecomeError):
            handover.become(tmp_path / "lightmeter.toml", {"generation": 7})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handover.SIGNALS)
    assert seen == [{"generation": 7}]


@pytest.mark.parametrize(
    ("section", "more", "why"),
    [
        ("store", {"server": "/none"}, "store.server: there is no program '/none'"),
        ("admin", {"tokens": [{"name": "same", "role": "viewer", "token_env": "SAME"}]}, "'same' is the gateway's own"),
    ],
)
def test_what_would_end_the_next_program_is_found_before_there_is_no_way_back(
    tmp_path: Path, section: str, more: dict[str, Any], why: str
) -> None:
    # The gateway's own token is in its folder, where the configuration alone does not tell of it.
    make_private_folder(tmp_path / "data")
    (tmp_path / "data" / ADMIN_TOKEN_FILE).write_text(ADMIN_TOKEN)
    environment = {"SAMPLE_PROVIDER_KEY": PROVIDER_KEY, "SAME": ADMIN_TOKEN}
    changes: Any = {section: more}
    toml = configuration(f"embedded:{tmp_path}/data", "http://127.0.0.1:9", **changes)
    with pytest.raises((ConfigurationError, EmbeddedStoreError), match=why):
        Front.rehearse(parse_settings(toml, "lightmeter.toml", environment), environment)


def test_a_worker_can_be_started_though_the_folder_of_this_process_has_been_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    monkeypatch.setattr(sys, "path", ["/installed", *sys.path])
    given = handover.command("/etc/lightmeter.toml")
    assert (given[1], given[-3:]) == ("-P", ["serve", "--config", "/etc/lightmeter.toml"])


async def test_an_interpreter_that_is_gone_is_told_before_there_is_no_way_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(handover.TrialError, match="python cannot be run: No such file"):
        await handover.try_out(tmp_path / "lightmeter.toml")
