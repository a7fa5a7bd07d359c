"""Dialects of providers that accept a task, and have to be asked how it is doing. Pure, as all dialects are."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.upstream.dialects.polled.bfl import BlackForestLabsDialect
from proxy.upstream.dialects.polled.fal import FalDialect
from proxy.upstream.dialects.polled.protocol import PolledDialect
from proxy.upstream.dialects.polled.replicate import ReplicateDialect

POLLED_DIALECTS: Mapping[str, PolledDialect] = {
    "bfl": BlackForestLabsDialect(),
    "fal": FalDialect(),
    "replicate": ReplicateDialect(),
}
