"""What is built holds the commit that it was built from: ``lightmeter --version`` reports it.

Hatch runs this file for the wheel and for the sdist. A wheel that is built from an sdist takes what the sdist holds;
one that is built without git, what ``LIGHTMETER_COMMIT`` and ``SOURCE_DATE_EPOCH`` say.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface[Any]):
    """Adds one file with the commit and its date."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hatch calls it before a build; ``version`` is the kind of build."""
        # An editable one is a checkout, whose commit changes.
        if version == "editable":
            return
        facts = _load(Path(self.root) / "proxy" / "telemetry" / "version.py")
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "build.json"
        build = facts.read_build(Path(self.root))
        # An image is built without .git.
        if build == facts.NO_BUILD:
            build = facts.told_build(os.environ)
        path.write_text(build.to_json(), encoding="utf-8")
        build_data["force_include"][str(path)] = facts.BUILT

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Hatch calls it after a build."""
        if version != "editable":
            self._folder.cleanup()


def _load(path: Path) -> ModuleType:
    """The module of a package that is not installed while it is built."""
    spec = spec_from_file_location("lightmeter_version", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
