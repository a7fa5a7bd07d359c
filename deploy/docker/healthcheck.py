"""Exit with status 0 if the gateway of this container is ready, and with 1 if not; see ``/readyz``.

It asks where ``LIGHTMETER_ADMIN_LISTEN`` says, by default at port 8081 of this container.
"""

import http.client
import os
import sys

TIMEOUT_S = 4


def main() -> str | None:
    """What is wrong, None where nothing is."""
    port = os.environ.get("LIGHTMETER_ADMIN_LISTEN", "").rpartition(":")[2] or "8081"
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"not ready: {error}"
    return None if answer.status == http.client.OK else f"not ready: {body}"


if __name__ == "__main__":
    sys.exit(main())
