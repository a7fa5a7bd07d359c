"""A stand-in for an image provider: it speaks every dialect on a real socket, in a process of its own.

The demo, the tests and the benchmarks use it instead of a provider that costs money. It draws real pictures, and it
misbehaves on request: slow, cut short, endless, malformed, refusing, or with more or fewer images than were asked for.

- ``behaviour``  every way in which it can behave, as flags and as overrides for one request; pure
- ``deviations`` the ways in which real providers deviate from their own pages; pure
- ``wire``       OpenAI's request, answer and error forms; pure
- ``openai_events``  OpenAI's image streams; pure
- ``chat``       chat completions with images, as OpenRouter speaks them; pure
- ``gemini``     Google's ``generateContent``; pure
- ``documents``  JSON and events that hold images, without copying them; pure
- ``dialects``   what distinguishes the dialects, and how streams misbehave; pure
- ``uploads``    multipart bodies, measured and hashed as they come
- ``drawing``    a picture of a prompt, with Pillow; pure
- ``memory``     what it remembers (pictures, their ids, the requests received), all within limits
- ``sending``    a body on its way out, as slowly or as badly as the behaviour asks
- ``app``        the routes, and the server
- ``command``    the command line

Start it with ``lightmeter sample-provider`` or ``python -m proxy.sample_provider``.
"""
