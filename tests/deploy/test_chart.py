"""The Helm chart: what Kubernetes would be given is valid, says what it should, and holds files that ncfast takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.helm import CHART, Refused, Rendered, render
from support.ncfast_process import merged, ncfast
from support.process import child_env
from support.until import PATIENCE

from ncfast import __version__

ROOT = Path(__file__).parents[2]
CLUSTER: dict[str, Any] = {"hub": {"config": {"ha": {"redis_url": "redis://redis:6379/0"}}}}
AGENT: dict[str, Any] = {
    "agent": {
        "enabled": True,
        "config": {
            "hubs": ["wss://hub-a.example.net/tunnel", "wss://hub-b.example.net/tunnel"],
            "agent_id": "site-1",
            "connectors": [{"name": "ldap", "target": "ldap.internal:389"}],
        },
    }
}
MONITORING = {"monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "rules", "dashboards")}}
INGRESS = {"hub": {"ingress": {"enabled": True, "host": "hub.example.net", "tlsSecretName": "hub-tls"}}}
EXPOSED = {
    "hub": {
        "service": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        "config": {
            "edge": {"tls": {"cert_file": "/run/secrets/edge/tls.crt", "key_file": "/run/secrets/edge/tls.key"}}
        },
        "secrets": {"edge": "hub-edge"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    }
}
INSTALLATIONS = {
    "one hub": {"hub": {"cluster": False, "replicas": 1}},
    "cluster": CLUSTER,
    "cluster, ingress": merged(CLUSTER, INGRESS),
    "cluster, exposed": merged(CLUSTER, EXPOSED),
    "agent alone": {**AGENT, "hub": {"enabled": False}},
    "everything": merged(merged(CLUSTER, INGRESS), {**AGENT, **MONITORING}),
}
LISTENER = {"name": "ldap", "port": 389, "bind": ":1389", "connector": "ldap"}
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]
OPERATOR = "monitoring.coreos.com/v1"  # its schemas are not Kubernetes' own
EVERYTHING = INSTALLATIONS["everything"]


@pytest.fixture(scope="module")
def everything() -> Rendered:
    return render(EVERYTHING)


@pytest.fixture(scope="module", params=INSTALLATIONS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(INSTALLATIONS[request.param])


def test_helm_lints_it(rendered):
    assert [one for one in rendered.messages if one["severity"] > 1] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_what_is_rendered(rendered, version):
    for one in rendered.objects:
        if one["apiVersion"] != OPERATOR:
            kubernetes_validate.validate(one, version, strict=True)


def test_the_validation_sees_a_wrong_key(everything):
    hub = everything.one("StatefulSet")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**hub, "spec": {**hub["spec"], "replica": 3}}, KUBERNETES[0], strict=True)


def test_ncfast_takes_the_files_in_it(rendered, tmp_path):
    files = {
        name: text
        for config in rendered.all("ConfigMap").values()
        for name, text in config["data"].items()
        if name.endswith(".yaml")
    }
    assert files
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text)
        environment = child_env({"POD_NAME": "ncfast-0"})
        done = subprocess.run(ncfast("check", path), capture_output=True, text=True, timeout=PATIENCE, env=environment)
        assert done.returncode == 0, done.stderr


def test_the_chart_is_of_the_version_that_it_installs():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


# what must hold of pods


def pods(rendered: Rendered) -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in rendered.objects if one["kind"] in ("StatefulSet", "Deployment")]


def test_pods_are_no_root_and_can_change_nothing(everything):
    assert len(pods(everything)) == 2
    for pod in pods(everything):
        assert pod["automountServiceAccountToken"] is False
        rights = pod["securityContext"]
        assert rights["runAsNonRoot"] and rights["runAsUser"] == rights["runAsGroup"] == 10001
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_user_of_the_pods_is_that_of_the_image(everything):
    image = (ROOT / "Dockerfile").read_text()
    assert {
        f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" for pod in pods(everything)
    } <= set(image.splitlines())


@pytest.mark.parametrize(
    ("drain", "least"),
    [({}, 38), ({"delay_sec": 20, "timeout_sec": 600}, 620), ({"delay_sec": 0.5, "timeout_sec": 1.5}, 2)],
)
def test_a_drain_has_the_time_that_it_may_take(drain, least):
    values = merged(CLUSTER, {"hub": {"config": {"drain": {"delay_sec": 8, "timeout_sec": 30, **drain}}}})
    pod = render(values).one("StatefulSet")["spec"]["template"]["spec"]
    assert least + 10 <= pod["terminationGracePeriodSeconds"] <= least + 20


def test_balancers_notice_a_drain_before_listeners_close(everything):
    """The probe's failures must be counted within the delay that the values themselves give."""
    (hub,) = everything.one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probe, delay = hub["readinessProbe"], yaml.safe_load((CHART / "values.yaml").read_text())["hub"]["config"]["drain"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < delay["delay_sec"]


def secrets(workload: dict[str, Any]) -> list[str]:
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    return [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]


def test_secrets_are_references(everything):
    assert everything.all("Secret") == {}
    assert secrets(everything.one("StatefulSet")) == ["ncfast-mesh", "ncfast-tokens"]
    assert secrets(everything.one("Deployment", "ncfast-agent")) == ["ncfast-agent-token"]


def test_one_hub_wants_no_secret_of_a_mesh():
    assert secrets(render(INSTALLATIONS["one hub"]).one("StatefulSet")) == ["ncfast-tokens"]


def test_services_lead_to_ports_that_pods_have(rendered):
    for workload in (*rendered.all("StatefulSet").values(), *rendered.all("Deployment").values()):
        template = workload["spec"]["template"]
        (container,) = template["spec"]["containers"]
        names = {port["name"] for port in container.get("ports", ())}
        labels = template["metadata"]["labels"]
        for service in rendered.all("Service").values():
            if service["spec"]["selector"].items() <= labels.items():
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for service in rendered.all("Service").values():
        chosen = [
            workload
            for workload in rendered.all("StatefulSet").values()
            if service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(chosen) == 1


def test_the_mesh_is_for_hubs_and_the_admin_edge_for_who_watches(everything):
    rules = {
        port["port"]: rule.get("from")
        for rule in everything.one("NetworkPolicy", "ncfast-hub")["spec"]["ingress"]
        for port in rule["ports"]
    }
    own = everything.one("StatefulSet")["spec"]["selector"]["matchLabels"]
    assert rules["mesh"] == [{"podSelector": {"matchLabels": own}}]
    assert rules["admin"] and rules["edge"] is None and rules["ldap"] is None
    assert everything.one("NetworkPolicy", "ncfast-agent")["spec"]["ingress"] == []


def test_one_hub_at_a_time_may_be_taken():
    assert render(CLUSTER).one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert not render(INSTALLATIONS["one hub"]).all("PodDisruptionBudget")


# what watches


def test_the_monitor_finds_the_port_of_one_service(everything):
    monitor = everything.one("ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"]
    (service,) = [
        one for one in everything.all("Service").values() if wanted.items() <= one["metadata"]["labels"].items()
    ]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert {"targetLabel": "job", "replacement": "ncfast"} in endpoint["relabelings"]  # the rules' own word


def rule_files() -> dict[str, Any]:
    """The files of rules among those for Prometheus: others are tests of them, or another program's."""
    contents = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "config" / "prometheus").glob("*.yaml")}
    return {name: content for name, content in contents.items() if "groups" in content}


def test_rules_are_those_of_the_repository(everything):
    shipped = {name.removeprefix("ncfast-"): one["spec"] for name, one in everything.all("PrometheusRule").items()}
    assert shipped == rule_files()


def test_dashboards_are_those_of_the_repository(everything):
    shipped = everything.one("ConfigMap", "ncfast-dashboards")
    assert shipped["data"] == {path.name: path.read_text() for path in (ROOT / "config" / "grafana").glob("*.json")}


def test_promtool_takes_the_rules_as_rendered(everything, tmp_path):
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed")
    for name, one in everything.all("PrometheusRule").items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(one["spec"]))
        done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr


# values that make no sense


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "redis_url"),
        ({"hub": {"cluster": False}}, "hub.cluster"),
        (merged(CLUSTER, {"hub": {"replica": 3}}), "replica"),
        (merged(CLUSTER, {"hub": {"listeners": [{**LISTENER, "bind": ":389"}]}}), "bind"),
        (merged(CLUSTER, {"hub": {"listeners": [{**LISTENER, "name": "edge"}]}}), "name"),
        (merged(CLUSTER, {"hub": {"config": {"edge": {"bind": ":9999"}}}}), "bind"),
        (merged(CLUSTER, {"hub": {"env": [{"name": "POD_NAME", "value": "x"}]}}), "env"),
        (merged(CLUSTER, {"image": {"digest": "latest"}}), "digest"),
        (merged(CLUSTER, {"hub": {"ingress": {"enabled": True}}}), "hub.ingress.host"),
        ({"hub": {"enabled": False}, "agent": {"enabled": True}}, "agent_id"),
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(values, said):
    with pytest.raises(Refused, match=said):
        render(values)
