"""A Dockerfile built without a container engine: its steps, as the official parser reads them, run for real.

Stages are layers of overlayfs. What stands at the bottom, in the place of `python:…-slim`, is Debian with its own
Python, made once on each machine by debootstrap: ``python -m tests.deploy.images``. What no test needs, such as a
build cache, is not there.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, STOP_TIMEOUT_S, Server
from tests.support.requirements import lacking, program

SUITE = "trixie"
"""Debian 13: its Python is 3.13. `forky` has the image's own, 3.14, and may be broken on any day."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightmeter-tests"
HOSTS_OWN = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs", "/usr/local/share/ca-certificates")
"""Of this machine, while a step of the build runs: how the network is reached."""

PASSED_ON = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_INDEX_URL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
PASSED_ON_ANY_CASE = ("http_proxy", "https_proxy", "no_proxy")

ENTER = """
set -eu
mount --make-rprivate /
mount -t overlay -o "$OVERLAY" overlay "$PLACE"
cd "$PLACE"
mount -t proc proc proc
mount -t tmpfs -o mode=755 dev dev
for each in null zero full random urandom; do touch dev/$each; mount --bind /dev/$each dev/$each; done
ln -s /proc/self/fd dev/fd
mkdir -m 1777 dev/shm
for each in $TMPFS; do mount -t tmpfs -o mode=1777 tmpfs ".$each"; done
for pair in $BINDS; do mount --rbind "${pair%%=*}" ".${pair#*=}"; done
pivot_root . mnt
umount -l /mnt
cd "$FOLDER"
exec setpriv --reuid="$AS_USER" --regid="$AS_GROUP" --clear-groups $RESTRICTED -- "$@"
"""
RESTRICTED = "--no-new-privs --inh-caps=-all --bounding-set=-all"
"""As `cap_drop: [ALL]` and `no-new-privileges:true`."""


@dataclass
class Image:
    """What one stage has made: its layers from the top, and what a container of it is started with."""

    layers: tuple[Path, ...]
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "0:0"
    folder: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()

    def path(self, inside: str) -> Path:
        """Where a file of the image lies here, in whatever layer has it."""
        return next(path for layer in self.layers if os.path.lexists(path := layer / inside.lstrip("/")))


def enter(  # noqa: PLR0913 - a container has so many sides
    image: Image,
    place: Path,
    command: Sequence[str],
    *,
    writable: Path | None = None,
    binds: Mapping[str, str] | None = None,
    tmpfs: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    restricted: bool = True,
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run ``command`` in the image, mounted at ``place``.

    Without a ``writable`` folder for its changes, nothing of the image can be written. ``binds`` are folders and files
    of this machine, with their places inside, which have to be there.
    """
    place.mkdir(exist_ok=True)
    lower = ":".join(map(str, image.layers if writable is None else image.layers[1:]))
    overlay = f"lowerdir={lower}"
    if writable is None and len(image.layers) == 1:
        raise ValueError("a read-only overlay needs two layers")
    if writable is not None:
        (work := writable.with_name(writable.name + ".work")).mkdir(exist_ok=True)
        overlay = f"lowerdir={lower},upperdir={writable},workdir={work}"
    numbers = (user or image.user).partition(":")
    mounting = {
        "PATH": PATH,
        "OVERLAY": overlay,
        "PLACE": str(place),
        "BINDS": " ".join(f"{there}={inside}" for there, inside in (binds or {}).items()),
        "TMPFS": " ".join(tmpfs),
        "FOLDER": image.folder,
        "AS_USER": numbers[0],
        "AS_GROUP": numbers[2] or numbers[0],
        "RESTRICTED": RESTRICTED if restricted else "",
    }
    variables = [f"{name}={value}" for name, value in {**image.environment, **(environment or {})}.items()]
    inside = ["env", "-i", *variables, *command]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
    return [*namespaces, "sh", "-c", ENTER, "sh", *inside], mounting


def end(server: Server) -> int:
    """Stop what ``enter`` runs, as a container engine does: by SIGTERM for its process 1; its exit status."""
    process = server.process
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)
    return process.wait(STOP_TIMEOUT_S)


# --- The bottom -------------------------------------------------------------------------------------------------------


def base_image() -> Path:
    """A root folder with Debian and its Python, that nobody writes to: made here once, and kept."""
    if os.geteuid() != 0:
        lacking("needs root, to make namespaces")
    program("unshare", "util-linux")
    debootstrap = program("debootstrap", "debootstrap")
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / SUITE
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            making = CACHE / f"{SUITE}.half"
            shutil.rmtree(making, ignore_errors=True)
            command = [debootstrap, "--variant=minbase", "--include=python3-venv,python3-pip,ca-certificates"]
            done = subprocess.run(
                [*command, SUITE, str(making), *_mirror()], capture_output=True, text=True, timeout=900, check=False
            )
            assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
            _make_alike(making)
            making.rename(made)
    return made


def _mirror() -> list[str]:
    """Where this machine has its own packages from."""
    texts = [path.read_text() for path in Path("/etc/apt").rglob("*.sources")]
    return re.findall(r"^URIs: (\S+)", "\n".join(texts), re.MULTILINE)[:1]


def _make_alike(root: Path) -> None:
    """What the official image has: its Python in /usr/local/bin, open to pip, and nothing left of apt's."""
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)
    for path in HOSTS_OWN:
        inside = root / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            inside.mkdir(exist_ok=True)
        else:
            inside.touch()


# --- The steps --------------------------------------------------------------------------------------------------------


def parse(path: Path) -> tuple[Any, ...]:
    """The steps of a Dockerfile, as Docker's own parser reads them."""
    try:
        import dockerfile  # noqa: PLC0415 - it has no wheel for every machine
    except ImportError:
        lacking("needs the package dockerfile")
    steps: tuple[Any, ...] = dockerfile.parse_file(str(path))
    return steps


class Builder:
    """Builds the stages of one Dockerfile, each once."""

    def __init__(self, path: Path, context: Path, folder: Path, base: Path) -> None:
        """``context`` is the folder that ``COPY`` copies from; stages are made in ``folder`` on top of ``base``."""
        self._path, self._context, self._folder, self._base = path, context, folder, base
        self._rules = _ignored(path.with_name(path.name + ".dockerignore"))
        self._stages: dict[str, list[Any]] = {}
        self._arguments: dict[str, str] = {}
        self._built: dict[str, Image] = {}
        self._cut_into_stages()

    def build(self, name: str) -> Image:
        """The image of a stage."""
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def _cut_into_stages(self) -> None:
        current: list[Any] | None = None
        for step in parse(self._path):
            if step.cmd.upper() == "FROM":
                current = self._stages[step.value[2]] = []
            if current is None:
                assert step.cmd.upper() == "ARG"
                name, _, value = step.value[0].partition("=")
                self._arguments[name] = value
            else:
                current.append(step)

    def _build(self, name: str) -> Image:
        first, *steps = self._stages[name]
        origin = _substitute(first.value[0], self._arguments)
        layer = self._folder / name
        layer.mkdir(parents=True)
        if origin in self._stages:
            below = self.build(origin)
            image = Image((layer, *below.layers), **{k: v for k, v in vars(below).items() if k != "layers"})
            image.environment = dict(below.environment)
        else:
            assert re.fullmatch(r"python:3\.1\d-slim", origin), f"what stands for {origin}?"
            image = Image((layer, self._base))
        arguments: dict[str, str] = {}
        for step in steps:
            self._take(step, image, arguments)
        return image

    def _take(self, step: Any, image: Image, arguments: dict[str, str]) -> None:
        known = {**arguments, **image.environment}
        kind, values = step.cmd.upper(), [_substitute(value, known) for value in step.value]
        match kind:
            case "ARG":
                name, _, value = values[0].partition("=")
                arguments[name] = value
            case "WORKDIR":
                image.folder = values[0]
                (image.layers[0] / values[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(step.flags, values, image)
            case "RUN":
                self._run(step.value[0], image, arguments)
            case _:
                _describe(kind, values, image)
                assert step.json or kind not in ("ENTRYPOINT", "CMD"), "a shell would be process 1"

    def _copy(self, flags: Sequence[str], values: Sequence[str], image: Image) -> None:
        *sources, target = values
        inside = Path(target) if target.startswith("/") else Path(image.folder) / target
        there = image.layers[0] / str(inside).lstrip("/")
        for source in sources:
            if flags:
                (stage,) = [flag.removeprefix("--from=") for flag in flags]
                found = self.build(stage).path(source)
            else:
                found = self._context / source
                assert not self._is_ignored(source), f"{source} is not in the build's context"
            if found.is_dir():
                shutil.copytree(found, there, symlinks=True, dirs_exist_ok=True, ignore=self._ignored_in)
            else:
                to = there / found.name if target.endswith("/") else there
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, to)

    def _ignored_in(self, folder: str, names: list[str]) -> list[str]:
        if not Path(folder).is_relative_to(self._context) or Path(folder).is_relative_to(self._folder):
            return []
        relative = Path(folder).relative_to(self._context)
        return [name for name in names if self._is_ignored(str(relative / name))]

    def _is_ignored(self, path: str) -> bool:
        """By the last rule that speaks of it or of a folder that it is in, as Docker has it."""
        parts = Path(path).parts
        upward = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        ignored = False
        for pattern, keeps in self._rules:
            anywhere = pattern.removeprefix("**/")
            names = parts if pattern.startswith("**/") else upward
            if any(fnmatch.fnmatch(each, anywhere) and ("/" in pattern or "/" not in each) for each in names):
                ignored = not keeps
        return ignored

    def _run(self, text: str, image: Image, arguments: Mapping[str, str]) -> None:
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own |= {name: value for name, value in os.environ.items() if name.lower() in PASSED_ON_ANY_CASE}
        command, mounting = enter(
            image,
            self._folder / "mounted",
            ["/bin/sh", "-c", text],
            writable=image.layers[0],
            binds={path: path for path in HOSTS_OWN if Path(path).exists()},
            environment={**own, **arguments},
            restricted=False,
        )
        done = subprocess.run(command, env=mounting, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


def _describe(kind: str, values: Sequence[str], image: Image) -> None:
    """What only tells how a container is started."""
    pairs = dict(zip(values[::2], values[1::2], strict=False))
    match kind:
        case "ENV":
            image.environment |= pairs
        case "LABEL":
            image.labels |= {name: value.strip('"') for name, value in pairs.items()}
        case "USER":
            image.user = values[0]
        case "VOLUME":
            image.volumes = tuple(values)
        case "EXPOSE":
            image.ports = tuple(values)
        case "ENTRYPOINT":
            image.entrypoint = tuple(values)
        case "CMD":
            image.command = tuple(values)
        case "HEALTHCHECK":
            assert values[0] == "CMD"
            image.healthcheck = tuple(values[1:])
        case _:
            assert (kind, values) == ("STOPSIGNAL", ["SIGTERM"]), f"what does {kind} do?"


def build_once(path: Path, names: Sequence[str], folder: Path) -> dict[str, Image]:
    """The images of these stages, built from this checkout by whichever process comes first."""
    folder.mkdir(exist_ok=True)
    written = folder / "images.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not written.exists():
            builder = Builder(path, ROOT, folder, base_image())
            images = {name: builder.build(name) for name in names}
            written.write_text(json.dumps({name: asdict(image) for name, image in images.items()}, default=str))
        return {name: _image(given) for name, given in json.loads(written.read_text()).items()}


def _image(given: Mapping[str, Any]) -> Image:
    lists = ("entrypoint", "command", "healthcheck", "volumes", "ports")
    layers = tuple(map(Path, given["layers"]))
    return Image(**{**given, "layers": layers, **{name: tuple(given[name]) for name in lists}})


def _ignored(path: Path) -> list[tuple[str, bool]]:
    """Patterns in their order, and whether each keeps what it matches."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [(line.removeprefix("!"), line.startswith("!")) for line in lines if line and not line.startswith("#")]


def _substitute(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], text)


if __name__ == "__main__":
    base_image()
