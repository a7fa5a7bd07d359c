from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid

import pytest
import uvloop

from proxy.web.server.listener import why_not
from proxy.web.server.sockets.address import ListenAddress
from proxy.web.server.sockets.opening import SocketAccess, UnixSocketFile
from tests.web.server.test_listener import REQUEST, answer_to, make_listener


@pytest.fixture
def path() -> Iterator[Path]:
    """A short one: the kernel takes 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        yield Path(folder) / "public.sock"


def bound(
    path: Path, access: SocketAccess | None = None, *, replace: bool = False
) -> tuple[UnixSocketFile, socket.socket]:
    file = UnixSocketFile(str(path))
    return file, file.bind(access or SocketAccess(), replace=replace)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def test_a_socket_has_its_mode_whatever_the_umask_is(path: Path) -> None:
    before = os.umask(0o077)
    try:
        file, listening = bound(path, SocketAccess(0o666))
    finally:
        os.umask(before)
    with listening:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert [each.name for each in path.parent.iterdir()] == ["public.sock"]
    file.remove()
    assert not path.exists()


def test_a_socket_is_given_to_whom_it_should_belong(path: Path) -> None:
    user, group = getpwuid(os.getuid()).pw_name, getgrgid(os.getgid()).gr_name
    _, listening = bound(path, SocketAccess(user=user, group=group))
    with listening:
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("access", [SocketAccess(user="no-such-user"), SocketAccess(group="no-such-group")])
def test_an_owner_that_nobody_knows_is_told_and_leaves_nothing(path: Path, access: SocketAccess) -> None:
    with pytest.raises(OSError, match=r"no such user or group: .*no-such"):
        bound(path, access)
    assert [*path.parent.iterdir()] == []


def test_a_socket_that_was_left_behind_is_replaced(path: Path) -> None:
    _, left = bound(path)
    left.close()
    assert path.exists()
    assert not connects(path)
    file, listening = bound(path)
    with listening:
        assert connects(path)
    file.remove()


def test_a_socket_in_use_is_not_replaced_unless_it_is_shared(path: Path) -> None:
    first, old = bound(path)
    with old:
        with pytest.raises(OSError, match="in use") as caught:
            bound(path)
        assert "choose another path" in why_not(caught.value, f"unix:{path}", "server.listen")
        second, new = bound(path, replace=True)
        with new:
            # What is in place is another process's now.
            first.remove()
            assert connects(path)
        second.remove()
    assert not path.exists()


def test_what_is_no_socket_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="something else than a socket"):
        bound(path, replace=True)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        bound(path.parent / "nowhere" / "a.sock")
    assert "make its folder" in why_not(caught.value, f"unix:{path}", "server.listen")


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_listener_serves_at_a_path_and_removes_it(
    path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def ask(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(REQUEST)
            # It has sent all that it will: that is no leaving.
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            return await answer_to(client)

    async def answers() -> list[bytes]:
        old, new = make_listener(), make_listener()
        address = ListenAddress(path=str(path))
        assert await old.listen(address, SocketAccess(), reuse_port=True) == f"unix:{path}"
        found = [await ask(path)]
        await new.listen(address, SocketAccess(), reuse_port=True)
        await old.close_door()
        found.append(await ask(path))
        await old.close()
        found.append(await ask(path))
        await new.close()
        return found

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert [answer[-6:] for answer in runner.run(answers())] == [b"served"] * 3
    assert not path.exists()


async def test_who_waits_at_the_door_is_served_when_it_is_closed(path: Path) -> None:
    listener = make_listener()
    await listener.listen(ListenAddress(path=str(path)), SocketAccess(), reuse_port=True)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    try:
        for client in clients:
            client.connect(str(path))
            client.sendall(REQUEST)
            client.setblocking(False)
        await listener.close_door()
        assert not connects(path)
        answers = await asyncio.gather(*map(answer_to, clients))
    finally:
        for client in clients:
            client.close()
        await listener.close()
    assert [answer[-6:] for answer in answers] == [b"served"] * 20
