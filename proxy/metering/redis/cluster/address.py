"""A store that is a Cluster: ``redis+cluster://[user:password@]host:port,host:port``; with ``rediss+…``, over TLS.

The hosts are some of its nodes, by which the others are found. User, password and TLS are the same at all of them.
See https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
"""

from __future__ import annotations

from proxy.metering.redis.hosts import Hosts, parse_hosts

SCHEMES = ("redis+cluster://", "rediss+cluster://")
DEFAULT_PORT = 6_379


def parse_cluster_url(url: str) -> Hosts:
    """What the address says. Raises ValueError, which says what is wrong without repeating a secret."""
    hosts = parse_hosts(url, DEFAULT_PORT, (), what="node")
    if not hosts.places or hosts.path not in ("", "/"):
        raise ValueError(f"should be {SCHEMES[0]}host:port,host:port, without a database: a Cluster has only one")
    return hosts
