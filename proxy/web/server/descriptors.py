"""How many descriptors this process may open, and how many of them are for connections of clients."""

from __future__ import annotations

import logging
import resource
from typing import NamedTuple

logger = logging.getLogger(__name__)

MOST = 1_048_576
"""Linux lets no process have more, unless it is set otherwise (fs.nr_open)."""

ADMIN_MOST = 256
OWN_LEAST = 64
OWN_MOST = 4_096
SHARE = 8


class ConnectionCaps(NamedTuple):
    """How many connections each listener may have."""

    public: int
    admin: int


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, as far as that goes; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY:
        return MOST
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            logger.warning("the limit of descriptors stays at %d: it cannot be raised to %d (%s)", soft, wanted, error)
        else:
            return wanted
    return soft


def connection_caps(descriptors: int, max_connections: int | None) -> ConnectionCaps:
    """How many connections fit into ``descriptors``.

    The admin listener has its share, and so have the store, the journal and the logs. Half of the rest is for clients,
    for the other half may be needed at the same time by connections to providers and by uploads. With
    ``max_connections`` the operator knows better, as far as there are descriptors.
    """
    admin = min(ADMIN_MOST, max(SHARE, descriptors // SHARE))
    own = min(OWN_MOST, max(OWN_LEAST, descriptors // SHARE))
    left = max(SHARE, descriptors - admin - own)
    if max_connections is None:
        return ConnectionCaps(left // 2, admin)
    if max_connections > left:
        logger.warning(
            "server.max_connections is %d, but of %d descriptors only %d are left: raise ulimit -n (LimitNOFILE)",
            *(max_connections, descriptors, left),
        )
    return ConnectionCaps(min(max_connections, left), admin)
