"""What the gateway asks of a dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.chat_writing import ChatHead
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

    def read(self, content_type: str, request: ChatRequest, head: ChatHead) -> Answer:
        """What reads the body of a 2xx of this kind; ``head`` stands over an answer that is written anew.

        Raises UpstreamError where it is not of a kind that can be read.
        """
        ...


class Dialect(Protocol):
    """What the gateway needs to know of a kind of provider."""

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """The request headers that carry the provider's key."""
        ...

    @property
    def max_n(self) -> int | None:
        """The most images that one request can make, where the dialect itself sets a limit."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can be asked for beside images from a prompt."""
        ...

    def images_path(self, request: ImageRequest, model: Model) -> str:
        """Where images are asked for, below the provider's base URL."""
        ...

    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        """The request's body as JSON, with the fields that the model's ``parameters`` list."""
        ...

    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The same for an edit or a variation; ``boundary`` is 32 random hexadecimal digits, which no file holds."""
        ...

    def read_images(self, content_type: str, request: ImageRequest, *, created_s: int) -> Answer:
        """What reads the body of a 2xx of this kind, for a client that has asked for a stream or has not.

        ``created_s`` is now, in seconds since the epoch.
        """
        ...

    @property
    def chat(self) -> ChatDialect | None:
        """How it chats, where it does."""
        ...

    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """The error for an answer that is not a 2xx. ``body`` may be cut short."""
        ...
