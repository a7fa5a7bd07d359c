"""What providers report of the tokens that an answer took, in any of their words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from proxy.domain.catalog import TOKENS_LIMIT

TOTALS = ("total_tokens", "totalTokenCount")
PARTS = (
    ("input_tokens", "prompt_tokens", "promptTokenCount"),
    ("output_tokens", "completion_tokens", "candidatesTokenCount"),
    ("thoughtsTokenCount",),
    ("toolUsePromptTokenCount",),
)
"""What a total is made of, each part in the words of OpenAI's two APIs and of Gemini's.

https://platform.openai.com/docs/api-reference/images/object, https://ai.google.dev/api/generate-content#UsageMetadata
"""

INPUT_DETAILS = ("input_tokens_details", "prompt_tokens_details", "promptTokensDetails")
OUTPUT_DETAILS = ("output_tokens_details", "completion_tokens_details", "candidatesTokensDetails")
TOOL_DETAILS = ("toolUsePromptTokensDetails",)
"""Objects with ``text_tokens`` and ``image_tokens``, or Gemini's lists of ``modality`` and ``tokenCount``."""

IMAGE_MODALITY = "image"
KINDS = ("text_tokens", "image_tokens", "reasoning_tokens")
COST, COST_DETAILS, PROVIDERS_COST, OWN_KEY = "cost", "cost_details", "upstream_inference_cost", "is_byok"

SUM_BYTES_LIMIT = 16_384
"""Of several reports as one, which is as much as one of them may have; of more, only what is counted is kept."""

_digits = re.compile(r"[0-9]{1,15}")
_decimal = re.compile(r"[0-9]{0,40}(?:\.[0-9]{0,60})?(?:[eE][+-]?[0-9]{1,3})?")
"""What has more digits, or a larger exponent, is no amount of anything, and would take megabytes to write down."""

INTEGER_LIMIT = 2**63
"""Of what is written as an integer again."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many of each kind an answer took."""

    input_text: int = 0
    input_image: int = 0
    output_text: int = 0
    output_image: int = 0


def tokens_by_kind(usage: bytes | None) -> Tokens | None:
    """The tokens of ``usage``, a JSON object; None where it reports none, or more than can be true.

    What has no details is a prompt's text and an answer's image; a total that stands alone is an image's, too.
    """
    reported = orjson.loads(usage or b"{}")
    given, made, thought, tool = (_number(reported, names) for names in PARTS)
    prompt, tools, output = (_details(reported, names) for names in (INPUT_DETAILS, TOOL_DETAILS, OUTPUT_DETAILS))
    if given is None and prompt:
        given = sum(_split(0, prompt, rest_is_text=True))
    if made is None and output:
        made = sum(_split(0, output, rest_is_text=True))
    rest = max(0, (_number(reported, TOTALS) or 0) - sum(part or 0 for part in (given, made, thought, tool)))
    if made is None:
        made = rest
    elif given is None:
        given = rest
    input_text, input_image = _split(given or 0, prompt, rest_is_text=True)
    tool_text, tool_image = _split(tool or 0, tools, rest_is_text=True)
    # Where the images are told, what is left of an answer is its text; else it is its images.
    output_text, output_image = _split(made, output, rest_is_text=bool(output.get("image_tokens")))
    tokens = Tokens(input_text + tool_text, input_image + tool_image, output_text + (thought or 0), output_image)
    count = tokens.input_text + tokens.input_image + tokens.output_text + tokens.output_image
    return tokens if 0 < count <= TOKENS_LIMIT else None


def _split(total: int, details: Mapping[str, int], *, rest_is_text: bool) -> tuple[int, int]:
    """Tokens of text and of images; thoughts are text."""
    text, image = details.get("text_tokens", 0), details.get("image_tokens", 0)
    # Some count thoughts as text as well.
    text = max(text, min(text + details.get("reasoning_tokens", 0), total - image))
    rest = max(0, total - text - image)
    return (text + rest, image) if rest_is_text else (text, image + rest)


def _details(reported: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, int]:
    """The first of ``names`` that has some, in OpenAI's words."""
    for name in names:
        value = reported.get(name)
        if isinstance(value, dict):
            return {kind: count for kind, given in value.items() if (count := _count(given)) is not None}
        if isinstance(value, list):
            counts = {"text_tokens": 0, "image_tokens": 0}
            for each in value:
                count = _count(each.get("tokenCount")) if isinstance(each, dict) else None
                if count is not None:
                    is_image = str(each.get("modality")).lower() == IMAGE_MODALITY
                    counts["image_tokens" if is_image else "text_tokens"] += count
            return counts
    return {}


def reported_cost(usage: bytes | None) -> Decimal | None:
    """What the provider charges, in US dollars, as OpenRouter reports it; None where it does not.

    With an operator's own key (``is_byok``) that is what the model's provider charges as well.
    https://openrouter.ai/docs/use-cases/usage-accounting
    """
    reported = orjson.loads(usage or b"{}")
    cost = _dollars(reported.get(COST))
    details = reported.get(COST_DETAILS)
    if cost is not None and reported.get(OWN_KEY) is True and isinstance(details, dict):
        cost += _dollars(details.get(PROVIDERS_COST)) or 0
    return cost


def _dollars(value: object) -> Decimal | None:
    dollars = _amount(value)
    return dollars if dollars is not None and dollars >= 0 else None


def _amount(value: object) -> Decimal | None:
    """A number in any way of writing it; None for what is none."""
    if type(value) not in (int, float, str):
        return None
    # The shortest form of a float is what the provider wrote.
    text = str(value).strip()
    if not _decimal.fullmatch(text.removeprefix("-")):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def total_tokens(usage: bytes | None) -> int:
    """All tokens of ``usage``, a JSON object: its total, or else, also where that is 0, the sum of its parts.

    0 where it reports neither, or a number that cannot be true.
    """
    reported = orjson.loads(usage or b"{}")
    total = _number(reported, TOTALS)
    if not total:
        total = sum(_number(reported, names) or 0 for names in PARTS)
    return total if total <= TOKENS_LIMIT else 0


def later_usage(before: bytes | None, after: bytes | None) -> bytes | None:
    """Of two reports of the same answer the later one, unless only the earlier one tells of tokens or of a cost."""
    if before is None or after is None:
        return after or before
    return after if total_tokens(after) or tokens_by_kind(after) or reported_cost(after) is not None else before


def add_usage(first: bytes | None, second: bytes | None) -> bytes | None:
    """Two reports as one: their numbers are added up, what else they say is the second's."""
    if first is None or second is None:
        return first or second
    one, other = orjson.loads(first), orjson.loads(second)
    added = orjson.dumps(_sum(one, other))
    return added if len(added) <= SUM_BYTES_LIMIT else orjson.dumps(_sum(_counted(one), _counted(other)))


def _counted(reported: Mapping[str, Any]) -> dict[str, Any]:
    """What of a report is looked at, in few bytes however long it is."""
    counted: dict[str, Any] = {}
    for name in (*TOTALS, *(word for words in PARTS for word in words)):
        if (count := _count(reported.get(name))) is not None:
            counted[name] = count
    for names in (INPUT_DETAILS, OUTPUT_DETAILS, TOOL_DETAILS):
        details = _details(reported, names)
        name = next((each for each in names if isinstance(reported.get(each), dict | list)), "")
        if details and isinstance(reported[name], dict):
            counted[name] = {kind: details[kind] for kind in KINDS if kind in details}
        elif details:
            counts = (("TEXT", details["text_tokens"]), ("IMAGE", details["image_tokens"]))
            counted[name] = [
                {"modality": modality, "tokenCount": count} for modality, count in counts if 0 < count < INTEGER_LIMIT
            ]
    if (cost := _dollars(reported.get(COST))) is not None:
        counted[COST] = f"{cost:f}"
    if reported.get(OWN_KEY) is True:
        counted[OWN_KEY] = True
    behind = reported.get(COST_DETAILS)
    if isinstance(behind, dict) and (cost := _dollars(behind.get(PROVIDERS_COST))) is not None:
        counted[COST_DETAILS] = {PROVIDERS_COST: f"{cost:f}"}
    return counted


def _sum(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    added = {**first, **second}
    for name in first.keys() & second.keys():
        one, other = first[name], second[name]
        if isinstance(one, dict) and isinstance(other, dict):
            added[name] = _sum(one, other)
        elif isinstance(one, list) and isinstance(other, list):
            added[name] = _sum_by_modality([*one, *other])
        elif (a := _amount(one)) is not None and (b := _amount(other)) is not None:
            added[name] = _written(a + b, (type(one), type(other)))
    return added


def _written(total: Decimal, kinds: tuple[type, type]) -> int | float | str:
    """A sum as both of its numbers were written. Costs as they are: 0.1 + 0.2 is 0.3."""
    if str in kinds:
        return f"{total:f}"
    if float not in kinds and abs(total) < INTEGER_LIMIT:
        return int(total)
    return float(total)


def _sum_by_modality(counts: Sequence[Any]) -> list[Any]:
    """Gemini's lists; whatever else they hold is kept as it is."""
    added: dict[Any, Any] = {}
    others = []
    for each in counts:
        modality = each.get("modality") if isinstance(each, dict) else None
        if not isinstance(modality, str):
            others.append(each)
        else:
            added[modality] = _sum(added[modality], each) if modality in added else each
    return [*added.values(), *others]


def _number(reported: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of ``names`` that has a number of tokens, which some write as ``30.0`` or as a text."""
    for name in names:
        count = _count(reported.get(name))
        if count is not None:
            return count
    return None


def _count(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if _digits.fullmatch(value) else None
    if (type(value) is int or (isinstance(value, float) and value.is_integer())) and 0 <= value < INTEGER_LIMIT:
        return int(value)
    return None
