"""Which Lightmeter this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("lightmeter")
    except PackageNotFoundError:
        return "unknown"
