"""``make dist``: sdist, wheel, SBOM and checksums in ``dist``, each tried on every Python of this machine.

The commit is built twice: here, and from a clone elsewhere, under other circumstances. Both have to give the same
bytes, and so has the wheel that the sdist builds.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from proxy.telemetry.version import Build, read_build
from tests.release.distributions import (
    Distributions,
    ReleaseError,
    build,
    build_wheel_of,
    clone,
    expected_in_the_wheel,
    git,
    names_in,
)
from tests.release.interpreters import find_interpreters, supported
from tests.release.sbom import write_sbom
from tests.release.smoke import install, lock_for, make_environment, try_out
from tests.support.processes import ROOT

OUTPUT = ROOT / "dist"
CIRCUMSTANCES = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
"""Of the second build, to which none of it may matter."""


def main() -> int:
    """Make a release's files, and try them. The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="install the wheel alone, on this Python alone")
    arguments = parser.parse_args()
    try:
        make(quick=arguments.quick)
    except ReleaseError as error:
        sys.stderr.write(f"no release: {error}\n")
        return 1
    return 0


def make(*, quick: bool) -> None:
    """All of it. Raises ReleaseError."""
    made = read_build(ROOT)
    if made.commit.endswith("-modified"):
        raise ReleaseError("files differ from the commit: commit them first, or put them away (git stash)")
    epoch = git(ROOT, "log", "-1", "--format=%ct").strip()
    version = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    with tempfile.TemporaryDirectory(prefix="lightmeter-release-") as name:
        folder = Path(name)
        built = build_twice(folder, epoch)
        say(f"{built.sdist.name} and {built.wheel.name}: two builds of {made.commit}, the same bytes")
        components = try_everywhere(built, folder, epoch, version, made, quick=quick)
        put_in_place(built, folder / "sbom.json", version)
    say(f"SBOM: {components} components; checksums: {OUTPUT / 'SHA256SUMS'}")


def build_twice(folder: Path, epoch: str) -> Distributions:
    """The same bytes from this checkout, from a clone of it, and of the wheel from the sdist. Raises ReleaseError."""
    again = folder / "elsewhere"
    clone(ROOT, again)
    built = build(ROOT, folder / "first", {"SOURCE_DATE_EPOCH": epoch})
    second = build(again, folder / "second", {**CIRCUMSTANCES, "SOURCE_DATE_EPOCH": epoch})
    differ = [name for name, content in built.files().items() if second.files().get(name) != content]
    if differ:
        raise ReleaseError(f"two builds of one commit differ: {', '.join(differ)}")
    of_sdist = build_wheel_of(built.sdist, folder / "third", {**CIRCUMSTANCES, "SOURCE_DATE_EPOCH": epoch})
    if of_sdist.read_bytes() != built.wheel.read_bytes():
        raise ReleaseError("the sdist builds another wheel than the checkout")
    here, expected = names_in(built.wheel), expected_in_the_wheel(ROOT)
    if here != expected:
        raise ReleaseError(f"the wheel lacks {sorted(expected - here)} and should not hold {sorted(here - expected)}")
    return built


def try_everywhere(built: Distributions, folder: Path, epoch: str, version: str, made: Build, *, quick: bool) -> int:
    """Install and try what was built on each Python; how many components the SBOM of the wheel has."""
    components = 0
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreters = find_interpreters((this,) if quick else supported())
    for number, path in interpreters.found.items():
        for distribution in (built.wheel,) if quick else (built.wheel, built.sdist):
            begun = time.monotonic()
            kind = "wheel" if distribution is built.wheel else "sdist"
            environment = make_environment(path, folder / f"{kind}-{number}", lock_for(distribution))
            install(environment, distribution)
            happened = try_out(environment, version, made)
            say(f"Python {number}, {kind}: {happened} ({time.monotonic() - begun:.0f} s)")
            if not components:
                components = write_sbom(environment, folder / "sbom.json", epoch)
            shutil.rmtree(environment.folder)
    if not interpreters.found:
        raise ReleaseError("there is no Python to try it on")
    for number in interpreters.missing:
        say(f"Python {number}: not tried, there is none on this machine")
    return components


def put_in_place(built: Distributions, sbom: Path, version: str) -> None:
    """What was tried, and its checksums, in ``dist``; what an earlier one left there goes."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    files = {
        built.sdist.name: built.sdist,
        built.wheel.name: built.wheel,
        f"lightmeter-{version}.cdx.json": sbom,
    }
    sums = []
    for name, path in sorted(files.items()):
        shutil.copyfile(path, OUTPUT / name)
        sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    (OUTPUT / "SHA256SUMS").write_text("".join(sums))


def say(line: str) -> None:
    """One line of the report, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
