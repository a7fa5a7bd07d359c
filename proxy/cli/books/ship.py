"""``lightmeter ledger ship``: copying the ledger to where it outlives the store."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import click

from proxy.cli.support.admin_client import AdminClient
from proxy.cli.support.output import show_json
from proxy.cli.support.running import StopSignals, run
from proxy.shipping.cloud_events import CloudEvents, Credentials
from proxy.shipping.errors import ShippingError
from proxy.shipping.jsonl import JsonLines
from proxy.shipping.shipper import Pace, Shipper
from proxy.shipping.sink import Sink
from proxy.shipping.source import Source
from proxy.telemetry.logs import set_up_logs
from proxy.telemetry.program import PROGRAM
from proxy.telemetry.secrets import KNOWN_SECRETS

LAST_BATCH_S = 10.0
"""How long the batch under way may take after a stop; after that it is as if the process had been killed."""

ONCE_PATIENCE_S = 60.0
JSONL = "jsonl:"
SECRETS = ("LIGHTMETER_SHIP_BEARER", "LIGHTMETER_SHIP_SIGNING_KEY")
POSTGRES = ("postgresql://", "postgres://")


@click.command("ship")
@click.option(
    "--to",
    "target",
    required=True,
    envvar="LIGHTMETER_SHIP_TO",
    show_envvar=True,
    metavar="TARGET",
    help="postgresql://USER@HOST/DATABASE, jsonl:DIR or https://RECEIVER.",
)
@click.option("--name", help="The shipper's, as accounting.ledger_shippers has it.  [default: the kind of its target]")
@click.option("--once", is_flag=True, help="End when all entries of the start have been shipped.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.1, 86_400),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="From the end of one walk over all teams to the next.",
)
@click.option(
    "--min-age",
    "min_age_s",
    type=click.FloatRange(0, 3_600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How old an entry has to be: more than a crash of the store may take back.",
)
@click.option(
    "--batch",
    "batch_entries",
    type=click.IntRange(1, 10_000),
    default=1_000,
    show_default=True,
    metavar="ENTRIES",
    help="At most, in one transaction or request.",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long the gateway or the target may be away.  [default: for ever; with --once 60]",
)
@click.option(
    "--by",
    type=click.Choice(["month", "day"]),
    default="month",
    show_default=True,
    help="What a file of jsonl:DIR holds.",
)
@click.option(
    "--schema", default="lightmeter", show_default=True, help="Of the tables in PostgreSQL, one for each store."
)
@click.option("--source", default="/lightmeter", show_default=True, help="Of events sent by https, one for each store.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For an answer of a receiver.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="At the end, what was shipped as JSON.")
def ship(target: str, *, as_json: bool, log_level: str, **given: Any) -> None:
    """Copy ledger entries to TARGET as they are written, each exactly once.

    It runs beside the gateway until it is stopped, and goes on where it was after a crash of anything. It needs an
    admin token of the role admin, for it tells the gateway how far it is. Events to an https RECEIVER come at least
    once: LIGHTMETER_SHIP_BEARER holds a token for it, LIGHTMETER_SHIP_SIGNING_KEY what bodies are signed with.
    """
    set_up_logs(log_level)
    try:
        options = TargetOptions(**{each.name: given.pop(each.name) for each in fields(TargetOptions)})
        totals = run(_ship(target, options, **given))
    except ShippingError as error:
        raise click.ClickException(KNOWN_SECRETS.remove(str(error))) from None
    if as_json:
        show_json(totals)
    else:
        click.echo("{entries} entries shipped; {duplicates} were there already".format(**totals))


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What only some targets look at."""

    by: Literal["month", "day"]
    schema: str
    source: str
    timeout_s: float


async def _ship(
    target: str, options: TargetOptions, *, name: str | None, once: bool, patience_s: float | None, **pace: Any
) -> dict[str, int]:
    stop = StopSignals()
    sink, kind = open_sink(target, options)
    try:
        if patience_s is None and once:
            patience_s = ONCE_PATIENCE_S
        gateway = AdminClient.from_environment()
        async with gateway.open_session() as session:
            source = Source(session, gateway.base_url, name or kind)
            shipper = Shipper(source, sink, Pace(patience_s=patience_s, **pace))
            shipping, asked = asyncio.create_task(shipper.run(once=once)), asyncio.create_task(stop.wait())
            await asyncio.wait((shipping, asked), return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            shipper.stop()
            await asyncio.wait((shipping,), timeout=LAST_BATCH_S)
            if not shipping.done():
                shipping.cancel()
                await asyncio.wait((shipping,))
            else:
                await shipping
            return asdict(shipper.totals)
    finally:
        await sink.close()


def open_sink(target: str, options: TargetOptions) -> tuple[Sink, str]:
    """The destination that ``target`` names, and what kind it is. Raises ShippingError."""
    if target.startswith(JSONL) and target != JSONL:
        return JsonLines(Path(target.removeprefix(JSONL)), options.by), "jsonl"
    if target.startswith(POSTGRES):
        try:
            from proxy.shipping.postgres import PostgreSql, password_in  # noqa: PLC0415 - an extra
        except ImportError:
            raise ShippingError(f"PostgreSQL's driver is not here: {PROGRAM.install('postgres')}") from None
        password = password_in(target)
        KNOWN_SECRETS.add([password, quote(password)])
        return PostgreSql(target, options.schema), "postgresql"
    if target.startswith(("https://", "http://")):
        secrets = [os.environ.get(name, "").strip() for name in SECRETS]
        KNOWN_SECRETS.add(secrets)
        sink = CloudEvents(
            target, source=options.source, credentials=Credentials(*secrets), timeout_s=options.timeout_s
        )
        return sink, "https"
    raise click.UsageError("--to should be postgresql://USER@HOST/DATABASE, jsonl:DIR or https://RECEIVER.")
