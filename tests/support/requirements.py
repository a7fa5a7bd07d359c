"""What the tests can do without: they skip and say so, but in CI, where nothing may skip."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of a program that Debian's ``package`` holds; skips the test where it is missing."""
    path = shutil.which(name)
    if path is None:
        message = f"needs {name}: apt-get install {package}"
        if os.environ.get("LIGHTMETER_TEST_REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path
