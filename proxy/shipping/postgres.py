"""PostgreSQL: rows and places in one transaction, tables by month.

Every transaction that writes takes an advisory lock of its schema, looks at the places again, and takes a batch only
where it begins at them: of several shippers one is a little faster, and the others find that their batch is old.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any, TypeAlias

import orjson
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from proxy.shipping.batch import Batch, Entry
from proxy.shipping.errors import PlaceMoved, ShippingError, Unavailable
from proxy.shipping.source import Head

logger = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECT_TIMEOUT_S = 10
TRANSACTION_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 30
MONTHS_AHEAD = 2
"""Tables that are made before they are needed: whoever copies or backs up sees them in time."""

LATEST_VERSION = 2
INVALID_TEXT = "\N{REPLACEMENT CHARACTER}"
"""In place of the character 0, which PostgreSQL's texts cannot hold."""

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, OSError)
"""Also a server that has become a standby."""

_INSERT = """
insert into entries (team, entry, at, day, kind, key, request, outcome, endpoint, model, asked_model, provider, images,
  charged, overage, granted, refunds, corrects, reason, units_per_usd, facts)
select e ->> 'team', e ->> 'id', (e ->> 'at')::timestamptz,
  (coalesce(to_timestamp((e ->> 'admitted_ms')::bigint / 1000.0), (e ->> 'at')::timestamptz) at time zone 'UTC')::date,
  e ->> 'kind', e ->> 'key', e ->> 'request', e ->> 'outcome', e ->> 'endpoint', e ->> 'model', e ->> 'asked_model',
  e ->> 'provider', coalesce((e ->> 'images')::bigint, 0), coalesce((e ->> 'charged')::bigint, 0),
  coalesce((e ->> 'overage')::bigint, 0), coalesce((e ->> 'quota_units')::bigint, 0), e ->> 'refunds',
  e ->> 'corrects', e ->> 'reason', %s::numeric, e
from jsonb_array_elements(%s::jsonb) as e
on conflict do nothing
"""
_PUT_PLACES = """
insert into places (team, entry) select * from unnest(%s::text[], %s::text[])
on conflict (team) do update set entry = excluded.entry, at = now()
"""
_SAFE_COMMITS = """
select set_config('search_path', quote_ident(%(schema)s), true), set_config('lock_timeout', %(lock)s, true),
  set_config('synchronous_commit',
    coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), true)
"""


NO_ADDRESS = (
    "the target is no address of PostgreSQL, like postgresql://USER:PASSWORD@HOST/DATABASE; in a password, the "
    "characters % @ / # are written %25 %40 %2F %23"
)


def password_in(conninfo: str) -> str:
    """The password in an address. Raises ShippingError for one that could not be meant so; it has none of its words."""
    authority, _, path = conninfo.partition("://")[2].partition("?")[0].partition("/")
    try:
        password = conninfo_to_dict(conninfo).get("password")
    except (psycopg.Error, UnicodeDecodeError):
        raise ShippingError(NO_ADDRESS) from None
    if authority.count("@") > 1 or "@" in path:
        # libpq would take a part of the password for the host, and say so.
        raise ShippingError(NO_ADDRESS)
    return str(password or "")


class PostgreSql:
    """A sink. What it commits is synced, whatever the server's default is: the gateway may trim it then."""

    def __init__(self, conninfo: str, schema: str) -> None:
        """Write to ``schema`` of the database that ``conninfo`` names; it is reached at the first need."""
        self._conninfo = conninfo
        self._schema = schema
        self._connection: Connection | None = None
        self._months: set[date] = set()

    async def places(self, heads: Sequence[Head]) -> Mapping[str, str]:
        """The last entry of each of these teams."""
        async with self._transaction() as connection:
            return await _read_places(connection, [head.team for head in heads])

    async def write(self, batch: Batch, units_per_usd: Decimal | None) -> int:
        """Insert a batch and move its teams' places."""
        async with self._transaction() as connection:
            await self._lock(connection)
            found = await _read_places(connection, batch.starts)
            if found == batch.ends:
                # It was committed, and the connection broke before that was known.
                return 0
            for team, start in batch.starts.items():
                if found.get(team) != start:
                    raise PlaceMoved(f"{team} is at {found.get(team) or 'its beginning'}, not at {start or 'it'}")
            await self._make_months(connection, {_month(entry) for entry in batch.entries})
            rows = await connection.execute(_INSERT, (units_per_usd, _json(batch.entries)))
            await connection.execute(_PUT_PLACES, (list(batch.ends), list(batch.ends.values())))
            inserted = int(rows.rowcount)
        return len(batch.entries) - inserted

    async def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            await self._connection.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """A transaction in the schema. Raises Unavailable, and ShippingError where the server refuses."""
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S):
                connection = await self._connected()
                async with connection.transaction():
                    await self._settle_in(connection)
                    yield connection
        except TimeoutError:
            await self._drop()
            raise Unavailable(f"PostgreSQL did not answer in {TRANSACTION_TIMEOUT_S:.0f} s") from None
        except AWAY as error:
            await self._drop()
            raise Unavailable(f"PostgreSQL is away ({_words(error)})") from None
        except psycopg.Error as error:
            raise ShippingError(f"PostgreSQL refuses: {_words(error)}") from None

    async def _settle_in(self, connection: Connection) -> None:
        settings = {"schema": self._schema, "lock": f"{LOCK_TIMEOUT_S}s"}
        await connection.execute(_SAFE_COMMITS, settings)

    async def _connected(self) -> Connection:
        """The connection, of which the schema has been seen to be there."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            # Poolers of connections that change between transactions know no prepared statements.
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="lightmeter ledger ship",
        )
        async with AsyncExitStack() as unless_good:
            unless_good.push_async_callback(connection.close)
            self._months.clear()
            async with connection.transaction():
                await self._settle_in(connection)
                await self._lock(connection)
                await self._migrate(connection)
                await self._make_months(connection, ())
            unless_good.pop_all()
        self._connection = connection
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def _lock(self, connection: Connection) -> None:
        """Until the transaction ends: one shipper at a time."""
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('lightmeter.' || %s, 0))", (self._schema,)
        )

    # --- The schema ---------------------------------------------------------------------------------------------------

    async def _migrate(self, connection: Connection) -> None:
        """Bring the schema to the version that this code knows. Raises ShippingError for a later one."""
        version = await self._version(connection)
        if version > LATEST_VERSION:
            raise ShippingError(
                f"the schema {self._schema} is of version {version}, and this Lightmeter knows {LATEST_VERSION}: "
                "ship with the newer one"
            )
        for script in sorted(files("proxy.shipping").joinpath("sql").iterdir(), key=lambda file: file.name):
            number = int(script.name.partition("_")[0])
            if number > version:
                await connection.execute(script.read_text())
                await connection.execute("insert into schema_version (version) values (%s)", (number,))
                logger.info("the schema %s is of version %d now", self._schema, number)

    async def _version(self, connection: Connection) -> int:
        schema = sql.Identifier(self._schema)
        if await _fetch(connection, "select to_regclass('schema_version')") == (None,):
            # A user who may not make one can be given one.
            if await _fetch(connection, "select to_regnamespace(quote_ident(%s))", self._schema) == (None,):
                await connection.execute(sql.SQL("create schema {}").format(schema))
            await connection.execute(
                "create table schema_version (version integer primary key, at timestamptz not null default now())"
            )
        (version,) = await _fetch(connection, "select coalesce(max(version), 0) from schema_version")
        return int(version)

    async def _make_months(self, connection: Connection, wanted: Iterable[date]) -> None:
        """Make the tables of these months, and those of this month and the next ones."""
        today = datetime.now(UTC).date().replace(day=1)
        for month in sorted({*wanted, *_months_from(today, 1 + MONTHS_AHEAD)} - self._months):
            name = f"entries_{month:%Y_%m}"
            if await _fetch(connection, "select to_regclass(quote_ident(%s))", name) == (None,):
                # Attached, and not made as a part at once: nobody who reads has to wait.
                table, (_, after) = sql.Identifier(name), _months_from(month, 2)
                await connection.execute(sql.SQL("create table {} (like entries including all)").format(table))
                await connection.execute(
                    sql.SQL("alter table entries attach partition {} for values from ({}) to ({})").format(
                        table, sql.Literal(f"{month} 00:00:00+00"), sql.Literal(f"{after} 00:00:00+00")
                    )
                )
        # Only what is committed is known: a transaction that fails ends this connection or this process.
        self._months |= {*wanted, *_months_from(today, 1 + MONTHS_AHEAD)}


async def _fetch(connection: Connection, query: str, *given: object) -> tuple[Any, ...]:
    row = await (await connection.execute(query, given)).fetchone()
    return row or ()


async def _read_places(connection: Connection, teams: Iterable[str]) -> dict[str, str]:
    found = await connection.execute("select team, entry from places where team = any(%s)", (list(teams),))
    return dict(await found.fetchall())


def _json(entries: Sequence[Entry]) -> str:
    text = orjson.dumps(entries).decode()
    return orjson.dumps(_without_zeros(orjson.loads(text))).decode() if r"\u0000" in text else text


def _without_zeros(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", INVALID_TEXT)
    if isinstance(value, list):
        return [_without_zeros(each) for each in value]
    if isinstance(value, dict):
        return {_without_zeros(name): _without_zeros(each) for name, each in value.items()}
    return value


def _month(entry: Entry) -> date:
    return date.fromisoformat(entry["at"][:10]).replace(day=1)


def _months_from(first: date, count: int) -> list[date]:
    months = (first.month - 1 + ahead for ahead in range(count))
    return [date(first.year + month // 12, month % 12 + 1, 1) for month in months]


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
