"""Which models may answer a request: the one that is asked for, and those that stand in for it, each at its price."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from proxy.domain.billing.pricing import Quote, Terms, agree, price
from proxy.domain.catalog import Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.records import record
from proxy.domain.requests.chat import ChatRequest, check_chat
from proxy.domain.requests.edit import check_task
from proxy.domain.requests.image import ImageRequest, check_n, check_stream
from proxy.domain.requests.size_words import check_sizes
from proxy.domain.requests.sizes import agree_on_size
from proxy.domain.requests.unknown import accept_unknown

Asked = ImageRequest | ChatRequest


@record
class Offer:
    """A model that may answer a request: what it is asked for, and what that costs there."""

    asked: Asked
    model: Model
    quote: Quote
    terms: Terms


def check_takes(asked: Asked, model: Model) -> None:
    """Refuse what this model cannot be asked for (InvalidRequest)."""
    check_sizes(asked.size, asked.image_size, model)
    if isinstance(asked, ChatRequest):
        check_chat(asked, model)
    else:
        check_n(asked, model.max_n)
        check_stream(asked, model.parameters)
        check_task(asked, model)


def as_taken(asked: Asked, model: Model) -> Asked:
    """``asked`` as this model is asked for it; raises UnknownParameter or InvalidRequest."""
    return _agree_on_quality(agree_on_size(accept_unknown(asked, model), model), model)


def _agree_on_quality(asked: Asked, model: Model) -> Asked:
    """``asked`` with a quality that a price rule names written as the rule does: what is forwarded is what is charged.

    A provider that does not know ``LOW`` may draw what it draws without a quality.
    """
    given = asked.fields.get("quality")
    if model.prices is None or not isinstance(given, str):
        return asked
    written = model.prices.table.quality_written(given)
    return asked if written == given else replace(asked, fields={**asked.fields, "quality": written})


def offers_instead(
    asked: Asked, model: Model, others: Iterable[Model], terms: Terms, *, by_delivered_size: bool
) -> tuple[Offer, ...]:
    """What ``asked``, as it came, costs at each of the ``others``; one that cannot take it is left out.

    Each makes as many images as ``model`` would, and keeps as much of its answer as ``terms`` say.
    """
    offers = []
    for other in others:
        same = _same_n(replace(asked, model=other.id), model, other)
        try:
            check_takes(same, other)
            taken = as_taken(same, other)
            quote = price(taken, other)
        except InvalidRequest:
            continue
        its_terms = agree(
            *(taken, other, quote),
            by_delivered_size=by_delivered_size,
            kept_answer_bytes=terms.kept_answer_bytes,
        )
        offers.append(Offer(taken, other, quote, its_terms))
    return tuple(offers)


def _same_n(asked: Asked, model: Model, other: Model) -> Asked:
    if not isinstance(asked, ImageRequest) or asked.n is not None or model.default_n == other.default_n:
        return asked
    return replace(asked, n=model.default_n, fields={**asked.fields, "n": model.default_n})
