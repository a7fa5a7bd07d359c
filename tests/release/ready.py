"""``make release VERSION=…``: whether this commit may be released under that version. It changes nothing."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Collection

from tests.benchmarks.check import baseline
from tests.release.dist import make, say
from tests.release.distributions import ReleaseError, git
from tests.support.processes import ROOT

_semantic = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?")
_section = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)


def obstacles(version: str, in_project: str, changelog: str, tags: Collection[str], counted: str) -> list[str]:
    """What has to be done first; empty where nothing has. ``counted`` is the version that has a baseline of its own."""
    found = []
    if not _semantic.fullmatch(version):
        found.append(f"{version!r} is no version: MAJOR.MINOR.PATCH")
    if in_project != version:
        found.append(f"pyproject.toml says {in_project}")
    if f"v{version}" in tags:
        found.append(f"there is a tag v{version}: a release is made once")
    sections = list(_section.finditer(changelog))
    texts: dict[str, tuple[str | None, str]] = {}
    for section in sections:
        text = changelog[section.end() :].split("\n## [", 1)[0]
        texts[section["name"]] = (section["date"], text.strip())
    if texts.get("Unreleased", ("", "nothing"))[1]:
        found.append("CHANGELOG.md has no [Unreleased] that is empty: what is in it belongs to the version")
    date, text = texts.get(version, (None, ""))
    if date is None or not text:
        found.append(f"CHANGELOG.md has no '## [{version}] - YYYY-MM-DD' with what is new")
    if counted != version:
        found.append(f"the baseline of its speed is that of {counted}: make bench-check ARGS=--record")
    return found


def main() -> int:
    """Look, then build and try. The exit status."""
    version = sys.argv[1] if len(sys.argv) == 2 else ""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        tags = git(ROOT, "tag", "--list").split()
        counted = baseline.read(baseline.PATH.read_text()).version
        found = obstacles(version, project["version"], (ROOT / "CHANGELOG.md").read_text(), tags, counted)
        if found:
            raise ReleaseError("; ".join(found))
        make(quick=False)
    except ReleaseError as error:
        sys.stderr.write(f"no release: {error}\n")
        return 1
    say(f"dist holds {version}. To publish it: git tag --sign v{version}, and push the tag.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
