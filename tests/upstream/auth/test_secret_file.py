from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxy.domain.errors import NoCredentials
from proxy.telemetry.secrets import KNOWN_SECRETS
from proxy.upstream.auth import secret_file
from proxy.upstream.auth.auth import Credentials
from proxy.upstream.auth.secret_file import LOOK_S, SecretFile


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.looks = 0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def counted(path: Path) -> os.stat_result:
        clock.looks += 1
        return path.stat()

    monkeypatch.setattr(secret_file, "monotonic", clock)
    monkeypatch.setattr(secret_file, "os", SimpleNamespace(stat=counted))
    return clock


def opened(path: Path) -> SecretFile:
    return SecretFile("acme", path, lambda secret: Credentials({"x": secret}))


async def test_a_file_is_looked_at_once_a_second_at_most(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "key"
    path.write_text(" first-secret \n")
    file = opened(path)
    for _ in range(100):
        assert (await file.current()).headers == {"x": "first-secret"}
    assert clock.looks == 1
    path.write_text("other-secret")
    assert (await file.current()).headers == {"x": "first-secret"}
    clock.now_s += LOOK_S
    assert (await file.current()).headers == {"x": "other-secret"}
    assert clock.looks == 2
    assert KNOWN_SECRETS.remove("first-secret other-secret") == "[removed] [removed]"


async def test_two_writings_in_one_moment_and_of_one_length_are_two(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "key"
    path.write_text("secret-a")
    file, before = opened(path), path.stat()
    assert (await file.current()).headers == {"x": "secret-a"}
    path.write_text("secret-b")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now_s += LOOK_S
    assert (await file.current()).headers == {"x": "secret-b"}


async def test_an_old_file_that_has_not_changed_is_not_read_again(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "key"
    path.write_text("secret-a")
    os.utime(path, (1, 1))
    file = opened(path)
    first = await file.current()
    for _ in range(3):
        clock.now_s += LOOK_S
        assert await file.current() is first
    assert clock.looks == 4


async def test_what_is_told_is_told_once_and_the_last_good_key_stays(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    file = opened(path)
    for _ in range(3):
        with pytest.raises(NoCredentials):
            await file.current()
        clock.now_s += LOOK_S
    assert [record.getMessage() for record in caplog.records] == [
        f"provider acme: {path} No such file or directory; no request can be sent there"
    ]
    path.write_text("secret-a")
    assert (await file.current()).headers == {"x": "secret-a"}
    for content in (b"", b"secret\nof two lines", b"\xff"):
        path.write_bytes(content)
        clock.now_s += LOOK_S
        assert (await file.current()).headers == {"x": "secret-a"}
    assert "of two lines" not in caplog.text
    assert caplog.text.count("stays in force") == 2
