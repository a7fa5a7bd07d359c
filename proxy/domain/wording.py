"""How a request's body is worded at one place where a model is made, beyond what its dialect says.

The operator's words are the last: nothing that a client sends takes the place of a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Path = tuple[str, ...]
"""The names that lead to a member: ``("image_config", "image_size")``."""

IMAGE_CONFIG, SIZE = "image_config", "size"
_NOTHING = object()


class EditForm(StrEnum):
    """How a provider takes the images of an edit."""

    FORM = "form"
    """As OpenAI: a form with the files, or JSON with references."""

    FILES = "files"
    """A form with the files, and nothing else."""

    UNMASKED_FILES = "unmasked_files"
    """Such a form, without a mask."""

    IMAGE_OBJECTS = "image_objects"
    """JSON: ``image`` is ``{"type": "image_url", "url": …}``; several are a list of such, ``images``."""

    IMAGE_URLS = "image_urls"
    """JSON: ``image`` is an address, or a list of them."""

    INPUT_IMAGES = "input_images"
    """JSON: ``input_image``, ``input_image_2`` and so on hold base64."""

    NONE = "none"
    """Not at all."""


@dataclass(frozen=True, slots=True)
class Wording:
    """What is written otherwise. ``renames`` lead from where a field is to where it goes.

    ``words`` are other spellings of a field's texts, by the name that it has in the end. ``constants`` are in every
    request. ``names_model`` is whether the body says which model is asked for, and ``edits`` how images get there.
    """

    renames: tuple[tuple[Path, Path], ...] = ()
    words: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    names_model: bool = True
    edits: EditForm = EditForm.FORM

    def of(self, body: dict[str, Any]) -> dict[str, Any]:
        """``body`` so worded; itself and all that is in it stay as they are."""
        worded = dict(body)
        if not self.names_model:
            worded.pop("model", None)
        moved = [(target, _take(worded, source)) for source, target in self.renames]
        for target, value in moved:
            if value is not _NOTHING:
                _put(worded, target, value)
        for path, words in self.words.items():
            value = _take(worded, path)
            if value is not _NOTHING:
                _put(worded, path, words.get(value, value) if isinstance(value, str) else value)
        return _with(worded, self.constants)

    @property
    def image_config_members(self) -> frozenset[str]:
        """The members of ``image_config`` that have names of their own there."""
        return frozenset(source[1] for source, _ in self.renames if source[0] == IMAGE_CONFIG and len(source) > 1)

    @property
    def splits_size(self) -> bool:
        """Whether width and height have names of their own there."""
        return any(source[0] == SIZE and len(source) > 1 for source, _ in self.renames)

    @property
    def names_taken(self) -> frozenset[str]:
        """The names that stand for something already, so that no field that nobody knows may have them."""
        return frozenset({*self.constants, *(target[0] for _, target in self.renames)})


def _take(body: dict[str, Any], path: Path) -> Any:
    """What is at ``path``, which is not there any more then; objects on the way are copied."""
    name, *rest = path
    if name not in body:
        return _NOTHING
    if not rest:
        return body.pop(name)
    if not isinstance(body[name], dict):
        return _NOTHING
    inner = dict(body[name])
    value = _take(inner, tuple(rest))
    if inner:
        body[name] = inner
    else:
        del body[name]
    return value


def _put(body: dict[str, Any], path: Path, value: Any) -> None:
    """``value`` at ``path``, whatever was there; objects on the way are made, or copied."""
    name, *rest = path
    if not rest:
        body[name] = value
        return
    inner = body.get(name)
    body[name] = dict(inner) if isinstance(inner, dict) else {}
    _put(body[name], tuple(rest), value)


def _with(body: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` with ``constants`` in it; where both have an object, its members are put together likewise."""
    joined = dict(body)
    for name, value in constants.items():
        known = joined.get(name)
        joined[name] = _with(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return joined
