"""``lightmeter restart``: another version in place of the one that runs, without a request noticing."""

from __future__ import annotations

import time

import click

from proxy.cli.support.admin_client import AdminRefusal, call_admin
from proxy.cli.support.output import json_option, show_json

WHERE = "/admin/v1/workers"
LOOK_S = 0.2


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 3_600),
    default=120,
    show_default=True,
    help="Seconds to wait for the new workers to serve.",
)
@json_option
def restart(timeout_s: float, *, as_json: bool) -> None:
    """Replace all processes of a gateway with workers by those of the version that is installed now.

    New workers start, with the configuration as it is in the file. When all of them serve, the old ones finish their
    requests and end. If the new ones do not come up, the old ones stay.
    """
    try:
        generation = call_admin("POST", f"{WHERE}/restart")["generation"]
    except AdminRefusal as refusal:
        if refusal.status == 404:  # noqa: PLR2004 - not found
            raise click.ClickException(
                "this gateway is one process, which cannot be replaced: set server.workers to 2 or more"
            ) from None
        raise
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(LOOK_S)
        try:
            told = call_admin("GET", WHERE)
        except AdminRefusal:
            raise
        except click.ClickException:
            # While the programs change places, nobody answers.
            continue
        if told["generation"] >= generation:
            if as_json:
                return show_json(told)
            count = sum(worker["generation"] == generation for worker in told["data"])
            return click.echo(f"{count} new workers serve; {len(told['data']) - count} old ones finish their requests")
        if told["why_not_restarted"] is not None and not told["restarting"]:
            raise click.ClickException(f"the old workers stay: {told['why_not_restarted']}")
    raise click.ClickException(f"the new workers do not serve after {timeout_s:g} seconds: see the gateway's log")
