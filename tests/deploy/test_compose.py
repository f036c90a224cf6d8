"""docker-compose.yml against the public schema, and every name, path, port, user and setting in it against the code."""

import json
import re
import tomllib
from itertools import chain
from typing import Any

import jsonschema_rs
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from processor.api import server
from processor.embedded.containers import IMAGES
from processor.embedded.jars import KAFKA_VERSION
from processor.io import filter_file
from processor.io.kafka import DEFAULT_TUNING
from processor.io.kafka_group import ABANDON_S, LEAVE_S
from tests.deploy import compose, dockerfile
from tests.deploy.commands import SETTINGS, loaded, parsed
from tests.deploy.compose import ROOT

DOCUMENT = compose.read()
SERVICES = DOCUMENT["services"]
LISTED = DOCUMENT["x-images"]
OURS = compose.ours(DOCUMENT)
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
LASTING = sorted(name for name, service in SERVICES.items() if not compose.ends(service))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LISTENS = {
    "kafka": {9092, 29092},
    "valkey": {6379},
    "postgres": {5432},
    "prometheus": {9090},
    "grafana": {3000},
}
"""The ports of the images: Kafka's are set here, and tested so; of the others each is the default."""
KNOWN = {
    "kafka": re.compile(r"KAFKA_[A-Z_]+"),  # each a setting of the broker: test_servers.py asks one
    "postgres": re.compile(r"POSTGRES_(USER|PASSWORD|DB|INITDB_ARGS)"),
    "grafana": re.compile(r"GF_[A-Z]+_[A-Z_]+"),
}
"""Variables of the images that are not ours."""


def _problems(document: Any) -> list[str]:
    schema = jsonschema_rs.validator_for(get_builtin_schema("vendor.compose-spec"))
    return [error.message for error in schema.iter_errors(document)]


def test_the_file_is_as_the_compose_specification_wants_it() -> None:
    """Also as it is written, before its variables are put in; and a misspelt field would be found."""
    assert _problems(DOCUMENT) == []
    assert _problems(yaml.safe_load(compose.FILE.read_text())) == []
    broken = json.loads(json.dumps(DOCUMENT))
    broken["services"]["worker"]["comand"] = ["worker"]
    assert len(_problems(broken)) == 1


def test_every_image_is_pinned_and_named_once() -> None:
    """A release each; the Dockerfile's default and the containers of the tests are the same."""
    used = {service["image"] for service in SERVICES.values()}
    assert used | {LISTED["python"]} == set(LISTED.values())
    text = compose.FILE.read_text()
    for image in LISTED.values():
        assert re.fullmatch(r"[a-z/-]+:v?\d+(\.\d+){1,2}(-[a-z-]+)?", image)
        assert text.count(image) == 1
    defaults, stages = dockerfile.read()
    assert defaults == {"BASE": LISTED["python"]}
    assert {stage.base for stage in stages} == {"${BASE}"}
    assert all(service["build"]["args"] == defaults for service in OURS.values())
    assert {
        "kafka": LISTED["kafka"],
        "redis": LISTED["valkey"],
        "postgres": LISTED["postgres"],
    } == IMAGES


def test_the_servers_are_the_versions_that_the_tests_run_on() -> None:
    lock = (ROOT / "deploy" / "dev.lock").read_text()
    assert LISTED["kafka"] == f"apache/kafka:{KAFKA_VERSION}"
    assert f"\nvalkeylite=={LISTED['valkey'].rpartition(':')[2]}" in lock
    assert f"\nembedded-postgres=={LISTED['postgres'].rpartition(':')[2]}" in lock
    assert LISTED["processor"].rpartition(":")[2] == VERSION


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_is_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].partition(":")[0] not in {"", "root", "0"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid"} & set(service)


def test_only_kafka_writes_to_its_own_image() -> None:
    assert [name for name, service in SERVICES.items() if service["read_only"] is not True] == [
        "kafka"
    ]


def test_ours_run_as_the_user_of_their_image() -> None:
    _, stages = dockerfile.read()
    assert {service["user"] for service in OURS.values()} == set(stages[-1].every("USER"))


def test_what_lasts_is_started_again_and_what_runs_once_is_not() -> None:
    assert {SERVICES[name]["restart"] for name in LASTING} == {"unless-stopped"}
    assert sorted(SERVICES.keys() - set(LASTING)) == ["migrate", "setup", "topics"]


def test_everybody_waits_for_what_it_needs() -> None:
    """For health where there is a check, for the end of what ends; and nobody waits in a circle.

    Somebody waits for each that ends: `docker compose up --wait` takes an end that nobody waits for as a failure.
    """
    waited = set(chain.from_iterable(one.get("depends_on", ()) for one in SERVICES.values()))
    assert SERVICES.keys() - set(LASTING) <= waited
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            ended = compose.ends(SERVICES[other])
            expected = "service_completed_successfully" if ended else "service_healthy"
            assert how == {"condition": expected}
    order = compose.in_order(DOCUMENT)
    for name, service in OURS.items():
        for host, _ in compose.addresses(service):
            assert order.index(host) < order.index(name)


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert compose.seconds(check["timeout"]) < compose.seconds(check["interval"])


def test_ports_are_open_on_loopback_alone_and_lead_where_somebody_listens() -> None:
    taken = []
    for name, service in SERVICES.items():
        own = {int(service["environment"]["API_PORT"])} if name == "api" else LISTENS.get(name)
        for text in service.get("ports", ()):
            host, published, inside = text.split(":")
            assert host == "127.0.0.1"
            assert own
            assert int(inside) in own
            taken.append(published)
    assert sorted(taken) == ["29092", "3000", "8080", "9090"]


def test_kafka_listens_where_others_look_for_it() -> None:
    """By its name for the services, as localhost for this machine, at the port that is published."""
    settings = SERVICES["kafka"]["environment"]
    told = dict(url.split("://") for url in settings["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listens = dict(url.split("://") for url in settings["KAFKA_LISTENERS"].split(","))
    published = SERVICES["kafka"]["ports"][0].split(":")[1]
    assert told == {"INTERNAL": "kafka:9092", "HOST": f"localhost:{published}"}
    assert listens | {"INTERNAL": ":9092", "HOST": f":{published}"} == listens
    assert settings["KAFKA_INTER_BROKER_LISTENER_NAME"] == "INTERNAL"
    assert f"1@{listens['CONTROLLER']}" == settings["KAFKA_CONTROLLER_QUORUM_VOTERS"]


@pytest.mark.parametrize("name", OURS)
def test_addresses_lead_to_services_that_listen_there(name: str) -> None:
    found = list(compose.addresses(OURS[name]))
    assert found
    for host, port in found:
        assert port in LISTENS[host]


def test_the_program_logs_in_as_who_postgres_creates() -> None:
    """With the password of the shell, where it has one."""
    filled = compose.read({"POSTGRES_PASSWORD": "another"})["services"]
    server_has = filled["postgres"]["environment"]
    user, password, name = (server_has[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
    assert password == "another"
    for service in OURS:
        if url := filled[service]["environment"].get("DATABASE_URL"):
            assert url == f"postgresql://{user}:{password}@postgres:5432/{name}"


def test_postgres_holds_as_many_locks_as_the_readme_advises() -> None:
    """And makes text alike on every machine, as the embedded one does."""
    assert "max_locks_per_transaction=256" in SERVICES["postgres"]["command"]
    recipe = (ROOT / "processor" / "embedded" / "recipes.py").read_text()
    for option in SERVICES["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split():
        assert f'"{option}"' in recipe


def test_volumes_are_named_and_files_are_there_and_only_read() -> None:
    named = set()
    for mount in chain.from_iterable(map(compose.mounts, SERVICES.values())):
        if mount.bound:
            assert (ROOT / mount.source).exists(), mount.source
            assert not mount.writable
        else:
            named.add(mount.source)
    assert named == set(DOCUMENT["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_the_program_reads_and_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(OURS[name]["environment"]) <= SETTINGS
    settings = loaded(monkeypatch, OURS[name]["environment"])
    assert settings.metrics_port is not None or name not in {"worker", "engagement"}


@pytest.mark.parametrize("name", SERVICES.keys() - OURS.keys())
def test_every_variable_of_an_image_is_known(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        assert KNOWN[name].fullmatch(variable)
        assert isinstance(value, str)


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_the_program_has(name: str) -> None:
    """`setup` is a script of them."""
    if "command" in OURS[name]:
        command = OURS[name]["command"]
        assert parsed(command) == " ".join(command).partition(" --")[0]
        return
    shell, script, _ = OURS[name]["entrypoint"]
    (mount,) = (mount for mount in compose.mounts(OURS[name]) if mount.bound)
    lines = (ROOT / mount.source / script.removeprefix(mount.target + "/")).read_text()
    called = re.findall(r"\bprocessor ([a-z]+ [a-z]+)", lines)
    assert (shell, called) == ("sh", ["filters apply", "tokens create"])


def test_the_api_listens_outside_its_container() -> None:
    assert SERVICES["api"]["environment"]["API_HOST"] == "0.0.0.0"


def test_a_drain_has_the_time_it_needs() -> None:
    drain = DEFAULT_TUNING.drain_ms / 1000 + ABANDON_S + LEAVE_S
    assert compose.seconds(SERVICES["worker"]["stop_grace_period"]) > drain
    assert compose.seconds(SERVICES["api"]["stop_grace_period"]) > server.END_WITHIN_S


def test_the_sample_filters_are_filters() -> None:
    file = filter_file.read(ROOT / "deploy" / "compose" / "sample-filters.yaml")
    assert list(file.org_units) == ["acme"]


def test_prometheus_asks_every_process_that_has_metrics() -> None:
    """At the port it serves them on, each replica by itself."""
    asked = {
        (job["job_name"], tuple(found["names"]), found["port"])
        for job in PROMETHEUS["scrape_configs"]
        for found in job.get("dns_sd_configs", ())
    }
    serves = {
        (name, (name,), int(service["environment"][variable]))
        for name, service in OURS.items()
        for variable in ("METRICS_PORT", "API_PORT")
        if variable in service["environment"]
    }
    assert asked == serves


def test_prometheus_finds_its_configuration_and_the_rules_in_it() -> None:
    (folder,) = (mount for mount in compose.mounts(SERVICES["prometheus"]) if mount.bound)
    assert f"--config.file={folder.target}/prometheus.yaml" in SERVICES["prometheus"]["command"]
    for rules in PROMETHEUS["rule_files"]:
        assert (ROOT / folder.source / rules.removeprefix(folder.target + "/")).is_file()


def test_grafana_finds_its_dashboard_and_the_data_for_it() -> None:
    folder = ROOT / "deploy" / "grafana"
    (mount,) = (mount for mount in compose.mounts(SERVICES["grafana"]) if mount.bound)
    settings = SERVICES["grafana"]["environment"]
    assert settings["GF_PATHS_PROVISIONING"] == f"{mount.target}/provisioning"
    (source,) = yaml.safe_load((folder / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "provisioning/dashboards/dashboards.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == mount.target
    home = settings["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    dashboard = json.loads(
        (ROOT / mount.source / home.removeprefix(mount.target + "/")).read_text()
    )
    used = set(re.findall(r'"datasource": \{[^}]*"uid": "([^"]+)"', json.dumps(dashboard)))
    assert all(uid == source["uid"] or uid.startswith(("$", "-- ")) for uid in used)
