"""Where providers put images, in any of their forms: the shape by which every answer to a request for images is read.

The words are those of OpenAI's images and chat, of Gemini, Imagen, OpenRouter, Stability, Together, Replicate,
DashScope and of the gateways that imitate them. Payloads are named ``base64`` where the member's name says so,
``image`` where it may be an address, and ``text``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.domain.parsing.json_shapes import Shape

BASE64: Final = "base64"
IMAGE: Final = "image"
TEXT: Final = "text"
SIGNATURE: Final = "signature"
"""Of a thought: the provider wants it back with the part that it came with."""

NAMED_BASE64: Final = (
    b"b64_json", b"b64", b"base64", b"image_base64", b"base64_image", b"image_b64", b"b64_image", b"bytesBase64Encoded",
    b"imageBytes", b"image_bytes", b"partial_image_b64", b"imageBase64", b"base64Image",
)  # fmt: skip
NAMED_URL: Final = (
    b"url", b"uri", b"image_url", b"imageUrl", b"image_uri", b"fileUri", b"file_uri", b"signed_url", b"img_url",
    b"imgUrl", b"output_url",
)  # fmt: skip
URL_LISTS: Final = (b"urls", b"image_urls", b"imageUrls", b"img_urls", b"output_urls")
BASE64_LISTS: Final = (b"image_base64s", b"binary_data_base64", b"base64_images", b"b64_images")
IMAGE_OBJECTS: Final = (b"image", b"inlineData", b"inline_data", b"fileData", b"file_data", b"source", b"data")

_MEDIA_TYPE = Shape(note="media_type")
_SIGNATURES = dict.fromkeys((b"thoughtSignature", b"thought_signature"), Shape(payload=SIGNATURE))
SIGNED: Mapping[bytes, Shape] = {
    **_SIGNATURES,
    b"extra_content": Shape(members={**_SIGNATURES, b"google": Shape(members=_SIGNATURES)}),
}
"""Where a message or one of its parts has its signature: by itself, or as Google's OpenAI-compatible API has it."""

NAMED_KIND: Final = (b"media_type", b"mime_type", b"mimeType", b"content_type", b"contentType")
_KINDS = dict.fromkeys(NAMED_KIND, _MEDIA_TYPE)
_ADDRESSES: Mapping[bytes, Shape] = {
    **dict.fromkeys(NAMED_BASE64, Shape(payload=BASE64)),
    **dict.fromkeys(NAMED_URL, Shape(payload=IMAGE)),
    **_KINDS,
}
# An address is a string, or an object that has it.
_HOLDER = Shape(
    payload=IMAGE,
    items=Shape(element=True, payload=IMAGE, members=_ADDRESSES),
    members={**_ADDRESSES, b"data": Shape(payload=BASE64)},
)
INLINE = Shape(element=True, members=_HOLDER.members)
"""A message's own image."""

IMAGE_MEMBERS: Mapping[bytes, Shape] = {
    **_ADDRESSES,
    **dict.fromkeys(NAMED_URL, _HOLDER),
    **dict.fromkeys(IMAGE_OBJECTS, _HOLDER),
    b"revised_prompt": Shape(note="revised_prompt"),
    b"revisedPrompt": Shape(note="revised_prompt"),
    b"thought": Shape(note="skip"),
    b"text": Shape(payload=TEXT),
    b"raiFilteredReason": Shape(note="why"),
    b"file": Shape(members={b"file_data": Shape(payload=IMAGE)}),
    b"error": Shape(note="failure", optional=True),
    **SIGNED,
}
"""Of one image, or of one part of a message."""

_ITEM = Shape(
    element=True, payload=IMAGE, items=Shape(element=True, payload=IMAGE, members=IMAGE_MEMBERS), members=IMAGE_MEMBERS
)
_ALONE = Shape(items=Shape(payload=IMAGE))
_LISTED_ADDRESSES: Mapping[bytes, Shape] = {
    **dict.fromkeys(URL_LISTS, Shape(items=Shape(payload=IMAGE))),
    **dict.fromkeys(BASE64_LISTS, Shape(items=Shape(payload=BASE64))),
    # Some have a list under the name of one.
    b"image_base64": Shape(payload=BASE64, items=Shape(payload=BASE64)),
}
"""Lists of strings; an object of that name has other addresses."""
_MESSAGE = Shape(
    members={
        b"content": Shape(
            element=True, payload=TEXT, items=_ITEM, members={**IMAGE_MEMBERS, b"parts": Shape(items=_ITEM)}
        ),
        **dict.fromkeys(
            (b"images", b"image", b"image_url"), Shape(payload=IMAGE, element=True, items=_ITEM, members=IMAGE_MEMBERS)
        ),
        **_LISTED_ADDRESSES,
        b"parts": Shape(items=_ITEM),
        b"multi_mod_content": Shape(items=_ITEM),
        **dict.fromkeys((b"inlineData", b"inline_data"), INLINE),
        b"refusal": Shape(note="why"),
    }
)
_CHOICES = Shape(
    items=Shape(
        members={
            b"message": _MESSAGE,
            b"delta": _MESSAGE,
            b"content": Shape(members={b"parts": Shape(items=_ITEM)}),
            b"finish_reason": Shape(note="finish"),
            b"finishReason": Shape(note="finish"),
            b"finishMessage": Shape(note="why"),
            b"error": Shape(note="error"),
            b"images": Shape(payload=IMAGE, items=_ITEM),
            b"text": Shape(payload=TEXT),
        }
    )
)
# What a list of images is called, and what may stand around it. Items of a list of results may hold lists themselves.
_LISTS = (b"images", b"artifacts", b"predictions", b"generated_images", b"generatedImages", b"outputs", b"results")
_LIST = Shape(payload=IMAGE, mark="listed", element=True, items=_ITEM, members=IMAGE_MEMBERS)
_CONTENT_ITEM = Shape(
    element=True,
    payload=IMAGE,
    # A call of an image tool has its image as its result.
    members={**IMAGE_MEMBERS, b"content": Shape(items=_ITEM), b"result": Shape(payload=BASE64)},
)
_NEST = Shape(
    payload=IMAGE,
    mark="listed",
    items=_CONTENT_ITEM,
    members={
        **_ADDRESSES,
        **_LISTED_ADDRESSES,
        **dict.fromkeys(_LISTS, _LIST),
        b"image": _HOLDER,
        b"data": _LIST,
        b"choices": _CHOICES,
        **{name: Shape(note=name.decode()) for name in (b"message", b"code")},
        # What BFL calls what was made.
        b"sample": Shape(payload=IMAGE),
        # Some put each event into an object of its own.
        b"type": Shape(note="kind"),
        b"partial_image_index": Shape(note="partial_image_index"),
        b"created": Shape(note="created"),
        b"usage": Shape(note="usage", optional=True),
        b"error": Shape(note="error"),
    },
)
_ROOT: Mapping[bytes, Shape] = {
    **_ADDRESSES,
    **_LISTED_ADDRESSES,
    **dict.fromkeys((b"image_url", b"image"), _HOLDER),
    **dict.fromkeys(_LISTS, _LIST),
    **dict.fromkeys((b"data", b"output", b"result"), _NEST),
    **dict.fromkeys((b"choices", b"candidates"), _CHOICES),
    b"promptFeedback": Shape(members={b"blockReason": Shape(note="block"), b"blockReasonMessage": Shape(note="why")}),
    **{
        name: Shape(note=name.decode())
        for name in (
            b"revised_prompt", b"created", b"created_at", b"background", b"output_format", b"quality", b"size",
            b"partial_image_index", b"error", b"message", b"detail", b"code", b"status",
        )
    },
    **dict.fromkeys((b"usage", b"usageMetadata"), Shape(note="usage", optional=True)),
    b"type": Shape(note="kind"),
    b"text": Shape(payload=TEXT),
    # What some report of an answer whose status is 200 all the same.
    b"base_resp": Shape(note="failure", optional=True),
    b"errors": Shape(note="failure", optional=True),
    # Of each image: null, or why it may not be seen.
    b"finish_reasons": Shape(items=Shape(note="withheld")),
}  # fmt: skip
# Gateways pass on what they have got in one of these; OpenAI's responses have events of both.
_MEMBERS: Mapping[bytes, Shape] = {
    **_ROOT,
    **dict.fromkeys((b"response", b"body", b"payload"), Shape(members=_ROOT)),
    b"item": _CONTENT_ITEM,
}

# Some send an array of what others send as events.
_ANY = Shape(element=True, payload=IMAGE, members={**IMAGE_MEMBERS, **_MEMBERS})
DOCUMENT = Shape(items=_ANY, members=_MEMBERS)
"""An answer that is one JSON document."""

EVENT = Shape(element=True, items=_ANY, members=_MEMBERS)
"""One event of a stream: it may be an image itself, or hold some as a document does."""
