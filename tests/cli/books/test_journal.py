"""``lightmeter journal`` on a data folder."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from proxy.cli.books.journal import journal
from proxy.domain.billing.pending import PendingTask
from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Reservation
from proxy.metering.journal.file import JournalFile
from proxy.metering.journal.parked import park
from proxy.metering.journal.records import Void, write_record
from proxy.metering.journal.tasks import TaskJournal

FIRST, SECOND = Void("req_1", "acme", "acme_key"), Void("req_2", "acme", "acme_key")

CONFIGURATION = """
[server]
data_folder = "{folder}"
[store]
url = "redis://127.0.0.1:9/0"
[[providers]]
name = "sample"
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "SAMPLE_KEY"
[[models]]
id = "sample/cube"
provider = "sample"
upstream_model = "cube"
token_multiplier = "1"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMPLE_KEY", "secret")
    (tmp_path / "lightmeter.toml").write_text(CONFIGURATION.format(folder=tmp_path))
    made = tmp_path / "journal"
    made.mkdir()
    return made


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(journal, [*arguments, "--config", str(folder.parent / "lightmeter.toml")])


def listed(folder: Path) -> list[tuple[str, str, str | None]]:
    result = run(folder, "list", "--json")
    assert result.exit_code == 0, result.output
    return [(row["state"], row["id"], row["reason"]) for row in orjson.loads(result.output)["data"]]


async def test_requests_whose_tasks_are_pending_are_listed(folder: Path) -> None:
    quote = Quote(images=2, unit_price=5_000, units=10_000, tier=Tier.STANDARD)
    reservation = Reservation("req_1", "acme", "acme_k", "/v1/images/generations", "bfl/flux", quote, 1_000, None)
    tasks = TaskJournal(folder, store_url="redis://127.0.0.1:9/0")
    for number in range(2):
        await tasks.keep(reservation, PendingTask("bfl", f"https://api.bfl.ai/{number}"))
    assert listed(folder) == [("task", "req_1", "2 at bfl")]
    await tasks.close()


def test_parked_and_pending_records_are_listed(folder: Path) -> None:
    assert listed(folder) == []
    park(folder, "0123abcd", FIRST, "WRONGTYPE of it")
    alive = JournalFile.create(folder, "0123abcd")
    alive.append(write_record(SECOND))
    assert listed(folder) == [("parked", "req_1", "WRONGTYPE of it"), ("pending", "req_2", None)]
    assert "WRONGTYPE of it" in run(folder, "list").output
    alive.close()


def test_a_retried_record_is_adopted_by_the_next_gateway_that_looks(folder: Path) -> None:
    park(folder, "0123abcd", FIRST, "WRONGTYPE of it")
    assert run(folder, "retry", "req_1").output == "retried: req_1\n"
    assert listed(folder) == [("pending", "req_1", None)]
    (adopted,) = JournalFile.adopt(folder, "0123abcd")
    adopted.remove()
    assert listed(folder) == []


def test_a_dropped_record_stays_readable_with_its_reason(folder: Path) -> None:
    park(folder, "0123abcd", FIRST, "WRONGTYPE of it")
    assert run(folder, "drop", "req_1", "--reason", "billed by hand").output == "dropped: req_1\n"
    assert listed(folder) == []
    (left,) = folder.iterdir()
    assert left.name == "dropped-0123abcd-req_1"
    assert b"billed by hand" in left.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retry", "req_9"), "not parked in"),
        (("drop", "req_1", "req_9", "--reason", "x"), "req_9; nothing was changed"),
        (("retry",), "say --all"),
        (("retry", "req_1", "--all"), "say --all"),
        (("drop", "req_1"), "Missing option '--reason'"),
    ],
)
def test_a_mistake_changes_nothing(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    park(folder, "0123abcd", FIRST, "WRONGTYPE of it")
    result = run(folder, *arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert listed(folder) == [("parked", "req_1", "WRONGTYPE of it")]
