"""Exit with status 0 if the gateway of this container is ready, and with 1 if not; see ``/readyz``.

It asks where ``LIGHTMETER_ADMIN_LISTEN`` says, by default at port 8081 of this container; over TLS, with whatever
certificate, where ``LIGHTMETER_ADMIN_TLS_CERT_FILE`` is set.
"""

import http.client
import os
import sys

TIMEOUT_S = 4


def connect(port: int) -> http.client.HTTPConnection:
    """To this container's own listener."""
    if not os.environ.get("LIGHTMETER_ADMIN_TLS_CERT_FILE"):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    import ssl  # noqa: PLC0415 - seldom needed, and slow to load

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)


def main() -> str | None:
    """What is wrong, None where nothing is."""
    port = os.environ.get("LIGHTMETER_ADMIN_LISTEN", "").rpartition(":")[2] or "8081"
    try:
        connection = connect(int(port))
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"not ready: {error}"
    return None if answer.status == http.client.OK else f"not ready: {body}"


if __name__ == "__main__":
    sys.exit(main())
