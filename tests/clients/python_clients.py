"""What other packages for Python make of a gateway's answers, told as one JSON document on standard output.

Runs in an environment of its own, with the packages of ``requirements.lock`` beside it and none of this project.
LIGHTMETER_URL is the gateway's, LIGHTMETER_KEY may generate.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from typing import Any

import litellm
from langchain_openai import ChatOpenAI

MODEL = "gpt-image-2.6-flare"
DRAWING_CHAT = "acme/image-1"
WITH_IMAGES = {"modalities": ["image", "text"]}
SAID = "a translucent blue cube"


def starts(images: list[Any]) -> list[str]:
    """What kind of file each image is, by its first bytes."""
    return [base64.b64decode(image.b64_json)[1:4].decode() for image in images]


def by_litellm(url: str, key: str) -> dict[str, Any]:
    """LiteLLM as a client of an OpenAI-compatible endpoint."""
    to: dict[str, Any] = {"api_base": url, "api_key": key, "num_retries": 0}
    told: dict[str, Any] = {}
    drawn = litellm.image_generation(SAID, f"openai/{MODEL}", n=2, size="1024x1024", quality="low", **to)
    told["images"] = starts(drawn.data)
    picture = io.BytesIO(base64.b64decode(drawn.data[0].b64_json))
    picture.name = "cube.png"
    told["edited"] = starts(litellm.image_edit(image=[picture], prompt="red", model=f"openai/{MODEL}", **to).data)
    messages = [{"role": "user", "content": SAID}]
    answer = litellm.completion(f"openai/{DRAWING_CHAT}", messages, **WITH_IMAGES, **to)
    told["said"] = [image["image_url"]["url"][:22] for image in answer.choices[0].message.images]
    chunks = list(litellm.completion(f"openai/{DRAWING_CHAT}", messages, stream=True, **WITH_IMAGES, **to))
    told["streamed"] = [image["image_url"]["url"][:22] for chunk in chunks for image in images_of(chunk)]
    try:
        litellm.image_generation("a", "openai/gpt-image-unknown", **to)
    except litellm.NotFoundError as error:
        told["unknown"] = str(error)
    return told


def images_of(chunk: Any) -> list[dict[str, Any]]:
    """The images in one chunk of a chat."""
    return [image for choice in chunk.choices for image in getattr(choice.delta, "images", None) or ()]


def by_langchain(url: str, key: str) -> dict[str, Any]:
    """LangChain's chat model, which reads texts and leaves images where they are."""
    chat = ChatOpenAI(model=DRAWING_CHAT, base_url=url, api_key=key, max_retries=0, extra_body=WITH_IMAGES)
    answer = chat.invoke(SAID)
    return {
        "said": answer.text,
        "total_tokens": answer.usage_metadata["total_tokens"],
        "streamed": "".join(chunk.text for chunk in chat.stream(SAID)),
    }


if __name__ == "__main__":
    address, secret = f"{os.environ['LIGHTMETER_URL']}/v1", os.environ["LIGHTMETER_KEY"]
    told = {"litellm": by_litellm(address, secret), "langchain": by_langchain(address, secret)}
    sys.stdout.write(json.dumps(told))
