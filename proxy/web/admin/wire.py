"""What the admin API answers, as ``/openapi.json`` describes it. A test compares the answers with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from proxy.web.public.wire import LimitsUsage, Usd, UserLimitsUsage

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Counters = dict[str, int]


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StatusView(_View):
    """How the process does."""

    status: str


class WorkerView(_View):
    """One process that serves. ``index`` is its place among those of its ``generation``."""

    index: int
    process_id: int
    generation: int
    state: Literal["starting", "ready", "leaving", "gone"]


class WorkersView(_View):
    """All of them. ``generation`` is that of those that new clients come to; each restart makes a next one."""

    generation: int
    restarting: bool
    why_not_restarted: str | None
    data: list[WorkerView]


class RestartView(_View):
    """The generation that the workers will be of."""

    generation: int


# --- Keys and teams ---------------------------------------------------------------------------------------------------


class UserLimitsView(_View):
    """What one end user may use; null is no limit."""

    quota_units_per_day: int | None
    quota_units_per_month: int | None
    images_per_minute: int | None
    concurrent_requests: int | None


class LimitsPerUserView(UserLimitsView):
    """Limits of each end user, and those of ``users`` who have others instead."""

    users: dict[str, UserLimitsView]


class LimitsView(_View):
    """Limits as they were set; null is no limit."""

    quota_units: int | None
    quota_units_per_day: int | None
    quota_units_per_month: int | None
    requests_per_minute: int | None
    images_per_minute: int | None
    concurrent_requests: int | None
    models: list[str]
    limits_per_user: LimitsPerUserView | None


class KeyView(_View):
    """A key without its secret."""

    id: str
    team: str
    name: str
    limits: LimitsView
    granted_units: int
    granted_units_usd: Usd | None = None
    usage: LimitsUsage
    images: int
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class NewKeyView(KeyView):
    """A key that has a new secret; ``key`` is its text, shown here and never again."""

    key: str


class GrantedKeyView(KeyView):
    """A key that was granted something, and the ledger's entry of it."""

    ledger_entry: str


class KeyPage(_View):
    """A page of keys."""

    data: list[KeyView]
    next_cursor: str | None


class TeamView(_View):
    """A team."""

    id: str
    name: str
    limits: LimitsView
    granted_units: int
    granted_units_usd: Usd | None = None
    usage: LimitsUsage
    images: int
    created_at: Time
    deleted_at: Time | None


class GrantedTeamView(TeamView):
    """A team that was granted something, and the ledger's entry of it."""

    ledger_entry: str


class TeamPage(_View):
    """A page of teams."""

    data: list[TeamView]
    next_cursor: str | None


class ChargesView(_View):
    """What was charged under one heading."""

    images: int
    quota_units: int
    quota_units_usd: Usd | None = None


class DayView(ChargesView):
    """What was charged on one UTC day; by model where the query says of how many ``days``."""

    by_model: dict[str, ChargesView] | None = None


class UserUsageView(_View):
    """What an end user has used."""

    id: str
    limits: UserLimitsUsage


class UsageView(_View):
    """What was used, by model and by UTC day. Days that are more than about 400 days past are one, ``earlier``.

    ``user`` is there where the query names one.
    """

    id: str
    limits: LimitsUsage
    images: int
    overage_units: int
    overage_units_usd: Usd | None = None
    by_model: dict[str, ChargesView]
    by_day: dict[str, DayView]
    user: UserUsageView | None = None


# --- The ledger -------------------------------------------------------------------------------------------------------


class EntryView(BaseModel):
    """A ledger entry; which other members it has depends on its kind.

    That of a request says in ``model`` who made it, and in ``asked_model`` what was asked for where that is another
    one. It is charged ``images`` x ``unit_price``; where images are charged by the size that they came in,
    ``charged_by`` has both of each tier. At a model with prices of its own, ``price_rule`` names the rule that was
    reserved by, and ``basis`` says what was charged: images at each price, tokens of each kind, or a cost. A ``late``
    one is charged what the entry that it ``corrects`` was not. ``sizes`` are those of the first images,
    ``sizes_omitted`` is how many more there were. ``charged_usd`` and its like are in US dollars, where
    ``accounting.units_per_usd`` is set.
    """

    model_config = ConfigDict(extra="allow")

    id: str
    at: Time
    kind: Annotated[str, Field(description="request, late, grant, refund, …")]
    team: str
    key: Annotated[str, Field(description="Empty where it is about the whole team")]


class MoneyView(_View):
    """What a US dollar is in quota units, an exact decimal; null where ``accounting.units_per_usd`` is not set."""

    units_per_usd: str | None


class EntryPage(_View):
    """A page of ledger entries. It may hold fewer than asked for and still not be the last.

    The last one has a ``resume_cursor``: what is written after this list comes in a list that begins there.
    """

    data: list[EntryView]
    next_cursor: str | None
    resume_cursor: str | None


class LedgerRange(_View):
    """The entries behind ``after`` up to ``to``; null is the ledger's beginning."""

    after: str | None
    to: str | None


class StatedSums(_View):
    """What was charged under one heading, without what was refunded."""

    images: int
    quota_units: int
    quota_units_usd: Usd | None = None


class PeopleSums(StatedSums):
    """The same, and of how many requests."""

    requests: int


class NamedSums(PeopleSums):
    """An end user, empty for those that name none, or a tag (``name=value``)."""

    name: str


class OtherSums(PeopleSums):
    """What all headings beyond the limit add up to, and how many they are."""

    names: int


class PeopleUsageView(_View):
    """What end users or tags of a team were charged by ledger entries written in a UTC day or month, the largest first.

    It is not ``complete`` where the ledger was trimmed since. Beyond 5,000 names, the others are one: ``(others)``.
    """

    team: str
    key: str | None
    window: str
    by: str
    complete: bool
    total: PeopleSums
    data: list[NamedSums]
    others: OtherSums | None


class LateSums(StatedSums):
    """What requests of an earlier month are in a statement."""

    entries: int


class BroughtForward(StatedSums):
    """What was trimmed from the ledger before a statement had it; it is in the totals."""

    overage: int
    overage_usd: Usd | None = None


class HeadingsOmitted(_View):
    """How many headings of each kind are told as one, ``(others)``."""

    by_model: int
    by_key: int
    by_user: int
    by_tag: int


class StatementView(_View):
    """What a team's ledger adds up to in a UTC month: the entries that were written in it.

    One that is ``stated`` never changes: what is written later goes into the one that is ``open``, and under ``late``
    there, by the month that the request was admitted in. ``quota_units`` is ``charged`` without ``refunded``;
    ``overage`` is a part of it. Of each kind of headings the largest may be told alone (``top``): the others add up to
    ``(others)``, and ``headings_omitted`` says how many those are. US dollars are by ``units_per_usd``, as it was when
    the month was stated.
    """

    team: str
    month: str
    state: Annotated[str, Field(description="open or stated")]
    stated_at: Time | None
    ledger: LedgerRange
    entries: int
    requests: int
    images: int
    charged: int
    charged_usd: Usd | None = None
    refunded: int
    refunded_usd: Usd | None = None
    quota_units: int
    quota_units_usd: Usd | None = None
    overage: int
    overage_usd: Usd | None = None
    granted: int
    granted_usd: Usd | None = None
    by_model: dict[str, StatedSums]
    by_key: dict[str, StatedSums]
    by_user: dict[str, StatedSums]
    by_tag: dict[str, StatedSums]
    headings_omitted: HeadingsOmitted
    late: dict[str, LateSums]
    late_entries: list[str]
    late_entries_omitted: int
    brought_forward: BroughtForward | None
    units_per_usd: str | None


class StatementPage(_View):
    """A team's statements; there is one page."""

    data: list[StatementView]
    next_cursor: str | None


class RefundView(_View):
    """A refund: its own ledger entry, and the one that it reverses."""

    ledger_entry: str
    refunds: str


class AuditEntryView(_View):
    """A change: who made it, and what it changed. Secrets are never in it."""

    id: str
    at: Time
    team: str
    by: Annotated[str, Field(description="The name of the admin token")]
    request: Annotated[str, Field(description="The request's id")]
    action: Annotated[str, Field(description="key.create, team.update, ledger.refund, …")]
    target: Annotated[str, Field(description="The id of a key, a team or a ledger entry")]
    before: KeyView | TeamView | None
    after: KeyView | TeamView | None


class AuditPage(_View):
    """A page of changes. It may hold fewer than asked for and still not be the last, which has a ``resume_cursor``."""

    data: list[AuditEntryView]
    next_cursor: str | None
    resume_cursor: str | None


class TeamName(_View):
    """A team that has books."""

    team: str


class TeamNames(_View):
    """A page of them."""

    data: list[TeamName]
    next_cursor: str | None


class HeldView(_View):
    """What live leases hold, units by the UTC day of their admission."""

    reservations: int
    quota_units: Counters


class WindowView(_View):
    """What counts in a day or a month."""

    posted: int
    reserved: int


class BooksView(_View):
    """Counters of a key, or of a team under its own id, and what of them does not stand in the ledger.

    Usage of days before ``usage_from`` stands under ``earlier``.
    ``held`` is null where the team holds more reservations than are compared at one moment.
    """

    id: str
    quota_units: int | None
    counters: Counters
    windows: dict[str, WindowView]
    usage_from: str | None
    usage: Counters
    checkpoint: Counters
    held: HeldView | None


class BooksPage(_View):
    """Keys of a team, read at the moment of the ledger entry ``as_of``."""

    data: list[BooksView]
    as_of: str
    trimmed: str
    stray_leases: list[str]
    next_cursor: str | None


class UserBooksPage(_View):
    """Counters of the end users that were asked for, read at the moment of the ledger entry ``as_of``.

    Days are counted since the epoch; null is a user of whom nothing counts any more. ``leases`` are the reservations
    that the team holds.
    """

    data: list[Counters | None]
    as_of: str
    leases: int
    today: Annotated[str, Field(description="The UTC day by the store's clock")]
