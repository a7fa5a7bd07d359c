"""Exit with status 0 if the gateway of this container is ready, and with 1 if not; see ``/readyz``.

It asks where ``LIGHTMETER_ADMIN_LISTEN`` says, a port or a Unix socket, by default at port 8081 of this container; over
TLS, with whatever certificate, where ``LIGHTMETER_ADMIN_TLS_CERT_FILE`` is set.
"""

import http.client
import os
import socket
import sys

TIMEOUT_S = 4
UNIX = "unix:"


def connect(listen: str) -> socket.socket:
    """To this container's own listener, which listens at ``listen``."""
    if listen.startswith(UNIX):
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(TIMEOUT_S)
        plain.connect(listen.removeprefix(UNIX))
    else:
        port = listen.rpartition(":")[2] or "8081"
        plain = socket.create_connection(("127.0.0.1", int(port)), timeout=TIMEOUT_S)
    if not os.environ.get("LIGHTMETER_ADMIN_TLS_CERT_FILE"):
        return plain
    import ssl  # noqa: PLC0415 - seldom needed, and slow to load

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)


def main() -> str | None:
    """What is wrong, None where nothing is."""
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = connect(os.environ.get("LIGHTMETER_ADMIN_LISTEN", ""))
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"not ready: {error}"
    return None if answer.status == http.client.OK else f"not ready: {body}"


if __name__ == "__main__":
    sys.exit(main())
