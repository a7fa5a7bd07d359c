"""Sockets to listen on: of IP in one or both families, and of Unix by a path that may have been left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam
from typing import Any

from proxy.web.server.sockets.address import UNIX, ListenAddress

DEFAULT_MODE = 0o660
BACKLOG = 4_096


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """Who may connect to a Unix socket: its mode, and the user and group that own it, where they are not our own."""

    mode: int = DEFAULT_MODE
    user: str | None = None
    group: str | None = None


Place = tuple[int, tuple[Any, ...]]
"""A family and an address, as the socket library has them."""


async def look_up(host: str, port: int) -> list[Place]:
    """What ``host`` stands for, each address once. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [*dict.fromkeys((int(family), address) for family, _kind, _protocol, _name, address in found)]


def ip_sockets(places: Sequence[Place], *, reuse_port: bool) -> Iterator[socket.socket]:
    """One bound socket for each of ``places``. Raises OSError.

    An IPv6 socket takes IPv4 as well, unless there are IPv4 addresses beside it, which it would be in the way of.
    """
    has_ipv4 = any(family == socket.AF_INET for family, _ in places)
    for family, address in places:
        yield _bind(family, address, reuse_port=reuse_port, only_ipv6=has_ipv4)


def _bind(family: int, address: tuple[object, ...], *, reuse_port: bool, only_ipv6: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        listening.setblocking(False)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


# --- Unix -------------------------------------------------------------------------------------------------------------


class UnixSocketFile:
    """The name of a Unix socket in the file system, for as long as it is this process's own."""

    def __init__(self, path: str) -> None:
        """Nothing is bound yet."""
        self.path = Path(path)
        self.made: tuple[int, ...] | None = None
        """Which file it is, once it is bound."""

    def bind(self, access: SocketAccess, *, replace: bool) -> socket.socket:
        """A socket of this name that listens, in place of one that nobody listens on any more. Raises OSError.

        With ``replace`` it takes the place of a socket that is in use as well: whoever has that one open serves the
        connections that it has. The name is there only once ``access`` holds, and is never missing in between.
        """
        self._check_place(replace=replace)
        half_made = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            half_made.unlink(missing_ok=True)
            listening.setblocking(False)
            listening.bind(str(half_made))
            half_made.chmod(access.mode)
            _give_to(half_made, access)
            listening.listen(BACKLOG)
            self.made = _identity(half_made)
            half_made.rename(self.path)
        except OSError:
            listening.close()
            with contextlib.suppress(OSError):
                half_made.unlink()
            raise
        return listening

    def remove(self) -> None:
        """Take the name away, where it has not become another process's meanwhile."""
        made, self.made = self.made, None
        with contextlib.suppress(OSError):
            if made is not None and _identity(self.path) == made:
                self.path.unlink()

    def _check_place(self, *, replace: bool) -> None:
        """Raise OSError where something else is at this place that must stay."""
        try:
            kind = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(kind):
            raise FileExistsError(errno.EEXIST, "something else than a socket has this name", str(self.path))
        if not replace and _is_listened_on(self.path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(self.path))


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # So many wait to be let in that there is no place for one more.
            return True
    return True


def _give_to(path: Path, access: SocketAccess) -> None:
    if access.user is None and access.group is None:
        return
    try:
        user = -1 if access.user is None else getpwnam(access.user).pw_uid
        group = -1 if access.group is None else getgrnam(access.group).gr_gid
        os.chown(path, user, group)
    except KeyError as unknown:
        raise OSError(errno.EINVAL, f"this machine has no such user or group: {unknown.args[0]}") from None
    except PermissionError:
        whom = ":".join(filter(None, (access.user, access.group)))
        raise PermissionError(errno.EPERM, f"only root, or a member of the group, may give it to {whom}") from None


def _identity(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_dev, found.st_ino


# --- Either -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """What one address has become: its sockets, which listen, and its name in the file system if it has one."""

    sockets: Sequence[socket.socket]
    file: UnixSocketFile | None = None

    @classmethod
    def again(cls, handed: Mapping[str, Any]) -> Bound:
        """What another program has left to this process, see ``hand_over``."""
        file = None
        if handed["path"] is not None:
            file = UnixSocketFile(handed["path"])
            file.made = tuple(handed["made"])
        sockets = [socket.socket(fileno=each) for each in handed["sockets"]]
        for each in sockets:
            each.set_inheritable(False)
        return cls(sockets, file)

    def hand_over(self) -> dict[str, Any]:
        """What a program has to know that takes the place of this one in its process."""
        for each in self.sockets:
            each.set_inheritable(True)
        return {
            "sockets": [each.fileno() for each in self.sockets],
            "path": None if self.file is None else str(self.file.path),
            "made": None if self.file is None else self.file.made,
        }

    def close(self) -> None:
        """Listen no more."""
        if self.file is not None:
            self.file.remove()
        for each in self.sockets:
            each.close()


async def bind_all(address: ListenAddress, access: SocketAccess, *, reuse_port: bool) -> Bound:
    """Listen at ``address``, with nobody who accepts yet. Raises OSError."""
    if address.path:
        file = UnixSocketFile(address.path)
        return Bound([file.bind(access, replace=reuse_port)], file)
    bound = Bound([*ip_sockets(await look_up(address.host, address.port), reuse_port=reuse_port)])
    for each in bound.sockets:
        each.listen(BACKLOG)
    return bound


def url_of(address: ListenAddress, bound: Bound, *, tls: bool) -> str:
    """Where clients reach it."""
    if address.path:
        return f"{UNIX}{address.path}"
    host, port = bound.sockets[0].getsockname()[:2]
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
