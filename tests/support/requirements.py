"""What the tests can do without: they skip and say so, but in CI, where nothing may skip."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str, package: str) -> str:
    """The path of a program that Debian's ``package`` holds; skips the test where it is missing."""
    path = shutil.which(name)
    if path is None:
        lacking(f"needs {name}: apt-get install {package}")
    return path


def lacking(message: str) -> NoReturn:
    """Skip the test and say what it cannot do without; where nothing may skip, fail it."""
    if os.environ.get("LIGHTMETER_TEST_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)
