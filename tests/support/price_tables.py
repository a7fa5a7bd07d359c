"""The contract's price tables: as models, as requests, and as what a provider of each dialect answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from proxy.domain.catalog import unit_price
from proxy.domain.prices.settling import Prices, SettleBy, Settling
from proxy.domain.prices.table import PriceTable, Rule, plain
from tests.support.scripted_provider import Reply

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "contract" / "price-tables.json").read_text(encoding="utf-8")
)["vectors"]
UNITS_PER_USD = 100_000
REFERENCE = "data:image/png;base64,iVBORw0KGgo="


def prices_of(model: Mapping[str, Any], units_per_usd: int | None = UNITS_PER_USD, *, in_words: bool = False) -> Prices:
    """What a model of the contract costs, as the configuration would have it worked out."""
    multiplier, settle = Decimal(model.get("token_multiplier", "1")), model.get("settle", {})
    rules = [
        Rule(
            each["base"],
            plain(each["quality"]) if "quality" in each else None,
            plain(each["size"]) if "size" in each else None,
            each.get("task"),
            each.get("min_pixels"),
        )
        for each in model.get("prices", [])
    ]
    return Prices(
        PriceTable(rules, multiplier, 3_840, in_words=in_words),
        unit_price(model.get("inputs", {}).get("image", 0), multiplier),
        Settling(
            SettleBy(settle.get("by", "images")),
            multiplier,
            settle.get("per_million", {}),
            None if units_per_usd is None else Decimal(units_per_usd),
        ),
    )


def path_of(vector: Mapping[str, Any]) -> str:
    """Where its request goes."""
    return "/v1/images/edits" if vector.get("task") == "edit" else "/v1/images/generations"


def request_of(vector: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Its request, in full."""
    images = [{"image_url": REFERENCE}] * vector.get("reference_images", 1)
    inputs = {"images": images} if vector.get("task") == "edit" else {}
    return {"prompt": "a blue cube", **inputs, **vector["request"], **more}


# --- What providers answer --------------------------------------------------------------------------------------------


def openai_usage(usage: Mapping[str, int]) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/images/object."""
    given = {f"{kind}_tokens": usage.get(f"input_{kind}", 0) for kind in ("text", "image")}
    made = {f"{kind}_tokens": usage.get(f"output_{kind}", 0) for kind in ("text", "image")}
    return {
        "total_tokens": sum(usage.values()),
        "input_tokens": sum(given.values()),
        "output_tokens": sum(made.values()),
        "input_tokens_details": given,
        "output_tokens_details": made,
    }


def openrouter_usage(usage: Mapping[str, int]) -> dict[str, Any]:
    """https://openrouter.ai/docs/use-cases/usage-accounting."""
    prompt = usage.get("input_text", 0) + usage.get("input_image", 0)
    image = usage.get("output_image", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.get("output_text", 0) + image,
        "total_tokens": sum(usage.values()),
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": usage.get("input_image", 0)},
        "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": image},
        "cost_details": {"upstream_inference_cost": None},
    }


def gemini_usage(usage: Mapping[str, int]) -> dict[str, Any]:
    """https://ai.google.dev/api/generate-content#UsageMetadata."""

    def details(*kinds: str) -> list[dict[str, Any]]:
        names = [(kind.partition("_")[2].upper(), usage.get(kind, 0)) for kind in kinds]
        return [{"modality": modality, "tokenCount": count} for modality, count in names if count]

    return {
        "promptTokenCount": usage.get("input_text", 0) + usage.get("input_image", 0),
        "candidatesTokenCount": usage.get("output_image", 0),
        "thoughtsTokenCount": usage.get("output_text", 0),
        "totalTokenCount": sum(usage.values()),
        "promptTokensDetails": details("input_text", "input_image"),
        "candidatesTokensDetails": details("output_image"),
    }


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("quality", "size") if name in answer}


def _usage(answer: Mapping[str, Any], write: Any) -> dict[str, Any]:
    usage = write(answer["usage"]) if "usage" in answer else {}
    usage |= {"cost": float(answer["cost_usd"])} if "cost_usd" in answer else {}
    return {"usage": usage} if usage else {}


def images_answer(answer: Mapping[str, Any], write: Any = openai_usage) -> Reply:
    """All of it as one JSON document."""
    data = [{"url": f"http://127.0.0.1/{number}.png"} for number in range(answer["images"])]
    return Reply(body=json.dumps({"created": 1, "data": data, **_told(answer), **_usage(answer, write)}).encode())


def openrouter_answer(answer: Mapping[str, Any]) -> Reply:
    """The same with usage as OpenRouter has it."""
    return images_answer(answer, openrouter_usage)


def events_answer(answer: Mapping[str, Any], task: str = "image_generation") -> Reply:
    """An event for each image; the last one has the usage."""
    name, events = f"{task}.completed", []
    for number in range(answer["images"]):
        is_last = number == answer["images"] - 1
        usage = _usage(answer, openai_usage) if is_last else {}
        event = {"type": name, "b64_json": f"AAA{number}", "created_at": 1, **_told(answer), **usage}
        events.append(f"event: {name}\ndata: {json.dumps(event)}\n\n")
    return Reply(headers={"Content-Type": "text/event-stream"}, body="".join(events or [": nothing\n\n"]).encode())


def gemini_answer(answer: Mapping[str, Any], number: int, requests: int) -> Reply:
    """What one of several requests gets: an image while there are any, and the last one the rest."""
    count = answer["images"]
    images = range(number, count if number == requests - 1 else min(number + 1, count))
    parts = [{"inlineData": {"mimeType": "image/png", "data": f"AAA{image}"}} for image in images]
    usage = {"usageMetadata": gemini_usage(answer["usage"])} if "usage" in answer and not number else {}
    candidate = {"content": {"parts": parts}, "finishReason": "STOP"}
    return Reply(body=json.dumps({"candidates": [candidate], **usage}).encode())
