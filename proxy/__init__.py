"""Lightmeter: an async reverse proxy for image generation that meters what it forwards.

One small request, from top to bottom, in eight files::

    observe → errors → metering → handler
    1  web/middleware/metering.py      credential, parse, price, admit, handler: the order of all that follows
    2  domain/requests/image.py          image_request = parse_image_request(body)      a bad request stops here
    3  domain/billing/pricing.py         quote = price(image_request, model); terms = agree(image_request, …)
    4  metering/meter.py                 async with meter.admit(…) as delivery          1 round trip, admit.lua
    5  web/public/images.py                  the handler
    6  web/relay.py                              async with pool.ask(…) as exchange
                                                     while piece := exchange.read(): send(answer.feed(piece))
                                                 delivery.end(…)
    7  upstream/exchange.py                      the provider's request, and its answer as it comes
    8  domain/billing/settlement.py      settle(reservation, delivery)                  1 round trip, settle.lua
    and only then is the end of the answer sent

Beside the path, and not needed to follow it::

    domain/headers.py                  the key that a client sends: a typo stops before anybody is asked
    domain/requests/edit.py, chat.py   forms, references to images and chats; web/intake/ reads what is large
    domain/requests/unknown.py         a field nobody knows stops here
    upstream/dialects/                 how each kind of provider is asked; upstream/failover.py who is asked next
    upstream/fallback.py               which other model is asked; domain/billing/offers.py what it costs there
    upstream/auth/                     what lets the gateway in: keys of variables and files, tokens of clouds
    upstream/bodies/                   how a request is written
    upstream/connection/               how it is sent, and its answer read: HTTP/1.1, and connections used again
    upstream/polled/                   providers that take a task, and are asked how it is doing until it ends
    web/pending_tasks.py               tasks that outlive their gateway: journal/tasks.py has them on the disk
    domain/answers/                    how each kind of answer is read, counted and written
    supervisor/                        several workers on one port; machine/ what they share
    metering/outbox.py, journal/       where a settlement goes while the store is away

Words:

team           owns keys; all of its state lives in one Redis hash slot
key            one API key of a team, with limits of its own
quota unit     the integer that is metered
quote          what a request would cost: images, unit price, units
terms          what a request is charged by beside its quote; made once, never changed
price table    the rules of a model with prices of its own (domain/prices); worked out at start
basis          by what such a model's request was charged: images at each price, tokens, or a cost
admit          in one round trip: authenticate the key, check every limit, reserve the units; all or nothing
reservation    units held for one request; a lease that its gateway renews for as long as it lives
delivery       what came of a request: its outcome and its images; only the relay writes it
settle         turn a reservation into a charge and a release, once, whatever happened
ledger         the append-only record: every forwarded request ends in exactly one entry
journal        settlements on a disk of this machine that the store has not taken yet
overage        units charged beyond what was reserved, because the provider generated more than was asked for
dialect        how one kind of provider speaks
deployment     a model at one provider; several of them share its requests, and stand in for each other
fallback       other models that are asked where no deployment of a model can take a request
offer          a model that may answer a request, with what it is asked for and what that costs there
task           what a polled provider works on; once it is accepted, nobody else is asked

Layers, each importing only what stands below it: ``cli > app > settings > web > metering | upstream >
telemetry > domain``. The domain is pure. With traces on, ``telemetry/traces.py`` stands around all of it.
"""
