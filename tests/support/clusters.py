"""A Cluster of three primaries and their replicas, each a real process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.cluster import RedisCluster as AsyncCluster

from tests.support.certificates import server_flags
from tests.support.processes import Server, free_port, running, wait_for
from tests.support.stores import server_binary

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000


@dataclass
class Node:
    """One process; ``primary`` is the id of the node that it copies, "" where it has slots of its own."""

    id: str
    port: int
    bus: int
    primary: str = ""
    server: Server | None = None
    tls_port: int = 0
    password: str | None = None

    @property
    def client(self) -> redis.Redis:
        """For commands that this node itself should take."""
        return redis.Redis(port=self.port, password=self.password, decode_responses=True, socket_timeout=10)

    @property
    def is_up(self) -> bool:
        """Whether its process runs."""
        return self.server is not None and self.server.process.poll() is None

    def owns(self, slot: int) -> bool:
        """Whether the node has the slot, by itself."""
        return any(
            first <= slot <= last and primary[1] == self.port
            for first, last, primary, *_replicas in self.ask("CLUSTER", "SLOTS")
        )

    def ask(self, *words: str | int) -> Any:
        """The reply to one command."""
        with self.client as client:
            return client.execute_command(*words)


@dataclass
class Cluster:
    """Its nodes, primaries first; ``url`` is its address."""

    backend: str
    folder: Path
    nodes: list[Node] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """By two of its nodes."""
        first = self.nodes[0]
        login = f":{first.password}@" if first.password else ""
        hosts = ",".join(f"127.0.0.1:{node.tls_port or node.port}" for node in self.nodes[:2])
        if first.tls_port:
            return f"rediss+cluster://{login}{hosts}?ssl_ca_certs={self.folder}/server.crt"
        return f"redis+cluster://{login}{hosts}"

    def flags_of(self, node: Node) -> tuple[str, ...]:
        """Settings of a node that has TLS, and a password."""
        login = ("--requirepass", node.password, "--masterauth", node.password) if node.password else ()
        tls = (*server_flags(self.folder, node.tls_port), "--tls-cluster", "yes") if node.tls_port else ()
        return (*login, *tls)

    @property
    def primaries(self) -> list[Node]:
        """Those that were made as such."""
        return [node for node in self.nodes if not node.primary]

    def replica_of(self, node: Node) -> Node:
        """The one that copies it."""
        return next(each for each in self.nodes if each.primary == node.id)

    def node_at(self, port: int) -> Node:
        """The node that listens there."""
        return next(each for each in self.nodes if each.port == port)

    def owner(self, team: str) -> Node:
        """The primary that has a team now, as the first node that answers says."""
        slot = slot_of(team)
        for asked in self.nodes:
            try:
                ranges = asked.ask("CLUSTER", "SLOTS")
            except redis.RedisError:
                continue
            for first, last, primary, *_replicas in ranges:
                if first <= slot <= last:
                    return self.node_at(primary[1])
        raise LookupError(team)

    def teams(self, node: Node, count: int, prefix: str = "team") -> list[str]:
        """So many team ids whose slots the node has."""
        found: list[str] = []
        number = 0
        while len(found) < count:
            team = f"{prefix}-{number}"
            number += 1
            if self.owner(team) is node:
                found.append(team)
        return found

    def start(self, node: Node) -> None:
        """Start it, again where it was stopped."""
        folder = self.folder / str(node.port)
        folder.mkdir(exist_ok=True)
        settings = {
            "port": node.port,
            "bind": "127.0.0.1",
            "dir": folder,
            "save": "",
            "cluster-enabled": "yes",
            "cluster-port": node.bus,
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",
            "repl-diskless-sync-delay": 0,
        }
        flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        node.server = self.stack.enter_context(
            running([server_binary(self.backend), *flags, *self.flags_of(node)], folder / "server.log")
        )

    def add(self) -> Node:
        """A node more, without slots, that the others know."""
        node = Node("", free_port(), free_port())
        self.nodes.append(node)
        self.start(node)
        wait_for(lambda: _answers(node), "an answer of the new node")
        node.id = node.ask("CLUSTER", "MYID")
        node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus)
        wait_for(lambda: all(_knows(each, self.nodes) for each in self.nodes), "all nodes to know the new one")
        self.wait_until_served()
        return node

    def remove(self, node: Node) -> None:
        """Have all others forget a node without slots, and stop it."""
        self.nodes.remove(node)
        for other in self.nodes:
            other.ask("CLUSTER", "FORGET", node.id)
        if node.server is not None:
            node.server.stop()

    def move(self, slot: int, source: Node, target: Node, *, pause: Any = None) -> None:
        """Move a slot as redis-cli does, key by key; ``pause`` is called when it is half moved."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        moved = 0
        while names := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 3):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *names)
            moved += 1
            if pause is not None and moved == 1:
                pause()
        for node in (target, source, *(each for each in self.nodes if each not in (source, target))):
            if not node.primary:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def wait_until_served(self) -> None:
        """Until every primary takes commands, and has its replica."""
        wait_for(lambda: all(map(_is_ready, self.nodes)), "the Cluster to be ready")


def slot_of(team: str) -> int:
    """The slot of a team's keys."""
    return redis.crc.key_slot(f"lm:{{{team}}}:team".encode())


@contextmanager
def cluster_of(backend: str, folder: Path, *, tls: bool = False, password: str | None = None) -> Iterator[Cluster]:
    """Three primaries, each with a replica, for as long as the block lasts.

    Each node begins with a list of all nodes, as one that was stopped has it. What is left to wait for are the two
    seconds that a primary gives the others after its start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(backend, folder)
    ports = iter(_ports(12))
    primaries = [Node(secrets.token_hex(20), next(ports), next(ports)) for _ in range(3)]
    copies = [Node(secrets.token_hex(20), next(ports), next(ports), each.id) for each in primaries]
    cluster.nodes = [*primaries, *copies]
    for node in cluster.nodes:
        node.password, node.tls_port = password, free_port() if tls else 0
    with cluster.stack:
        for node in cluster.nodes:
            (folder / str(node.port)).mkdir()
            (folder / str(node.port) / "nodes.conf").write_text(_nodes_conf(node, cluster.nodes))
            cluster.start(node)
        cluster.wait_until_served()
        yield cluster


def client_of(url: str) -> Any:
    """The client library's own client of the Cluster at an address of ours, for tests that look at keys themselves."""
    places = [place.partition(":") for place in urlsplit(url).netloc.rpartition("@")[2].split(",")]
    return AsyncCluster(startup_nodes=[ClusterNode(host, int(port)) for host, _, port in places])


def _ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = free_port()
        if port not in found:
            found.append(port)
    return found


def _nodes_conf(of: Node, nodes: Sequence[Node]) -> str:
    primaries = [node for node in nodes if not node.primary]
    lines = []
    for node in nodes:
        role = ("myself," if node is of else "") + ("slave" if node.primary else "master")
        at = primaries.index(next(each for each in primaries if each.id in (node.id, node.primary)))
        width = SLOTS / len(primaries)
        slots = "" if node.primary else f" {round(at * width)}-{round((at + 1) * width) - 1}"
        lines.append(
            f"{node.id} 127.0.0.1:{node.tls_port or node.port}@{node.bus} {role} {node.primary or '-'} "
            f"0 0 {at + 1} connected{slots}\n"
        )
    return "".join(lines) + f"vars currentEpoch {len(primaries)} lastVoteEpoch 0\n"


def _answers(node: Node) -> bool:
    try:
        return bool(node.ask("PING"))
    except redis.RedisError:
        return False


def _knows(node: Node, others: Sequence[Node]) -> bool:
    try:
        told = node.ask("CLUSTER", "NODES")
    except redis.RedisError:
        return False
    return all(other.id in str(told) for other in others) and "handshake" not in str(told)


def _is_ready(node: Node) -> bool:
    try:
        state, role = str(node.ask("CLUSTER", "INFO")), node.ask("ROLE")
    except redis.RedisError:
        return False
    return "cluster_state:ok" in state and (role[0] != "slave" or role[3] == "connected")
