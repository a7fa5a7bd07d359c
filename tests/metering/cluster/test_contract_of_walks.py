"""The same for walks over the streams of all teams, whose tests make pages small."""

from tests.metering.ledger.test_walk import (  # noqa: F401
    small_pages,
    test_every_entry_is_seen_exactly_once_while_writers_write,
)
