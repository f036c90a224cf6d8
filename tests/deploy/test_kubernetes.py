"""deploy/kubernetes against the Kubernetes schemas, and every command, port, probe, user and setting in it against the code."""

import copy
import re
import tomllib
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest

from processor import telemetry
from processor.api import server
from processor.api.connection import MOST_CONNECTIONS
from processor.api.health import router
from processor.api.held import LARGE, MOST_ANSWERS, MOST_BODIES
from processor.io.kafka import DEFAULT_TUNING
from processor.io.kafka_group import ABANDON_S, LEAVE_S
from processor.io.kafka_topics import PARTITIONS
from tests.deploy import compose, dockerfile, manifests, scaledobject
from tests.deploy.commands import SETTINGS, loaded, parsed
from tests.deploy.compose import ROOT
from tests.deploy.manifests import container, environment, labels, named, of_kind, pod_of
from tests.harness_secured import rights

VERSIONS = ["1.30", kubernetes_validate.latest_version().rpartition(".")[0]]
"""The oldest that is meant to work, and the newest there is a schema of."""
SECRET = {
    "DATABASE_URL": "postgresql://processor:secret@postgres:5432/processor",
    "REDIS_URL": "redis://redis:6379/0",
    "KAFKA_SASL_USERNAME": "processor",
    "KAFKA_SASL_PASSWORD": "secret",
}
"""Keys of the Secret that is made outside, with values of the kind that goes there."""
KAFKA_USERS = {
    "worker": "processor",
    "api": "processor-api",
    "engagement": "processor-engagement",
    "topics": "processor-operator",
}
"""The Secret with the Kafka user of each component: one for every user that the runbook gives rights to."""
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MAKERS = {one["metadata"]["name"]: one for one in manifests.makers()}
DEPLOYMENTS = {one["metadata"]["name"]: one for one in of_kind("Deployment")}
KUBERNETES = [one for one in manifests.objects() if one["kind"] != "ScaledObject"]
SCALED = named("ScaledObject", "processor-worker")


def _name(one: Any) -> str:
    return f"{one['kind']}-{one['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("one", KUBERNETES, ids=_name)
def test_every_object_is_as_its_schema_wants_it(one: Any, version: str) -> None:
    """Strictly: no field that Kubernetes would drop without a word."""
    assert kubernetes_validate.validate(one, version, strict=True) == version


def test_a_misspelt_field_would_be_found() -> None:
    broken = copy.deepcopy(DEPLOYMENTS["processor-worker"])
    pod_of(broken)["terminationGracePeriodSecond"] = 45
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSecond"):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_file_and_one_image() -> None:
    """That of docker-compose.yml, in the version of the program."""
    files = {path.name for path in manifests.FOLDER.iterdir()}
    (generated,) = manifests.KUSTOMIZATION["configMapGenerator"]
    assert files - {"kustomization.yaml"} == {
        *manifests.KUSTOMIZATION["resources"],
        *generated["envs"],
    }
    assert manifests.KUSTOMIZATION.keys() == {
        "apiVersion",
        "kind",
        "resources",
        "images",
        "configMapGenerator",
    }
    image = compose.read()["x-images"]["processor"]
    assert {container(one)["image"] for one in MAKERS.values()} == {image}
    assert image.rpartition(":")[2] == VERSION
    assert manifests.anchors() == []


@pytest.mark.parametrize("name", MAKERS)
def test_every_command_is_one_that_compose_runs_too(name: str) -> None:
    """So it is tried: test_entry_points.py runs each of them."""
    args = container(MAKERS[name])["args"]
    assert parsed(args)
    commands = [one.get("command") for one in compose.ours(compose.read()).values()]
    assert args in commands
    assert "command" not in container(MAKERS[name])


@pytest.mark.parametrize("name", MAKERS)
def test_every_setting_is_one_the_program_reads_and_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is secret comes from the Secret, and from nowhere else."""
    given = environment(MAKERS[name])
    assert given.keys() <= SETTINGS
    assert {key for key, value in given.items() if value is None} <= SECRET.keys()
    filled = {key: SECRET[key] if value is None else value for key, value in given.items()}
    loaded(monkeypatch, filled)


def test_secrets_come_from_outside() -> None:
    """No manifest holds one; the API, which owns nothing, has its own database user."""
    assert of_kind("Secret") == []
    assert not SECRET.keys() & manifests.settings().keys()
    for name, one in MAKERS.items():
        owner = "processor-api" if name == "processor-api" else "processor"
        for key, source in manifests.secrets(one).items():
            assert source["key"] == key
            if not key.startswith("KAFKA_SASL_"):
                assert source == {"name": owner, "key": key}


def test_each_kafka_user_of_the_runbook_has_a_secret_of_its_own() -> None:
    """With the rights of another one a process would be refused; it may be missing, where Kafka asks for no password."""
    assert len(set(KAFKA_USERS.values())) == len({right.user for right in rights()})
    found = {}
    for one in MAKERS.values():
        sources = manifests.secrets(one)
        of_kafka = [source for key, source in sources.items() if key.startswith("KAFKA_SASL_")]
        assert all(source["optional"] is True for source in of_kafka)
        if "KAFKA_BOOTSTRAP_SERVERS" in environment(one):
            name, *others = {source["name"] for source in of_kafka}
            assert (len(of_kafka), others) == (2, [])
            found[labels(one)["app.kubernetes.io/component"]] = name
    assert found == KAFKA_USERS


@pytest.mark.parametrize("name", MAKERS)
def test_nobody_is_root_or_may_become_it(name: str) -> None:
    """The user is the image's; nothing is written but to memory-backed or empty folders; nobody knows the API server."""
    pod, only = pod_of(MAKERS[name]), container(MAKERS[name])
    _, stages = dockerfile.read()
    context = pod["securityContext"]
    assert stages[-1].every("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(volume.keys() & {"emptyDir", "secret"} for volume in pod.get("volumes", ()))
    account = named("ServiceAccount", pod["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", MAKERS)
def test_certificates_of_an_authority_of_ones_own_are_where_the_settings_say(name: str) -> None:
    """In a Secret that need not be there."""
    (volume,) = (v for v in pod_of(MAKERS[name])["volumes"] if "secret" in v)
    assert volume["secret"] == {"secretName": "processor-tls", "optional": True}
    places = {m["name"]: m["mountPath"] for m in container(MAKERS[name])["volumeMounts"]}
    text = (manifests.FOLDER / "settings.env").read_text()
    assert f"KAFKA_SSL_CAFILE={places[volume['name']]}/ca.crt" in text


@pytest.mark.parametrize("name", MAKERS)
def test_pods_run_where_the_image_does(name: str) -> None:
    """On the platform that docker-compose.yml builds it for."""
    platforms = {one["platform"] for one in compose.ours(compose.read()).values()}
    assert platforms == {f"linux/{pod_of(MAKERS[name])['nodeSelector']['kubernetes.io/arch']}"}


@pytest.mark.parametrize("name", MAKERS)
def test_memory_is_bounded_and_asked_for(name: str) -> None:
    resources = container(MAKERS[name])["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]


def test_the_api_has_the_memory_that_its_clients_can_make_it_hold() -> None:
    """Bodies, unread answers, what each connection reads ahead, and what of a body and an answer each does not count; and what it takes without clients."""
    limit = container(DEPLOYMENTS["processor-api"])["resources"]["limits"]["memory"]
    ahead = 320 << 10
    held = MOST_BODIES + MOST_ANSWERS + MOST_CONNECTIONS * (ahead + 2 * LARGE)
    assert int(limit.removesuffix("Gi")) << 30 > held + (256 << 20)


def test_workers_are_replaced_one_at_a_time() -> None:
    """As the rollout that the README's times are of."""
    update = DEPLOYMENTS["processor-worker"]["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_ask_what_is_served_where_it_is_served(name: str) -> None:
    """Alive is /healthz, ready is /readyz, on the port that the settings open; the API, of which much goes on without Kafka, is ready while it is alive."""
    one = DEPLOYMENTS[name]
    ready = "/healthz" if name == "processor-api" else "/readyz"
    (port_name,) = manifests.ports(one)
    setting = "API_PORT" if name == "processor-api" else "METRICS_PORT"
    assert manifests.ports(one) == {port_name: int(manifests.settings()[setting])}
    asked = {probe: definition["httpGet"] for probe, definition in manifests.probes(one)}
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": port_name},
        "livenessProbe": {"path": "/healthz", "port": port_name},
        "readinessProbe": {"path": ready, "port": port_name},
    }
    annotations = one["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == manifests.settings()[setting]


def test_the_paths_of_the_probes_are_served() -> None:
    for path in (b"/healthz", b"/readyz", b"/metrics"):
        assert telemetry._response(path, list, list)[0] == "200 OK"
    served = {getattr(route, "path", None) for route in router.routes}
    assert {"/healthz", "/readyz", "/metrics"} <= served


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_drain_has_the_time_it_needs(name: str) -> None:
    """After what comes before SIGTERM."""
    drain = DEFAULT_TUNING.drain_ms / 1000 + ABANDON_S + LEAVE_S
    needed = server.END_WITHIN_S if name == "processor-api" else drain
    grace = pod_of(DEPLOYMENTS[name])["terminationGracePeriodSeconds"]
    assert grace > manifests.slept(DEPLOYMENTS[name]) + needed


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_selectors_mean_the_pods_of_one_deployment(name: str) -> None:
    """Its own, its budget's, and those that spread it."""
    one = DEPLOYMENTS[name]
    budget = named("PodDisruptionBudget", name)
    spread = pod_of(one)["topologySpreadConstraints"]
    selectors = [one["spec"]["selector"], budget["spec"]["selector"]]
    for selector in [*selectors, *(rule["labelSelector"] for rule in spread)]:
        meant = [n for n, other in MAKERS.items() if manifests.selects(selector, labels(other))]
        assert meant == [name]
    assert budget["spec"]["maxUnavailable"] == 1


def test_one_thing_alone_says_how_many_there_are() -> None:
    """A number in the manifest, the autoscaler or KEDA."""
    scaled = [one["spec"]["scaleTargetRef"]["name"] for one in of_kind("HorizontalPodAutoscaler")]
    scaled += [one["spec"]["scaleTargetRef"]["name"] for one in of_kind("ScaledObject")]
    fixed = [name for name, one in DEPLOYMENTS.items() if "replicas" in one["spec"]]
    assert sorted(scaled + fixed) == sorted(DEPLOYMENTS)


def test_the_service_leads_to_the_api() -> None:
    spec = named("Service", "processor-api")["spec"]
    meant = [
        n
        for n, o in MAKERS.items()
        if manifests.selects({"matchLabels": spec["selector"]}, labels(o))
    ]
    assert meant == ["processor-api"]
    (port,) = spec["ports"]
    assert port["targetPort"] in manifests.ports(DEPLOYMENTS["processor-api"])
    assert manifests.settings()["API_HOST"] == "0.0.0.0"


def test_nothing_comes_in_or_goes_out_but_what_is_named() -> None:
    """One policy holds for every pod both ways; others open a port that is there."""
    everyone = named("NetworkPolicy", "processor")["spec"]
    assert all(manifests.selects(everyone["podSelector"], labels(one)) for one in MAKERS.values())
    assert everyone["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everyone
    opened = {}
    for policy in of_kind("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            for name, one in DEPLOYMENTS.items():
                if manifests.selects(policy["spec"]["podSelector"], labels(one)):
                    opened[name] = {port["port"] for port in rule["ports"]}
    assert opened == {name: set(manifests.ports(one)) for name, one in DEPLOYMENTS.items()}


def test_what_the_settings_lead_to_may_be_reached() -> None:
    """Kafka, Redis and Postgres at their ports, by TLS too, and names."""
    rules = named("NetworkPolicy", "processor")["spec"]["egress"]
    open_ports = {port["port"] for rule in rules for port in rule["ports"]}
    wanted = [manifests.settings()["KAFKA_BOOTSTRAP_SERVERS"], *SECRET.values()]
    found = {int(n) for value in wanted for n in re.findall(r":([0-9]+)(?:/|$)", value)}
    assert open_ports == found | {53, 9093, 6380}


def test_jobs_carry_the_version_and_go_by_themselves() -> None:
    """A Job cannot be changed: a new version needs a new one."""
    jobs = {one["metadata"]["name"]: one["spec"] for one in of_kind("Job")}
    suffix = VERSION.replace(".", "-")
    assert set(jobs) == {f"processor-migrate-{suffix}", f"processor-topics-{suffix}"}
    assert all(spec["ttlSecondsAfterFinished"] <= 600 for spec in jobs.values())


def _problems(one: Any) -> list[str]:
    return [
        error.message for error in jsonschema_rs.validator_for(scaledobject.SCHEMA).iter_errors(one)
    ]


def test_the_scaledobject_has_published_fields_only() -> None:
    """Its behavior is that of a HorizontalPodAutoscaler; and what KEDA refuses would be found."""
    assert _problems(SCALED) == []
    behavior = SCALED["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    scaler = copy.deepcopy(named("HorizontalPodAutoscaler", "processor-api"))
    scaler["spec"]["behavior"] = behavior
    kubernetes_validate.validate(scaler, VERSIONS[0], strict=True)
    for name, value in [("allowIdleConsumers", "true"), ("lagTreshold", "1"), ("topic", "x")]:
        broken = copy.deepcopy(SCALED)
        broken["spec"]["triggers"][0]["metadata"][name] = value
        assert _problems(broken)


def test_workers_follow_the_lag_of_both_input_topics() -> None:
    """Under the names that the workers themselves have."""
    read = [trigger["metadata"] for trigger in SCALED["spec"]["triggers"]]
    names = ("bootstrapServersFromEnv", "consumerGroupFromEnv", "topicFromEnv")
    assert [tuple(metadata[name] for name in names) for metadata in read] == [
        ("KAFKA_BOOTSTRAP_SERVERS", "CONSUMER_GROUP", "RAW_TOPIC"),
        ("KAFKA_BOOTSTRAP_SERVERS", "CONSUMER_GROUP", "MERGE_TOPIC"),
    ]
    assert {name for metadata in read for name in (metadata[n] for n in names)} <= set(
        environment(DEPLOYMENTS["processor-worker"])
    )
    for metadata in read:
        assert metadata["limitToPartitionsWithLag"] == "true"
        assert metadata["offsetResetPolicy"] == "earliest"
    assert SCALED["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS


def test_there_are_never_more_workers_than_partitions() -> None:
    """As many as the topics get here, in compose, and by default."""
    (job,) = (one for one in of_kind("Job") if "topics" in one["metadata"]["name"])
    *_, option, partitions = container(job)["args"]
    assert (option, int(partitions)) == ("--partitions", PARTITIONS)
    assert SCALED["spec"]["maxReplicaCount"] == PARTITIONS
    assert 2 <= SCALED["spec"]["minReplicaCount"] <= PARTITIONS


def test_workers_go_one_by_one_and_late() -> None:
    """Each change of the group stops all its lanes for a moment."""
    down = SCALED["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 600
    assert [(rule["type"], rule["value"]) for rule in down["policies"]] == [("Pods", 1)]
