"""The command line of the sample provider: every field of `Behaviour` is a flag."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Final

import click

from proxy.sample_provider.app import DEFAULT_HOST, DEFAULT_PORT, serve
from proxy.sample_provider.behaviour import FLAGS, Behaviour, Flag
from proxy.sample_provider.deviations import DEVIATIONS

_new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with contextlib.suppress(ImportError):
    import uvloop

    _new_event_loop = uvloop.new_event_loop


def _reader(flag: Flag) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that reads a flag's text just as an override for one request is read."""

    def read(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return flag.kind.read(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: it {error}.") from error

    return read


def _behaviour_options() -> Iterator[click.Option]:
    for item in fields(Behaviour):
        flag = FLAGS[item.name]
        name = "--" + item.name.replace("_", "-")
        if flag.is_switch:
            yield click.Option([name], is_flag=True, help=flag.explanation)
        else:
            yield click.Option(
                [name],
                type=click.UNPROCESSED,
                callback=_reader(flag),
                default=item.default,
                show_default=bool(item.default),
                metavar=flag.kind.metavar,
                help=flag.explanation,
            )


_SERVER_OPTIONS: Final = (
    click.Option(["--host"], default=DEFAULT_HOST, show_default=True, help="The address to listen on."),
    click.Option(
        ["--port"],
        type=click.IntRange(0, 65535),
        default=DEFAULT_PORT,
        show_default=True,
        help="The port to listen on; 0 is any free one.",
    ),
    click.Option(
        ["--exit-with-stdin"], is_flag=True, help="Exit when stdin ends, so as not to outlive whoever started it."
    ),
)


def _run(host: str, port: int, exit_with_stdin: bool, **behaviour: Any) -> None:
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(serve(Behaviour(**behaviour), host, port, exit_with_stdin=exit_with_stdin))


sample_provider = click.Command(
    "sample-provider",
    callback=_run,
    params=[*_SERVER_OPTIONS, *_behaviour_options()],
    help="""A stand-in for an image provider, for trying things out: it speaks OpenAI's images API, chat
    completions with images as OpenRouter has them, and Gemini's API, and draws its pictures itself.

    One request may behave in another way than the rest: write the flags at the start of its prompt,
    "[sample images=2 delay_ms=50] a blue cube", or in the header x-sample-behaviour: images=2,delay_ms=50.""",
    epilog="\b\nDeviations, as real providers have them; one request may name its own, [sample deviate=gzip,cut]:\n"
    + "\n".join(f"  {name:<20} {explanation}" for name, explanation in DEVIATIONS.items()),
)
