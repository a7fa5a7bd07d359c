"""What the gateway asks of a dialect."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat.writing import ChatHead
from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, ChatCheck, Model
from proxy.domain.errors import ProxyError
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.kinds import Kind
from proxy.upstream.bodies.outgoing import OutgoingBody


class ChatDialect(Protocol):
    """What the gateway needs to know of a kind of provider that chats."""

    @property
    def check(self) -> ChatCheck | None:
        """What refuses the fields that the dialect has no words for (InvalidRequest), where there are such fields.

        It is asked before anything is reserved.
        """
        ...

    @property
    def own_fields(self) -> Mapping[str, Kind]:
        """What a request may say beside OpenAI's fields."""
        ...

    def path(self, request: ChatRequest, model: Model) -> str:
        """Where chat is, below the provider's base URL."""
        ...

    def write(self, request: ChatRequest, model: Model) -> bytes:
        """The request's body."""
        ...

    def read(self, request: ChatRequest, head: ChatHead, *, comes_as_events: bool) -> Answer:
        """What reads the body of a 2xx: one document, or events; ``head`` stands over one that is written anew."""
        ...


class Dialect(Protocol):
    """What the gateway needs to know of a kind of provider."""

    sizes_in_words: bool = False
    """Whether it is asked for 1K, 2K or 4K where a client asks for pixels."""

    accepts: str = "application/json, text/event-stream"
    """What it is asked to answer with."""

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """The request headers that carry the provider's key."""
        ...

    own_paths: Mapping[str, str] = MappingProxyType({})
    """Where its endpoints are below a base URL, by the names that ``paths`` of a provider has for them.

    Empty where a path is made of more than that.
    """

    def images_at_once(self, endpoint: str) -> int | None:
        """The most images that one request can make at a model's ``endpoint``, where the dialect sets a limit."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can be asked for beside images from a prompt."""
        ...

    def images_path(self, request: ImageRequest, model: Model) -> str:
        """Where images are asked for, below the provider's base URL."""
        ...

    def write_generation(self, request: ImageRequest, model: Model) -> bytes | OutgoingBody:
        """The request's body, as JSON or as a form, with the fields that the model's ``parameters`` list."""
        ...

    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The same for an edit or a variation; ``boundary`` is 32 random hexadecimal digits, which no file holds."""
        ...

    @property
    def reading(self) -> Reading:
        """What it means by an answer to a request for images, wherever the images stand in it."""
        ...

    @property
    def chat(self) -> ChatDialect | None:
        """How it chats, where it does."""
        ...

    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """The error for an answer that is not a 2xx. ``body`` may be cut short."""
        ...
