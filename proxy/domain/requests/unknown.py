"""Fields of a request that nobody here knows: refused, left out, or forwarded as they are, as their model says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.chat import CHAT, ChatRequest
from proxy.domain.requests.edit import EDIT_FORM, VARIATION_FORM
from proxy.domain.requests.image import GENERATION, ImageRequest, Task
from proxy.domain.requests.image_links import check_link
from proxy.domain.requests.kinds import Kind, excerpt

REFUSE, DROP, FORWARD = "refuse", "drop", "forward"

FIELDS_LIMIT = 64
"""How many may be forwarded; their depth and size have the bounds of every request."""

IN_CONFIG = "image_config."
_name = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,99}")
_path_end = re.compile(r"[\[.]")
_address = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)

Asked = ImageRequest | ChatRequest


def accept_unknown(asked: Asked, model: Model) -> Asked:
    """``asked`` with what this model's providers get of its unknown fields, and of those that the operator has added.

    Raises UnknownParameter where they are refused, InvalidRequest where one cannot be forwarded.
    """
    if not model.extras:
        return _accept(asked, model)
    extras, unknown = _read_extras(asked, model)
    accepted = _accept(replace(asked, unknown=unknown), model)
    return replace(accepted, unknown={**accepted.unknown, **extras}) if extras else accepted


def _read_extras(asked: Asked, model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that the operator has added, read; and the others of those that are unknown.

    One that everybody knows may have been added as well: it has to be both.
    """
    in_form = isinstance(asked, ImageRequest) and bool(asked.inputs.uploads)
    extras: dict[str, Any] = {}
    for name, kind in model.extras.items():
        if name in asked.fields:
            kind.read(name, asked.fields[name])
        elif name in asked.unknown:
            given = asked.unknown[name]
            value = extras[name] = kind.read(name, kind.read_text(name, given) if in_form else given)
            _check_links(name, value, model)
    return extras, {name: value for name, value in asked.unknown.items() if name not in extras}


def _accept(asked: Asked, model: Model) -> Asked:
    if isinstance(asked, ChatRequest) and asked.unknown and model.chat_fields:
        asked = _with_own_fields(asked, model.chat_fields)
    files = asked.inputs.others if isinstance(asked, ImageRequest) else ()
    if not asked.unknown and not files:
        return asked
    names = [*asked.unknown, *(file.name for file in files)]
    if model.unknown_parameters == REFUSE:
        raise UnknownParameter(f"Unknown parameter: '{excerpt(names[0])}'.", param=excerpt(names[0]))
    if model.unknown_parameters == DROP:
        if isinstance(asked, ImageRequest):
            asked = replace(asked, inputs=replace(asked.inputs, others=()))
        return replace(asked, unknown={})
    _check(names, _known(asked), asked.unknown, model)
    return _with_members(asked)


def _with_own_fields(asked: ChatRequest, kinds: Mapping[str, Kind]) -> ChatRequest:
    """``asked`` with the fields that its provider's dialect knows, read."""
    own = {name: kinds[name].read(name, value) for name, value in asked.unknown.items() if name in kinds}
    unknown = {name: value for name, value in asked.unknown.items() if name not in kinds}
    usage = own.get("usage")
    wants_usage = asked.wants_usage or (isinstance(usage, dict) and usage.get("include") is True)
    return replace(asked, fields=_joined(asked.fields, own), unknown=unknown, wants_usage=wants_usage)


def _with_members(asked: Asked) -> Asked:
    """``asked`` with what is unknown within ``image_config`` in its place."""
    config = {name: value for name, value in asked.unknown.items() if name.startswith(IN_CONFIG)}
    unknown = {name: value for name, value in asked.unknown.items() if name not in config}
    return replace(asked, unknown=unknown, fields=_joined(asked.fields, config))


def _joined(fields: Mapping[str, Any], more: Mapping[str, Any]) -> Mapping[str, Any]:
    """``fields`` with ``more``, whose names may be paths into ``image_config``."""
    members = {name.removeprefix(IN_CONFIG): value for name, value in more.items() if name.startswith(IN_CONFIG)}
    joined = {**fields, **{name: value for name, value in more.items() if not name.startswith(IN_CONFIG)}}
    if members:
        joined["image_config"] = {**fields.get("image_config", {}), **members}
    return joined


def _known(asked: Asked) -> Collection[str]:
    """The names that a provider must not find a second time, in another spelling."""
    if isinstance(asked, ChatRequest):
        return CHAT.kinds
    return {Task.GENERATION: GENERATION, Task.EDIT: EDIT_FORM, Task.VARIATION: VARIATION_FORM}[asked.task].kinds


def _is_a_spelling(name: str, known: Collection[str]) -> bool:
    """Whether a provider may read ``name`` as a known field: Go ignores case, and others take ``n[]`` for n."""
    lowered = name.lower()
    if lowered.startswith(IN_CONFIG):
        return lowered.removeprefix(IN_CONFIG).replace("_", "") in ("aspectratio", "imagesize")
    return _path_end.split(lowered, maxsplit=1)[0] in known


def _plain(name: str) -> str:
    """A name without what some providers read over: case, ``_`` and ``-``, and what is within it."""
    return _path_end.split(name.lower(), maxsplit=1)[0].replace("_", "").replace("-", "")


def _check(names: list[str], known: Collection[str], unknown: Mapping[str, Any], model: Model) -> None:
    if len(names) > FIELDS_LIMIT:
        raise InvalidRequest(f"The request has more than {FIELDS_LIMIT} fields that nobody here knows.")
    own = model.wording.names_taken if model.wording is not None else ()
    taken = {_plain(name) for name in (*own, *model.extras)}
    for name in names:
        if not _name.fullmatch(name):
            raise InvalidRequest(
                f"'{excerpt(name)}' should be a name of letters, digits, _, -, ., [ and ].", param=excerpt(name)
            )
        if _is_a_spelling(name, known) or _plain(name) in taken:
            raise UnknownParameter(f"Unknown parameter: '{name}'.", param=name)
    for name, value in unknown.items():
        _check_links(name, value, model)


def _check_links(name: str, value: Any, model: Model) -> None:
    # Each is checked, also behind one that is good.
    if sum(check_link(address.strip(), name, name) for address in _addresses(value)) and (
        Ability.LINKED_IMAGES not in model.abilities
    ):
        raise InvalidRequest(
            f"'{name}' should hold images as data: addresses: this model's provider fetches nothing.", param=name
        )


def _addresses(value: Any) -> Iterator[str]:
    rest = [value]
    while rest:
        inner = rest.pop()
        if isinstance(inner, str):
            if _address.match(inner):
                yield inner
        elif isinstance(inner, dict):
            rest += inner.values()
        elif isinstance(inner, list):
            rest += inner
