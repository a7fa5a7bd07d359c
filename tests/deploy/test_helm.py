"""The chart: what helm says of it, what it makes of several sets of values, and whether Kubernetes would take that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.cli.books.ship import ship
from proxy.settings.settings import load_settings
from tests.deploy.images import CACHE
from tests.support.processes import ROOT
from tests.support.requirements import lacking, program

CHART = ROOT / "deploy" / "helm" / "lightmeter"
SETS = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = "1.37.0"
RELEASE, NAME = "images", "images-lightmeter"
UNKNOWN_TO_KUBERNETES = ("PrometheusRule", "ServiceMonitor")
"""The Prometheus operator's."""

NAMED = ("--set", "existingSecret=lightmeter", "--set", "existingConfigMap=lightmeter")
NEEDED = (*NAMED, "--set", "store.url=redis://valkey:6379/0")

pytestmark = pytest.mark.slow


def tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), str(CACHE / "bin"))))
    return found or lacking(f"needs {name}: .ci/tools")


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def template(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return helm("template", RELEASE, CHART, "--kube-version", KUBERNETES, *arguments)


@cache
def rendered(values: Path) -> tuple[dict[str, Any], ...]:
    done = template("--values", values)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def of_kind(values: Path, kind: str) -> list[dict[str, Any]]:
    return [each for each in rendered(values) if each["kind"] == kind]


def pod_of(values: Path) -> dict[str, Any]:
    (deployment,) = of_kind(values, "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]
    return pod


by_values = pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem.removesuffix("-values"))
EVERYTHING = CHART / "ci" / "everything-values.yaml"
SMALL = CHART / "ci" / "small-values.yaml"
SHIPPING = CHART / "ci" / "shipping-values.yaml"


# --- Helm and Kubernetes take it --------------------------------------------------------------------------------------


@by_values
def test_helm_finds_no_fault(values: Path) -> None:
    linted = helm("lint", "--strict", CHART, "--values", values)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout
    assert "[ERROR]" not in linted.stdout


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kubernetes' schemas of all kinds that the chart makes, each whole in itself; unknown fields are mistakes."""
    wheel = next((CACHE / "schemas").glob("kubernetes_validate-*.whl"), None) or lacking("needs schemas: .ci/tools")
    folder = tmp_path_factory.mktemp("schemas")
    inside = f"kubernetes_validate/kubernetes-json-schema/v{KUBERNETES}-local-strict"
    kinds = {(each["kind"], each["apiVersion"]) for values in SETS for each in rendered(values)}
    with zipfile.ZipFile(wheel) as packed:
        definitions = json.loads(packed.read(f"{inside}/_definitions.json"))["$defs"]

        def inline(node: Any) -> Any:
            if isinstance(node, list):
                return [inline(each) for each in node]
            if not isinstance(node, dict):
                return node
            if "$ref" in node:
                return inline(definitions[node["$ref"].rpartition("/")[2]])
            return {name: inline(each) for name, each in node.items()}

        for kind, version in kinds:
            if kind not in UNKNOWN_TO_KUBERNETES:
                name = f"{kind.lower()}-{version.split('.')[0].replace('/', '-')}"
                name += f"-{version.partition('/')[2]}" if "." in version else ""
                (folder / f"{name}.json").write_text(
                    json.dumps(inline(json.loads(packed.read(f"{inside}/{name}.json"))))
                )
    return folder


def conform(schemas: Path, text: str) -> subprocess.CompletedProcess[str]:
    where = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [tool("kubeconform"), "-strict", "-summary", "-schema-location", where]
    command += ["-skip", ",".join(UNKNOWN_TO_KUBERNETES), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


@by_values
def test_kubernetes_would_take_what_it_makes(values: Path, schemas: Path) -> None:
    text = template("--values", values).stdout
    known = sum(each["kind"] not in UNKNOWN_TO_KUBERNETES for each in rendered(values))
    taken = conform(schemas, text)
    assert f"Valid: {known}, Invalid: 0, Errors: 0" in taken.stdout, taken.stdout
    misspelt = conform(schemas, text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    assert "Invalid: 1" in misspelt.stdout


def test_without_what_it_needs_it_says_so() -> None:
    for arguments, message in (
        ((), "existingSecret: a Secret with LIGHTMETER_ADMIN_TOKEN"),
        (("--set", "existingSecret=x", "--set", "store.url=redis://x"), "config: providers and models are needed"),
        (NAMED, "store.url, or store.urlSecretKey"),
        ((*NEEDED, "--set", "store.url=embedded:./data"), "store.url|url"),
        ((*NEEDED, "--set", "store.uri=redis://x"), "uri"),
        ((*NEEDED, "--set", "server.drainSeconds=soon"), "drainSeconds"),
        ((*NEEDED, "--set", "replicaCount=-1"), "replicaCount"),
        ((*NEEDED, "--set", "image.digest=latest"), "digest"),
        ((*NEEDED, "--set", "server.trustedProxies={proxy.example}"), "trustedProxies"),
    ):
        refused = template(*arguments)
        assert refused.returncode != 0, arguments
        assert re.search(message, refused.stderr), refused.stderr
    assert template(*NEEDED).returncode == 0


def test_the_schema_knows_each_value() -> None:
    def names(node: Any, path: str = "") -> set[str]:
        return {path} if not isinstance(node, dict) or not node else {
            name for key, each in node.items() for name in names(each, f"{path}.{key}")
        }  # fmt: skip

    def known(schema: dict[str, Any], path: str = "") -> set[str]:
        below = schema.get("properties")
        return {path} if below is None else {
            name for key, each in below.items() for name in known(each, f"{path}.{key}")
        }  # fmt: skip

    schema = known(json.loads((CHART / "values.schema.json").read_text())) - {".global"}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    open_ones = (".resources", ".ship.resources", ".networkPolicy.adminFrom")
    assert {name for name in names(values) if not name.startswith(open_ones)} == {
        name for name in schema if not name.startswith(open_ones)
    }


# --- What it makes ----------------------------------------------------------------------------------------------------


@by_values
def test_the_grace_period_holds_pause_drain_and_settlements(values: Path) -> None:
    spec = pod_of(values)["spec"]
    (container,) = spec["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] >= pause_s + int(environment["LIGHTMETER_SERVER_DRAIN_SECONDS"]) + 60


@by_values
def test_the_pod_may_do_little(values: Path) -> None:
    spec = pod_of(values)["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
    assert written == ["/data", "/tmp"]  # noqa: S108 - the pod's own
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert [spec["securityContext"][name] for name in ("runAsUser", "fsGroup")] == [int(user[1]), int(user[2])]


@by_values
def test_names_and_labels_meet(values: Path) -> None:
    pod = pod_of(values)
    labels, (container,) = pod["metadata"]["labels"], pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8080, "admin": 8081}

    def selects(selector: dict[str, str]) -> bool:
        return bool(selector.items() <= labels.items())

    services = of_kind(values, "Service")
    assert [service["metadata"]["name"] for service in services] == [NAME, f"{NAME}-admin"]
    for service in services:
        assert selects(service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    # What is open to the outside by its type is never the admin listener.
    assert services[1]["spec"]["type"] == "ClusterIP"
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for each in of_kind(values, kind):
            selector = each["spec"].get("selector") or each["spec"]["podSelector"]
            assert selects(selector["matchLabels"])
    for monitor in of_kind(values, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= services[1]["metadata"]["labels"].items()
        assert not monitor["spec"]["selector"]["matchLabels"].items() <= services[0]["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] == services[1]["spec"]["ports"][0]["name"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"


def test_the_admin_listener_is_reached_by_those_who_are_named_only() -> None:
    (policy,) = of_kind(EVERYTHING, "NetworkPolicy")
    public, admin = policy["spec"]["ingress"]
    assert [port["port"] for port in public["ports"]] == ["http"]
    assert [port["port"] for port in admin["ports"]] == ["admin"]
    assert len(admin["from"]) == 2
    # With nobody named, no rule lets anybody in.
    alone = template(*NEEDED, "--set", "networkPolicy.adminFrom=null")
    (policy,) = [each for each in yaml.safe_load_all(alone.stdout) if each and each["kind"] == "NetworkPolicy"]
    assert [rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]] == ["http"]


def test_it_scales_by_cpu_and_by_requests_in_flight() -> None:
    (scaler,) = of_kind(EVERYTHING, "HorizontalPodAutoscaler")
    cpu, in_flight = scaler["spec"]["metrics"]
    assert cpu["resource"]["name"] == "cpu"
    assert in_flight["pods"]["metric"]["name"] == "lightmeter_in_flight_requests"
    (deployment,) = of_kind(EVERYTHING, "Deployment")
    # The autoscaler's number, which a `replicas` beside it would undo at each upgrade.
    assert "replicas" not in deployment["spec"]
    assert deployment["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"]
    assert not of_kind(SMALL, "HorizontalPodAutoscaler")


def test_its_rules_are_those_of_deploy() -> None:
    (made,) = of_kind(EVERYTHING, "PrometheusRule")
    groups = []
    for name in ("rules.yml", "alerts.yml"):
        original = ROOT / "deploy" / "prometheus" / name
        # A link: helm puts the file itself into a package.
        assert (CHART / "files" / name).resolve() == original
        groups += yaml.safe_load(original.read_text())["groups"]
    assert made["spec"]["groups"] == groups


def test_its_rules_are_taken_by_prometheus(tmp_path: Path) -> None:
    (made,) = of_kind(EVERYTHING, "PrometheusRule")
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(made["spec"]))
    command = [program("promtool", "prometheus"), "check", "rules", "--lint=all", "--lint-fatal", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_gateway_takes_its_configuration_and_its_variables(tmp_path: Path) -> None:
    (configuration,) = of_kind(SMALL, "ConfigMap")
    path = tmp_path / "lightmeter.toml"
    path.write_text(configuration["data"]["lightmeter.toml"])
    given = ("--set", "server.trustedProxies={10.0.0.0/8,fd00::/8}", "--set", "metrics.labelTeams=7")
    done = template("--values", SMALL, *given)
    (deployment,) = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    secrets = {"LIGHTMETER_ADMIN_TOKEN": "a-token-of-the-secret", "OPENAI_API_KEY": "sk-made-up"}
    environment = {each["name"]: each["value"] for each in container["env"] if "value" in each} | secrets
    settings = load_settings(path, environment)
    assert settings.server.listen == "0.0.0.0:8080"
    assert settings.admin.listen == "0.0.0.0:8081"
    assert settings.server.drain_seconds == 300
    assert settings.server.trusted_proxies == ("10.0.0.0/8", "fd00::/8")
    assert settings.metrics.label_teams == 7
    assert settings.store.url == "redis://valkey:6379/0"
    assert [model.id for model in settings.models] == ["openai/gpt-image-2.6-flare"]


@by_values
def test_no_pod_starts_without_its_token_and_its_store(values: Path) -> None:
    (container,) = pod_of(values)["spec"]["containers"]
    given = {each["name"]: each for each in container["env"]}
    reference = given["LIGHTMETER_ADMIN_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "lightmeter", "key": "LIGHTMETER_ADMIN_TOKEN"}
    store = given["LIGHTMETER_STORE_URL"]
    if "value" in store:
        assert store["value"].startswith("redis")
    else:
        assert store["valueFrom"]["secretKeyRef"] == {"name": "lightmeter", "key": "LIGHTMETER_STORE_URL"}


def test_one_shipper_reaches_the_admin_listener_and_nobody_reaches_it() -> None:
    assert not of_kind(SMALL, "StatefulSet")
    (shipper,) = of_kind(SHIPPING, "StatefulSet")
    assert shipper["spec"]["replicas"] == 1
    labels, spec = shipper["spec"]["template"]["metadata"]["labels"], shipper["spec"]["template"]["spec"]
    assert shipper["spec"]["selector"]["matchLabels"] == labels
    (deployment,) = of_kind(SHIPPING, "Deployment")
    services = of_kind(SHIPPING, "Service")
    (policy,) = of_kind(SHIPPING, "NetworkPolicy")
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
        *(service["spec"]["selector"] for service in services),
    ):
        assert not selector.items() <= labels.items()
    shippers = policy["spec"]["ingress"][-1]
    assert [port["port"] for port in shippers["ports"]] == ["admin"]
    assert shippers["from"] == [{"podSelector": {"matchLabels": labels}}]
    (container,) = spec["containers"]
    given = {each["name"]: each for each in container["env"]}
    url = given["LIGHTMETER_ADMIN_URL"]["value"]
    assert url == f"http://{services[1]['metadata']['name']}:{services[1]['spec']['ports'][0]['port']}"
    secrets = {name: each["valueFrom"]["secretKeyRef"] for name, each in given.items() if "valueFrom" in each}
    needed = {name for name, reference in secrets.items() if not reference.get("optional")}
    assert needed == {"LIGHTMETER_ADMIN_TOKEN", "LIGHTMETER_SHIP_TO"}
    assert all(reference["key"] == name for name, reference in secrets.items())
    # The providers' keys are none of its business.
    assert "envFrom" not in container
    known = {name for each in ship.params for name in each.opts}
    assert container["args"][:2] == ["ledger", "ship"]
    assert {each for each in container["args"] if each.startswith("-")} <= known
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]


def test_another_configuration_rolls_the_pods() -> None:
    checksum = "checksum/config"
    before = pod_of(SMALL)["metadata"]["annotations"][checksum]
    after = template("--values", SMALL, "--set", "config=[[models]]").stdout
    assert before not in after
    assert checksum in after
