"""A machine of our own to install Lightmeter on: a root folder in namespaces, with a real systemd as its process 1.

It has this machine's programs, read-only, and its network; its `/etc`, `/run`, `/tmp`, `/var` and units are its own.
What runs in it ends with its process 1.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.processes import ROOT, Server, running, wait_for
from tests.support.requirements import lacking, program

UNITS = "/etc/systemd/system"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
READ_ONLY = ("bin", "sbin", "lib", "lib32", "lib64", "usr")
OWN = ("dev", "etc/systemd/system", "etc/lightmeter", "opt", "proc", "root", "run", "sys/fs/cgroup", "tmp", "var")
NEEDED_TARGETS = {
    "lightmeter-machine.target": "[Unit]\nDescription=Nothing but what is started by hand\nAllowIsolate=yes\n",
    # A unit of the system asks for these; they hold nothing here.
    **{
        f"{name}.target": "[Unit]\nDefaultDependencies=no\n"
        for name in ("sysinit", "basic", "network-online", "multi-user", "shutdown", "umount", "exit")
    },
}
GROUP = """
set -eu
mount --make-rprivate /
mount -t cgroup2 cgroup "$MACHINE"
"""
"""The control groups of all machines: one that this kernel has once, wherever it is mounted."""

ENTER = f"""{GROUP}
mkdir "$MACHINE/$GROUP_NAME"
echo $$ >"$MACHINE/$GROUP_NAME/cgroup.procs"
umount "$MACHINE"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -c "$BOOT"
"""
LEAVE = f"""{GROUP}
tries=100
until find "$MACHINE/$GROUP_NAME" -depth -type d -exec rmdir {{}} + || [ $tries = 0 ]; do
  tries=$((tries - 1)); sleep 0.05
done 2>/dev/null
[ ! -e "$MACHINE/$GROUP_NAME" ]
"""
BOOT = f"""
set -eu
mount -t tmpfs -o mode=755 machine "$MACHINE"
cd "$MACHINE"
mkdir -p {" ".join(OWN)}
for each in {" ".join(READ_ONLY)}; do
  if [ -L /$each ]; then cp -P /$each $each
  elif [ -d /$each ]; then mkdir $each; mount --rbind /$each $each; mount -o remount,bind,ro $each; fi
done
cp -r /etc/passwd /etc/group /etc/nsswitch.conf /etc/hosts etc/
cp -r "$FILES"/. .
chown -R 0:0 etc
mount -t tmpfs -o mode=755 dev dev
for each in null zero full random urandom tty; do touch dev/$each; mount --bind /dev/$each dev/$each; done
mkdir dev/shm dev/pts dev/mqueue dev/hugepages
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
for pair in $FOLDERS; do mkdir -p "${{pair#*=}}"; mount --bind "${{pair%%=*}}" "${{pair#*=}}"; done
chmod 1777 tmp
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup sys/fs/cgroup
echo /opt/python/lib > etc/ld.so.conf
mkdir old
pivot_root . old
umount -l /old
rmdir /old
ldconfig
exec env -i container=lightmeter-test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH={UNITS} \\
  /lib/systemd/systemd --system --unit=lightmeter-machine.target --log-target=null --show-status=no
"""


class Machine:
    """A machine that runs, as its administrator sees it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._init = ""
        wait_for(self._has_booted, "process 1 of the machine")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root."""
        done = subprocess.run(
            ["nsenter", "--target", self._init, "--mount", "--pid", "--uts", "--ipc", "--cgroup", *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if check and done.returncode:
            raise AssertionError(f"{shlex.join(command)}: {done.stdout}{done.stderr}\n{self.server.output}")
        return done

    def write(self, path: str, text: str) -> None:
        """Write a file there."""
        self.run("sh", "-c", 'mkdir -p "${2%/*}" && printf %s "$1" >"$2"', "sh", text, path)

    def show(self, name: str) -> str:
        """A property of the unit as systemd has it."""
        return self.run("systemctl", "show", "lightmeter", f"--property={name}", "--value").stdout.strip()

    def _has_booted(self) -> bool:
        process = self.server.process
        assert process.poll() is None, self.server.output
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    self._init = child
        return bool(self._init)


@contextmanager
def running_machine(folder: Path) -> Iterator[Machine]:
    """A machine on which nothing runs but systemd; ``folder/files`` lies over its root."""
    if os.geteuid() != 0:
        lacking("needs root, to make namespaces")
    for name in ("unshare", "nsenter"):
        program(name, "util-linux")
    program("systemctl", "systemd")
    files, root = folder / "files", folder / "root"
    (files / UNITS[1:]).mkdir(parents=True, exist_ok=True)
    for name, text in NEEDED_TARGETS.items():
        (files / UNITS[1:] / name).write_text(text)
    root.mkdir()
    folders = {
        sys.base_prefix: "opt/python",
        site.getsitepackages()[0]: "opt/packages",
        str(ROOT / "proxy"): "opt/code/proxy",
    }
    _install(files / "opt" / "lightmeter")
    environment = {
        "MACHINE": str(root),
        "FILES": str(files),
        "FOLDERS": " ".join(f"{there}={here}" for there, here in folders.items()),
        "GROUP_NAME": f"lightmeter-{os.getpid()}-{folder.name}",
        "BOOT": BOOT,
    }
    in_namespace = ["unshare", "--mount", "sh", "-c"]
    with running([*in_namespace, ENTER], folder / "machine.log", environment) as server:
        try:
            machine = Machine(server)
            active = partial(machine.run, "systemctl", "is-active", "lightmeter-machine.target", check=False)
            wait_for(lambda: active().stdout == "active\n", "systemd")
            yield machine
        finally:
            # Process 1 ends with it, by --kill-child, and all others with that.
            server.process.kill()
            server.process.wait()
            subprocess.run([*in_namespace, LEAVE], check=True, timeout=60, env={**os.environ, **environment})


def _install(folder: Path) -> None:
    """A virtual environment at /opt/lightmeter on that machine: this one's packages, and the code of this checkout."""
    packages = folder / "lib" / PYTHON / "site-packages"
    packages.mkdir(parents=True)
    (packages / "lightmeter.pth").write_text("/opt/code\n/opt/packages\n")
    (folder / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(f"/opt/python/bin/{PYTHON}")
    command = folder / "bin" / "lightmeter"
    command.write_text("#!/opt/lightmeter/bin/python\nfrom proxy.cli import main\n\nmain()\n")
    command.chmod(0o755)
