"""Dialects of providers that accept a task, and have to be asked how it is doing. Pure, as all dialects are."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.upstream.dialects.polled.bfl import BlackForestLabsDialect
from proxy.upstream.dialects.polled.protocol import PolledDialect

POLLED_DIALECTS: Mapping[str, PolledDialect] = {
    "bfl": BlackForestLabsDialect(),
}
