"""The peers' packages in folders of their own: pip, npm and apt get them, and nothing of the machine's own changes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

HERE = Path(__file__).parent
CACHE = ROOT / ".bench"
READY = "ready"
INSTALL_TIMEOUT_S = 900
NGINX_PACKAGES = (
    "nginx",
    "libnginx-mod-http-ndk",
    "libnginx-mod-http-lua",
    "libluajit2-5.1-2",
    "lua-resty-core",
    "lua-resty-lrucache",
    "lua-nginx-redis",
    "lua-cjson",
)


class Missing(Exception):
    """A peer that cannot be installed here; the message says why."""


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """LiteLLM's own environment."""

    program: Path
    version: str


@dataclass(frozen=True, slots=True)
class Portkey:
    """Portkey's gateway and what runs it."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Nginx:
    """nginx with its Lua module, unpacked into ``folder``."""

    folder: Path
    version: str

    @property
    def program(self) -> str:
        return str(self.folder / "usr/sbin/nginx")

    @property
    def environment(self) -> Mapping[str, str]:
        """What lets it find LuaJIT."""
        return {"LD_LIBRARY_PATH": str(self._one("usr/lib/**/libluajit-5.1.so.2").parent)}

    @property
    def modules(self) -> str:
        """The lines that load its modules."""
        names = ("ndk_http_module.so", "ngx_http_lua_module.so")
        return "\n".join(f"load_module {self._one(f'usr/lib/nginx/modules/{name}')};" for name in names)

    @property
    def lua_path(self) -> str:
        return f"{self.folder}/usr/share/lua/5.1/?.lua"

    @property
    def lua_cpath(self) -> str:
        return str(self._one("usr/lib/**/lua/5.1/cjson.so").with_name("?.so"))

    def _one(self, pattern: str) -> Path:
        return next(self.folder.glob(pattern))


def install_litellm() -> LiteLLM:
    """LiteLLM at its pinned version. Raises Missing."""
    requirements = HERE / "requirements.txt"

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(requirements)])

    folder = _installed("litellm", requirements.read_bytes() + sys.version.encode(), install)
    found = re.search(r"^litellm==(\S+)$", requirements.read_text(), re.MULTILINE)
    if found is None:
        raise Missing("requirements.txt does not say which LiteLLM")
    return LiteLLM(folder / "bin/litellm", found[1])


def install_portkey() -> Portkey:
    """Portkey's gateway at its pinned version. Raises Missing."""
    manifest = HERE / "package.json"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("there is no node or no npm: apt-get install nodejs npm")

    def install(folder: Path) -> None:
        shutil.copy(manifest, folder)
        _run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"], folder)

    folder = _installed("portkey", manifest.read_bytes(), install)
    package = folder / "node_modules/@portkey-ai/gateway"
    version = json.loads((package / "package.json").read_text())["version"]
    return Portkey((node, "--require", str(HERE / "loopback.cjs"), str(package / "build/start-server.js")), version)


def install_nginx() -> Nginx:
    """nginx with Lua, as this machine's Debian has them. Raises Missing."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing("its packages are Debian's, and this is none")

    def install(folder: Path) -> None:
        archives = folder / "archives"
        archives.mkdir()
        _run(["apt-get", "download", "--quiet", *NGINX_PACKAGES], archives)
        for archive in archives.iterdir():
            _run(["dpkg-deb", "--extract", str(archive), str(folder)])

    folder = _installed("nginx", "\n".join(NGINX_PACKAGES).encode(), install)
    # A file's name is `package_version_architecture.deb`, with an epoch's colon as %3a.
    versions = dict(archive.name.split("_")[:2] for archive in (folder / "archives").iterdir())
    lua = versions["libnginx-mod-http-lua"].replace("%3a", ":")
    return Nginx(folder, f"{versions['nginx']}, Lua module {lua}")


def _installed(name: str, depends_on: bytes, install: Callable[[Path], None]) -> Path:
    """The folder where a peer is installed, made anew where what it ``depends_on`` is another than it was."""
    folder = CACHE / name
    ready = folder / READY
    mark = hashlib.sha256(depends_on).hexdigest()
    if not ready.exists() or ready.read_text() != mark:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            install(folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise Missing(_why(error)) from error
        ready.write_text(mark)
    return folder


def _run(command: list[str], folder: Path | None = None) -> None:
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=INSTALL_TIMEOUT_S,
    )


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stdout).splitlines() if line.strip()]
        return f"{Path(error.cmd[0]).name} could not install it: {lines[-1] if lines else error.returncode}"
    return f"it could not be installed: {error}"
