"""What the admin API takes: each body checked, each mistake reported with the field and what would be right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import orjson
from aiohttp import web
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from proxy.domain.api_key import TEAM_ID_PATTERN, is_team_id
from proxy.domain.catalog import UNITS_LIMIT
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.limits import EVERY_MODEL, Limits, LimitsPerUser, UserLimits
from proxy.domain.money import NO_MONEY, USD_PATTERN, Money
from proxy.domain.people import USER_LENGTH_LIMIT
from proxy.metering.ledger.walk import ENTRY_ID_PATTERN
from proxy.web.admin.queries import Shipper, Since, entry_team, text_schema
from proxy.web.intake.request_body import BodyLimits, read_json_body

QUOTA_LIMIT = UNITS_LIMIT // 4
RATE_LIMIT = 1_000_000
"""A minute has sixty million microseconds, and rates are counted in whole ones."""

OVERLAP_LIMIT_S = 30 * 86_400
USERS_LIMIT = 100
"""End users of a key or a team who have limits of their own: admissions look through them."""

POSITIONS_LIMIT = 1_000
"""Teams in one report of a shipper."""

MODELS_PATTERN = r"^(?:\*|[^*\s\x1c-\x1f\x85]+(?:/\*)?)$"
MODELS_WORDS = "A model's id, 'prefix/*' or '*'"
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

Body = TypeVar("Body", bound=BaseModel)


def _team_id(text: str) -> str:
    if not is_team_id(text):
        raise ValueError("should be 1 to 40 of a-z, 0-9 and '-', with no '-' at either end")
    return text


def _pattern(text: str) -> str:
    prefix = "" if text == "*" else text.removesuffix("/*")
    if not text or "*" in prefix or any(character.isspace() for character in text):
        raise ValueError("should be a model's id, 'prefix/*' or '*'")
    return text


def _integral(value: object) -> object:
    # JSON Schema's integers may be written with a fraction of zero, and some languages write them so.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < UNITS_LIMIT else value


def _units(value: object, info: ValidationInfo) -> object:
    """US dollars become quota units, by the ``money`` of the context."""
    if not isinstance(value, str):
        return _integral(value)
    money: Money = (info.context or {}).get("money", NO_MONEY)
    return money.units(value)


def _in_units(least: int) -> WithJsonSchema:
    usd = {"type": "string", "pattern": f"^{'-?' if least < 0 else ''}{USD_PATTERN}$"}
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least, "maximum": QUOTA_LIMIT}, usd]})


def _storable(moment: datetime) -> datetime:
    if not EARLIEST <= moment <= LATEST:
        raise ValueError(f"should be from {EARLIEST:%Y} to {LATEST:%Y}")
    return moment


Timestamp = Annotated[
    AwareDatetime,
    Field(strict=False),
    AfterValidator(_storable),
    WithJsonSchema({"type": "string", "format": "date-time", "description": "In the future"}),
]
TeamId = Annotated[str, AfterValidator(_team_id), text_schema(TEAM_ID_PATTERN, "1 to 40 of a-z, 0-9 and '-'")]
Pattern = Annotated[
    str,
    Field(max_length=200),
    AfterValidator(_pattern),
    WithJsonSchema({"type": "string", "maxLength": 200, "pattern": MODELS_PATTERN, "description": MODELS_WORDS}),
]
Integral = BeforeValidator(_integral)
QuotaUnits = Annotated[int, Field(ge=0, le=QUOTA_LIMIT), BeforeValidator(_units), _in_units(0)]
GrantedUnits = Annotated[int, Field(ge=-QUOTA_LIMIT, le=QUOTA_LIMIT), BeforeValidator(_units), _in_units(-QUOTA_LIMIT)]
Rate = Annotated[int, Field(ge=1, le=RATE_LIMIT), Integral]


class _AdminBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class UserLimitsBody(_AdminBody):
    """What one end user may use. What is null or left out is no limit."""

    quota_units_per_day: QuotaUnits | None = None
    quota_units_per_month: QuotaUnits | None = None
    images_per_minute: Rate | None = None
    concurrent_requests: Annotated[int, Field(ge=1, le=RATE_LIMIT), Integral] | None = None


class LimitsPerUserBody(UserLimitsBody):
    """Limits of each end user. Those in ``users``, named as the ledger has them, have others instead.

    Requests that name no user are those of the user ``""``.
    """

    users: Annotated[
        dict[Annotated[str, Field(max_length=USER_LENGTH_LIMIT)], UserLimitsBody], Field(max_length=USERS_LIMIT)
    ] = {}


class LimitsBody(_AdminBody):
    """Limits of a key or a team. What is null or left out is no limit. Days and months are UTC.

    A quota may be given in US dollars (``"$250"``) where ``accounting.units_per_usd`` is set.
    """

    quota_units: QuotaUnits | None = None
    quota_units_per_day: QuotaUnits | None = None
    quota_units_per_month: QuotaUnits | None = None
    requests_per_minute: Rate | None = None
    images_per_minute: Rate | None = None
    concurrent_requests: Annotated[int, Field(ge=1, le=RATE_LIMIT), Integral] | None = None
    models: Annotated[list[Pattern], Field(min_length=1, max_length=1_000)] = Field(default=list(EVERY_MODEL))
    limits_per_user: LimitsPerUserBody | None = None


class CreateKeyBody(_AdminBody):
    """``POST /admin/v1/keys``."""

    team: TeamId
    name: Annotated[str, Field(max_length=200)] = ""
    limits: LimitsBody = LimitsBody()
    expires_at: Timestamp | None = None


class CreateTeamBody(_AdminBody):
    """``POST /admin/v1/teams``."""

    id: TeamId
    name: Annotated[str, Field(max_length=200)] = ""
    limits: LimitsBody = LimitsBody()


class UpdateTeamBody(_AdminBody):
    """``PATCH /admin/v1/teams/{id}``: what is left out stays as it is."""

    name: Annotated[str, Field(max_length=200)] = ""
    limits: LimitsBody = LimitsBody()

    def changes(self) -> dict[str, Any]:
        """Only what was given, by the names that the store knows."""
        given: dict[str, Any] = {}
        if "limits" in self.model_fields_set:
            limits = limits_of(self.limits)
            given = {name: getattr(limits, name) for name in self.limits.model_fields_set}
        if "name" in self.model_fields_set:
            given["name"] = self.name
        return given


class UpdateKeyBody(UpdateTeamBody):
    """``PATCH /admin/v1/keys/{id}``: what is left out stays as it is."""

    expires_at: Timestamp | None = None

    def changes(self) -> dict[str, Any]:
        """Only what was given, by the names that the store knows."""
        given = super().changes()
        if "expires_at" in self.model_fields_set:
            given["expires_ms"] = milliseconds(self.expires_at)
        return given


class RotateBody(_AdminBody):
    """``POST …/rotate``: the old secret stays good for ``overlap_seconds``."""

    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_LIMIT_S), Integral] = 0


class GrantBody(_AdminBody):
    """``POST …/grants``: a negative number takes back, as ``-5000`` or ``"-$5"``."""

    quota_units: GrantedUnits
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


class RefundBody(_AdminBody):
    """``POST …/refund``."""

    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


def _entry_of_a_team(text: str) -> str:
    if entry_team(text) is None:
        raise ValueError("should be a ledger entry's id")
    return text


class ShippedBody(_AdminBody):
    """``POST /admin/v1/ledger/shipped``: the last entry of each team that was shipped.

    ``caught_up_to`` is a moment by the store's clock, up to which every entry of every team has been shipped.
    """

    shipper: Shipper
    entries: Annotated[
        list[Annotated[str, AfterValidator(_entry_of_a_team), text_schema(ENTRY_ID_PATTERN, "A ledger entry's id")]],
        Field(max_length=POSITIONS_LIMIT),
    ] = []
    caught_up_to: Since | None = None


def limits_of(body: LimitsBody) -> Limits:
    """The limits as the domain has them."""
    per_user = None if body.limits_per_user is None else _limits_per_user(body.limits_per_user)
    return Limits(**{**body.model_dump(), "models": tuple(body.models), "limits_per_user": per_user})


def _limits_per_user(body: LimitsPerUserBody) -> LimitsPerUser:
    users = {user: UserLimits(**own.model_dump()) for user, own in body.users.items()}
    return LimitsPerUser(**{**body.model_dump(), "users": users})


def milliseconds(moment: datetime | None) -> int | None:
    """Milliseconds since the epoch; None stays None."""
    return None if moment is None else int(moment.timestamp() * 1000)


async def read_request(
    request: web.Request,
    kind: type[Body],
    limits: BodyLimits,
    *,
    may_be_left_out: bool = False,
    money: Money = NO_MONEY,
) -> Body:
    """A request's body as ``kind``, with quotas in units or in ``money``. Raises InvalidRequest."""
    if request.body_exists:
        text = await read_json_body(request, limit_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
        return read_body(kind, text, money)
    if may_be_left_out:
        return kind()
    raise InvalidRequest("The request has no body; it should be a JSON object.")


def read_body(kind: type[Body], text: bytes, money: Money = NO_MONEY) -> Body:
    """The body as ``kind``. Raises InvalidRequest, or UnknownParameter for a field that nobody knows."""
    try:
        content = orjson.loads(text or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise InvalidRequest("The request body should be a JSON object.")
    try:
        return kind.model_validate(content, context={"money": money})
    except ValidationError as invalid:
        mistake = invalid.errors()[0]
        # Where a field may be null, pydantic adds the name of the type that it tried.
        path = ".".join(str(part) for part in mistake["loc"] if "[" not in str(part) and "-" not in str(part))
        if mistake["type"] == "extra_forbidden":
            raise UnknownParameter(f"Unknown parameter: '{path}'.", param=path) from None
        if mistake["type"] == "missing":
            raise InvalidRequest(f"Missing required parameter: '{path}'.", param=path) from None
        wrong = mistake["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"'{path}': {wrong[0].lower()}{wrong[1:]}.", param=path) from None
