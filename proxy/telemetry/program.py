"""How this command line is called again: lines that are printed for somebody to copy have to work where they are read.

A checkout has the command in its virtual environment, where no shell finds it unless that is activated; an installed
Lightmeter has it on the PATH, or where the service manager knows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from shutil import which

NAME = "lightmeter"
MODULE = "proxy.cli"


@dataclass
class Program:
    """The command line that this process was started by, ``started`` as it calls itself, with its Python."""

    started: str = field(default_factory=lambda: sys.argv[0])
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    configuration: str = ""
    """The file that was named to it, for commands that read it as well; empty where it is the default."""

    def here(self) -> str:
        """How it is called in the same shell and folder."""
        script = self._script()
        if script is None:
            return f"{self._short(Path(self.python))} -m {MODULE}"
        return NAME if self._is_found(NAME, script) else self._short(script)

    def anywhere(self) -> str:
        """How it is called in another shell, in any folder, where nothing is activated."""
        script = self._script()
        if script is None:
            return f"{quote(self.python)} -m {MODULE}"
        active = self.environment.get("VIRTUAL_ENV")
        is_activated = active is not None and script.absolute().is_relative_to(Path(active).absolute())
        return NAME if self._is_found(NAME, script) and not is_activated else quote(str(script.absolute()))

    def command(self, words: str) -> str:
        """A command for the same shell and folder, as ``config check``."""
        return f"{self.here()} {words}"

    def command_elsewhere(self, words: str) -> str:
        """A command for any shell and folder, which reads the same configuration."""
        file = f" --config {quote(str(Path(self.configuration).absolute()))}" if self.configuration else ""
        return f"{self.anywhere()} {words}{file}"

    def install(self, extra: str) -> str:
        """The command that installs one of Lightmeter's extras where this process would find it."""
        python = Path(self.python)
        has_pip = self._is_found("pip", python.with_name("pip"))
        return f"{'pip' if has_pip else f'{self._short(python)} -m pip'} install 'lightmeter[{extra}]'"

    def _script(self) -> Path | None:
        """The installed script of this Python, None where there is none."""
        started = Path(self.started)
        python = Path(self.python)
        found = (started, python.with_name(NAME), python.with_name(f"{NAME}.exe"))
        return next((each for each in found if each.stem == NAME and each.is_file()), None)

    def _is_found(self, name: str, file: Path) -> bool:
        found = which(name, path=self.environment.get("PATH", ""))
        return found is not None and file.exists() and Path(found).samefile(file)

    def _short(self, path: Path) -> str:
        """Relative to the folder that this process was started in, where it is below it."""
        whole = path.absolute()
        try:
            return quote(str(whole.relative_to(Path.cwd())))
        except (ValueError, OSError):
            return quote(str(whole))


PROGRAM = Program()
"""This process's own."""
