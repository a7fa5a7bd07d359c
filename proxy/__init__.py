"""Lightmeter: an async reverse proxy for image generation that meters what it forwards.

One request, from top to bottom::

    observe → errors → metering → handler             web/middleware, web/middleware/metering.py

    metering                                          web/middleware/metering.py
      credential    = read_credential(headers)        domain/headers.py             a typo stops here
      image_request = parse_image_request(body)       domain/requests/image.py      a bad request stops here
        or request_of_form(texts, files)              domain/requests/edit.py, web/intake/
      image_request = accept_unknown(…, model)        domain/requests/unknown.py    a field nobody knows stops here
      quote         = price(image_request, model)     domain/billing/pricing.py
      terms         = agree(image_request, ...)       domain/billing/pricing.py     what images and text cost
      async with meter.admit(...) as delivery:        metering/meter.py             1 round trip, admit.lua
          handler                                     web/public/images.py
            async with pool.ask(...) as exchange:     upstream/exchange.py, dialects/
                while piece := exchange.read():       web/relay.py
                    send(answer.feed(piece))          domain/answers/
                delivery.end(...)                     web/relay.py
          settle(reservation, delivery)               domain/billing/settlement.py
      # leaving the block settles, once               metering/meter.py             1 round trip, settle.lua
      # or, where the store is away, in the journal   metering/outbox.py, metering/journal/
    # and only then is the end of the answer sent

Words:

team           owns keys; all of its state lives in one Redis hash slot
key            one API key of a team, with limits of its own
quota unit     the integer that is metered
quote          what a request would cost: images, unit price, units
terms          what a request is charged by beside its quote; made once, never changed
admit          in one round trip: authenticate the key, check every limit, reserve the units; all or nothing
reservation    units held for one request; a lease that its gateway renews for as long as it lives
delivery       what came of a request: its outcome and its images; only the relay writes it
settle         turn a reservation into a charge and a release, once, whatever happened
ledger         the append-only record: every forwarded request ends in exactly one entry
journal        settlements on a disk of this machine that the store has not taken yet
overage        units charged beyond what was reserved, because the provider generated more than was asked for
dialect        how one kind of provider speaks

Layers, each importing only what stands below it: ``cli > app > settings > web > metering | upstream >
telemetry > domain``. The domain is pure. With traces on, ``telemetry/traces.py`` stands around all of it.
"""
