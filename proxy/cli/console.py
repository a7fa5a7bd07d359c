"""``lightmeter console``: a link that signs in to the console of a running gateway."""

from __future__ import annotations

import click

from proxy.cli.support.admin_client import AdminClient, call_admin
from proxy.cli.support.output import json_option, show_json


@click.command()
@json_option
def console(as_json: bool) -> None:
    """Print a link to the gateway's console that signs in, once, within two minutes.

    It signs in as the token in LIGHTMETER_ADMIN_TOKEN.
    """
    path = call_admin("POST", "/console/codes")["path"]
    url = AdminClient.from_environment().url.rstrip("/") + path
    if as_json:
        return show_json({"url": url})
    return click.echo(url)
