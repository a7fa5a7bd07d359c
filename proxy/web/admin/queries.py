"""What the queries of the admin API may say: each checked, each mistake reported with the parameter."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from proxy.domain.api_key import KEY_ID_PATTERN, TEAM_ID_PATTERN, is_team_id, team_of
from proxy.domain.billing.settlement import Outcome
from proxy.domain.errors import InvalidRequest, NotFound
from proxy.domain.people import TAG_PATTERN, USER_LENGTH_LIMIT
from proxy.metering.ledger.people_usage import window_ms
from proxy.metering.ledger.shipped import SHIPPER_PATTERN
from proxy.metering.ledger.walk import ENTRY_ID_PATTERN, STREAM_ID_PATTERN, WALK_PATTERN

PAGE_LIMIT = 1_000
PAGE_DEFAULT = 100
DAYS_LIMIT = 400
ID_PREFIX_PATTERN = r"[a-z0-9][a-z0-9_-]{0,60}"

Query = TypeVar("Query", bound=BaseModel)

STREAM_CURSOR_PATTERN = rf"{ENTRY_ID_PATTERN}|{WALK_PATTERN}"

REQUEST_PATTERN = r"[A-Za-z0-9_-]{1,100}"

ORDERS = ("oldest", "newest")
"""Which of a team's entries come first."""

USERS_PATTERN = r"[a-z0-9_-]{1,60}:[0-9a-f]{40}(?:,[a-z0-9_-]{1,60}:[0-9a-f]{40}){0,99}"

WINDOW_PATTERN = r"2[0-9]{3}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01]))?"

_user_list = re.compile(USERS_PATTERN)
_window = re.compile(WINDOW_PATTERN)
_whole_tag = re.compile(TAG_PATTERN)
_request_id = re.compile(REQUEST_PATTERN)
_shipper = re.compile(SHIPPER_PATTERN)
_stream_cursor = re.compile(STREAM_CURSOR_PATTERN)
_stream_id = re.compile(STREAM_ID_PATTERN)
_id_prefix = re.compile(ID_PREFIX_PATTERN)
_time = re.compile(r"\d{4}-\d{2}-\d{2}.*", re.DOTALL)


def text_schema(pattern: str, description: str) -> WithJsonSchema:
    """How a text of this whole pattern is described."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$", "description": description})


# --- What a parameter has to be ---------------------------------------------------------------------------------------


def _limit(text: object) -> object:
    if not isinstance(text, str):
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PAGE_LIMIT):
        raise ValueError(f"should be from 1 to {PAGE_LIMIT:,}")
    return int(text[:9])


def _days(text: object) -> object:
    if not isinstance(text, str):
        return text
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= DAYS_LIMIT):
        raise ValueError(f"should be from 1 to {DAYS_LIMIT}")
    return int(text[:9])


def _top(text: object) -> object:
    return 0 if text == "0" else _limit(text)


def _team(text: str) -> str:
    if not is_team_id(text):
        raise ValueError("should be a team's id")
    return text


def _prefix(text: str) -> str:
    if not _id_prefix.fullmatch(text):
        raise ValueError("should be how an id begins: a-z, 0-9, '-' and '_'")
    return text


def _key(text: str) -> str:
    if team_of(text) is None:
        raise ValueError("should be a key's id, of the team that 'team' names")
    return text


def _key_cursor(text: str) -> str:
    if team_of(text) is None:
        raise ValueError("should be the next_cursor of an earlier answer")
    return text


def _keys_cursor(text: str) -> str:
    if team_of(text) is None and not is_team_id(text):
        raise ValueError("should be the next_cursor of an earlier answer")
    return text


def _team_cursor(text: str) -> str:
    if not is_team_id(text):
        raise ValueError("should be the next_cursor of an earlier answer")
    return text


def _entry_cursor(text: str) -> str:
    if not _stream_cursor.fullmatch(text):
        raise ValueError("should be the next_cursor or the resume_cursor of an earlier answer")
    return text


def _outcome(text: str) -> str:
    if text not in list(Outcome):
        raise ValueError(f"should be one of {', '.join(Outcome)}")
    return text


def _order(text: str) -> str:
    if text not in ORDERS:
        raise ValueError(f"should be {' or '.join(ORDERS)}")
    return text


def _request(text: str) -> str:
    if not _request_id.fullmatch(text):
        raise ValueError("should be a request's id, as x-request-id has it")
    return text


def shipper_name(text: str) -> str:
    """The name of a shipper. Raises ValueError."""
    if not _shipper.fullmatch(text):
        raise ValueError("should be 1 to 40 of a-z, 0-9 and '-', with a letter first")
    return text


def _users(text: str) -> str:
    if not _user_list.fullmatch(text):
        raise ValueError("should be ids of keys or of the team, each with ':' and the SHA-1 of a user's name")
    return text


def _is_window(text: str) -> str:
    wrong = "should be a UTC day or month, like 2026-11-26 or 2026-11"
    if not _window.fullmatch(text):
        raise ValueError(wrong)
    try:
        window_ms(text)
    except ValueError:
        raise ValueError(wrong) from None
    return text


def _tag(text: str) -> str:
    if not _whole_tag.fullmatch(text):
        raise ValueError("should be a tag like env=prod")
    return text


def _moment(text: object) -> object:
    wrong = "should be a time like 2026-11-23T00:00:00Z"
    if not isinstance(text, str) or not _time.fullmatch(text):
        raise ValueError(wrong)
    try:
        # A plus in a query is a space, and a date's offset often comes with one that nobody escaped.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise ValueError(wrong) from None
    if moment.tzinfo is None:
        raise ValueError(wrong)
    return moment


CURSOR = "Where the page begins: the next_cursor of the answer before"
RESUME_CURSOR = f"{CURSOR}, or the resume_cursor of a list that ended"

Top = Annotated[
    int,
    BeforeValidator(_top),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": PAGE_LIMIT}),
]
Days = Annotated[
    int,
    BeforeValidator(_days),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": DAYS_LIMIT}),
]
PageLimit = Annotated[
    int,
    BeforeValidator(_limit),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE_DEFAULT}),
]
TeamOf = Annotated[str, AfterValidator(_team), text_schema(TEAM_ID_PATTERN, "Only this team's")]
IdPrefix = Annotated[str, AfterValidator(_prefix), text_schema(ID_PREFIX_PATTERN, "Only those whose ids begin so")]
KeyOf = Annotated[str, AfterValidator(_key), text_schema(KEY_ID_PATTERN, "Only this key's")]
KeyCursor = Annotated[str, AfterValidator(_key_cursor), text_schema(KEY_ID_PATTERN, CURSOR)]
KeysCursor = Annotated[str, AfterValidator(_keys_cursor), text_schema(rf"{KEY_ID_PATTERN}|{TEAM_ID_PATTERN}", CURSOR)]
TeamCursor = Annotated[str, AfterValidator(_team_cursor), text_schema(TEAM_ID_PATTERN, CURSOR)]
EntryCursor = Annotated[str, AfterValidator(_entry_cursor), text_schema(STREAM_CURSOR_PATTERN, RESUME_CURSOR)]
Shipper = Annotated[str, AfterValidator(shipper_name), text_schema(SHIPPER_PATTERN, "The name of the shipper")]
OutcomeOf = Annotated[str, AfterValidator(_outcome), WithJsonSchema({"type": "string", "enum": list(Outcome)})]
Since = Annotated[AwareDatetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Until = Annotated[
    AwareDatetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "description": "Only before this moment"}),
]
OrderOf = Annotated[
    str,
    AfterValidator(_order),
    WithJsonSchema({"type": "string", "enum": list(ORDERS), "default": ORDERS[0], "description": "Of one team"}),
]
RequestOf = Annotated[str, AfterValidator(_request), text_schema(REQUEST_PATTERN, "Only this request's")]
UserOf = Annotated[
    str,
    Field(min_length=1, max_length=USER_LENGTH_LIMIT),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": USER_LENGTH_LIMIT, "description": "This end user's"}
    ),
]
UsersOf = Annotated[
    str,
    AfterValidator(_users),
    text_schema(USERS_PATTERN, "Id of a key or of the team, ':' and the SHA-1 of the user's name, with commas between"),
]
AnyUser = Annotated[
    str,
    Field(max_length=USER_LENGTH_LIMIT),
    WithJsonSchema(
        {"type": "string", "maxLength": USER_LENGTH_LIMIT, "description": "An end user's as well; empty for no name"}
    ),
]
PeopleBy = Annotated[
    Literal["user", "tag"], WithJsonSchema({"type": "string", "enum": ["user", "tag"], "default": "user"})
]
Window = Annotated[
    str, AfterValidator(_is_window), text_schema(WINDOW_PATTERN, "A UTC day or month, like 2026-11-26 or 2026-11")
]
TagOf = Annotated[str, AfterValidator(_tag), text_schema(TAG_PATTERN, "Only with this tag, like env=prod")]


class StrictQuery(BaseModel):
    """A query in which nothing else may stand."""

    model_config = ConfigDict(extra="forbid")


class PageQuery(StrictQuery):
    """One page of a list."""

    cursor: KeyCursor | None = None
    limit: PageLimit = PAGE_DEFAULT


class KeysQuery(StrictQuery):
    """``GET /admin/v1/keys``."""

    cursor: KeysCursor | None = None
    limit: PageLimit = PAGE_DEFAULT
    team: TeamOf | None = None
    prefix: IdPrefix | None = None


class TeamsQuery(StrictQuery):
    """``GET /admin/v1/teams``."""

    cursor: TeamCursor | None = None
    limit: PageLimit = PAGE_DEFAULT
    prefix: IdPrefix | None = None


class BookTeamsQuery(StrictQuery):
    """``GET /admin/v1/ledger/books``."""

    cursor: TeamCursor | None = None
    limit: PageLimit = PAGE_DEFAULT


class UsageQuery(StrictQuery):
    """``GET …/usage``."""

    user: AnyUser | None = None
    days: Days | None = None


class PeopleQuery(StrictQuery):
    """``GET /admin/v1/teams/{id}/usage/people``."""

    window: Window
    by: PeopleBy = "user"
    key: KeyOf | None = None
    limit: PageLimit = PAGE_DEFAULT


class UserBooksQuery(StrictQuery):
    """``GET /admin/v1/ledger/books/{team}/users``."""

    of: UsersOf


class LedgerQuery(StrictQuery):
    """``GET /admin/v1/ledger``."""

    team: TeamOf | None = None
    key: KeyOf | None = None
    request: RequestOf | None = None
    user: UserOf | None = None
    tag: TagOf | None = None
    since: Since | None = None
    until: Until | None = None
    outcome: OutcomeOf | None = None
    order: OrderOf = ORDERS[0]
    cursor: EntryCursor | None = None
    limit: PageLimit = PAGE_DEFAULT


class StatementQuery(StrictQuery):
    """Queries of statements. ``top`` is how many of each kind of headings are told; the others are one."""

    top: Top | None = None


class HeadsQuery(StrictQuery):
    """``GET /admin/v1/ledger/heads``."""

    shipper: Shipper
    cursor: TeamCursor | None = None
    limit: PageLimit = PAGE_DEFAULT


class AuditQuery(StrictQuery):
    """``GET /admin/v1/audit``."""

    team: TeamOf | None = None
    since: Since | None = None
    cursor: EntryCursor | None = None
    limit: PageLimit = PAGE_DEFAULT


def since_ms(moment: datetime | None) -> int | None:
    """Milliseconds since the epoch, none below 0; None stays None."""
    return None if moment is None else max(0, int(moment.timestamp() * 1000))


def read_query(request: web.Request, kind: type[Query]) -> Query:
    """The query as ``kind``. Raises InvalidRequest."""
    known = kind.model_fields
    for name in request.query:
        if name not in known:
            shown = name[:100]
            raise InvalidRequest(f"Unknown query parameter '{shown}'; there are {', '.join(known)}.", param=shown)
        if len(request.query.getall(name)) > 1:
            raise InvalidRequest(f"'{name}' is given twice.", param=name)
    try:
        return kind.model_validate(dict(request.query))
    except ValidationError as invalid:
        mistake = invalid.errors()[0]
        name, wrong = str(mistake["loc"][0]), mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "missing":
            raise InvalidRequest(f"Missing required parameter: '{name}'.", param=name) from None
        raise InvalidRequest(f"'{name}' {wrong[0].lower()}{wrong[1:]}.", param=name) from None


def split_entry_id(entry_id: str) -> tuple[str, str]:
    """A ledger entry's team, and its id there. Raises NotFound."""
    team = entry_team(entry_id)
    if team is None:
        raise NotFound(f"There is no ledger entry '{entry_id[:100]}'.")
    return team, entry_id.rpartition("_")[2]


def split_users(text: str) -> list[tuple[str, str]]:
    """The ids in a query for the counters of users: of a key or a team, and of a user."""
    return [(account, user) for account, _, user in (each.partition(":") for each in text.split(","))]


def entry_team(entry_id: Any) -> str | None:
    """The team in a ledger entry's id, None where it is no such id."""
    team, _, stream_id = str(entry_id).rpartition("_")
    return team if is_team_id(team) and _stream_id.fullmatch(stream_id) else None
