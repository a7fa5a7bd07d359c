"""What a single value of the configuration has to be: each type with its mistake in words."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from yarl import URL

from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.chat import CHAT_PARAMETERS
from proxy.domain.requests.image import LISTED_PARAMETERS
from proxy.domain.requests.size_words import read_size
from proxy.metering.redis.address import check_store_address
from proxy.upstream.polled.hosts import check_host
from proxy.upstream.provider import MODEL_PLACE
from proxy.web.admin.queries import shipper_name
from proxy.web.middleware.client_address import UNIX_CLIENT
from proxy.web.middleware.common_headers import ANY_ORIGIN
from proxy.web.server.sockets.address import ListenAddress

EMBEDDED = "embedded:"
AUTO = "auto"
WORKERS_MOST = 60
DAY_S = 86_400
MULTIPLIER_LIMIT = Decimal(1_000_000)
_origin = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_id = re.compile(r"[^\s\x00-\x1f]+")
_mode = re.compile(r"0?[0-7]{3}")
_path = re.compile(r"/[A-Za-z0-9._~/-]{0,199}")
_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _address(text: str) -> str:
    ListenAddress.of(text)
    return text


def _workers(given: object) -> int | str:
    text = str(given).strip()
    if text == AUTO:
        return AUTO
    if isinstance(given, bool) or not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= WORKERS_MOST:
        raise ValueError(f'should be a whole number from 1 to {WORKERS_MOST}, or "{AUTO}"')
    return int(text)


def _store_url(text: str) -> str:
    if not text.startswith(EMBEDDED) or text == EMBEDDED:
        check_store_address(text)
        return text
    folder = text.removeprefix(EMBEDDED)
    if not folder.startswith("~"):
        return text
    try:
        # Here, for the journal and the admin token lie in the same folder.
        return f"{EMBEDDED}{Path(folder).expanduser()}"
    except RuntimeError:
        raise ValueError("begins with a home folder that is not known: write the whole path, or set HOME") from None


def _base_url(text: str) -> str:
    try:
        url = URL(text.replace(MODEL_PLACE, "model"))
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or "?" in text or "#" in text:
        raise ValueError("should be an address like https://api.openai.com/v1; a query belongs into query")
    if "{" in text.replace(MODEL_PLACE, ""):
        raise ValueError(f"may have {MODEL_PLACE} in it, and nothing else in braces")
    if url.user or url.password:
        raise ValueError("should hold no password: name the variable with the provider's key in api_key_env")
    return text


def _exact_decimal(value: object) -> object:
    # 0.3333 in TOML is a binary float already; its shortest form is what the operator wrote.
    return repr(value) if isinstance(value, float) else value


def _comma_separated(value: object) -> object:
    """A variable of the environment holds no list."""
    return [part for each in value.split(",") if (part := each.strip())] if isinstance(value, str) else value


def _cors_origin(text: str) -> str:
    # Compared as it is: another spelling would be taken, and let nobody in.
    default_port = ":80" if text.startswith("http://") else ":443"
    if text != ANY_ORIGIN and (not _origin.fullmatch(text) or text.endswith(default_port)):
        raise ValueError(
            "should be an origin as browsers send it, in small letters, without path and default port: "
            "https://studio.example or http://localhost:5173"
        )
    return text


def _own_origin(text: str) -> str:
    if text == ANY_ORIGIN:
        raise ValueError("should be the origin where people find the console, like https://meter.example")
    return _cors_origin(text)


def _any_origin_alone(origins: tuple[str, ...]) -> tuple[str, ...]:
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise ValueError(f"should be [{ANY_ORIGIN!r}] alone, or a list without it")
    return origins


def _network(text: str) -> str:
    if text == UNIX_CLIENT:
        return text
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(
            "should be an address, like 127.0.0.1, a network, like 10.0.0.0/8 or fd00::/8, or unix for a Unix socket"
        ) from None


def _socket_mode(text: str) -> str:
    if not _mode.fullmatch(text):
        raise ValueError('should be three octal digits in quotes, like "0660"')
    return text


def _health_path(text: str) -> str:
    if not _path.fullmatch(text):
        raise ValueError("should be a path like /healthz, of letters, digits, and - _ . ~ /")
    if f"{text}/".startswith("/v1/"):
        raise ValueError("is a path of the API: choose one outside of /v1")
    return text


def no_boolean(value: object) -> object:
    """TOML's true is no 1."""
    if isinstance(value, bool):
        raise ValueError("should be an integer or a number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _seconds(value: float) -> float:
    if not 0 < value <= DAY_S:
        raise ValueError(f"should be greater than 0 and at most {DAY_S} seconds")
    return value


def _day(value: object) -> object:
    # A text would do for pydantic, and so would seconds since the epoch.
    if type(value) is not date:
        raise ValueError("should be a day without quotes, like 2026-12-01")
    return value


def _variable_name(text: str) -> str:
    if not _variable.fullmatch(text):
        raise ValueError("should be the name of an environment variable, not the secret itself")
    return text


def one_of(*allowed: str) -> AfterValidator:
    """A validator for words of which these are allowed."""

    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"should be one of {', '.join(allowed)}")
        return text

    return AfterValidator(check)


def _known_parameter(name: str) -> str:
    if name not in LISTED_PARAMETERS | CHAT_PARAMETERS:
        raise ValueError(f"is not a request field; there are {', '.join(sorted(LISTED_PARAMETERS | CHAT_PARAMETERS))}")
    return name


def _model_id(text: str) -> str:
    if not _id.fullmatch(text):
        raise ValueError("should have no blanks and no control characters")
    return text


def _size(text: str) -> str:
    try:
        size = read_size("size", text)
    except InvalidRequest:
        size = None
    if size is None:
        raise ValueError("should be WIDTHxHEIGHT, like 1024x1024, or a word, like 2K")
    return size


Address = Annotated[str, AfterValidator(_address)]
SocketMode = Annotated[str, AfterValidator(_socket_mode)]
HealthPath = Annotated[str, AfterValidator(_health_path)]
Workers = Annotated[int | str, BeforeValidator(_workers)]
Whole = Annotated[int, BeforeValidator(no_boolean)]
Day = Annotated[date, BeforeValidator(_day)]
"""In UTC."""

Seconds = Annotated[float, BeforeValidator(no_boolean), AfterValidator(_seconds)]
Bytes = Annotated[Whole, Field(ge=1_024, le=2**40)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
ModelId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_model_id)]
Multiplier = Annotated[Decimal, BeforeValidator(_exact_decimal), Field(ge=0, le=MULTIPLIER_LIMIT, decimal_places=18)]
UnitsPerUsd = Annotated[Decimal, BeforeValidator(_exact_decimal), Field(gt=0, le=10**12, decimal_places=18)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
PageUrl = Annotated[str, AfterValidator(_own_origin)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
CorsOrigins = Annotated[
    tuple[Annotated[str, AfterValidator(_cors_origin)], ...],
    BeforeValidator(_comma_separated),
    AfterValidator(_any_origin_alone),
]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_comma_separated)]
Shippers = Annotated[
    tuple[Annotated[str, AfterValidator(shipper_name)], ...],
    BeforeValidator(_comma_separated),
    Field(max_length=10),
]
VariableName = Annotated[str, AfterValidator(_variable_name)]
Size = Annotated[str, AfterValidator(_size)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(check_host)], ...], Field(max_length=100)]
Parameter = Annotated[str, AfterValidator(_known_parameter)]
