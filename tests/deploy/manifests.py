"""deploy/kubernetes as kustomize renders it: every object, with the image and the settings put in."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.compose import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def settings() -> dict[str, str]:
    """The ConfigMap's content."""
    lines = (FOLDER / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def objects() -> list[Any]:
    """Everything that is applied; the ConfigMap without the hash in its name."""
    found = [
        document
        for name in KUSTOMIZATION["resources"]
        for document in yaml.safe_load_all((FOLDER / name).read_text())
    ]
    (image,) = KUSTOMIZATION["images"]
    for pod in map(pod_of, filter(pod_of, found)):
        for container in pod["containers"]:
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    metadata = {"name": generated["name"]}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": settings()}
    return [*found, config]


def of_kind(kind: str) -> list[Any]:
    """The objects of a kind."""
    return [one for one in objects() if one["kind"] == kind]


def named(kind: str, name: str) -> Any:
    """The one object of that kind and name."""
    (one,) = (found for found in of_kind(kind) if found["metadata"]["name"] == name)
    return one


def pod_of(one: Any) -> Any:
    """The pod's spec of what makes pods; None of anything else."""
    return one["spec"]["template"]["spec"] if one["kind"] in {"Deployment", "Job"} else None


def makers() -> list[Any]:
    """What makes pods."""
    return [one for one in objects() if pod_of(one)]


def labels(one: Any) -> dict[str, str]:
    """Of the pods it makes."""
    found: dict[str, str] = one["spec"]["template"]["metadata"]["labels"]
    return found


def container(one: Any) -> Any:
    """The one container of its pods."""
    (only,) = pod_of(one)["containers"]
    return only


def environment(one: Any) -> dict[str, str | None]:
    """Of its container; None for what comes from a Secret."""
    only = container(one)
    shared = settings() if only.get("envFrom") else {}
    return {**shared, **{own["name"]: own.get("value") for own in only.get("env", ())}}


def secrets(one: Any) -> dict[str, Any]:
    """Where in a Secret each variable of its container that is secret comes from."""
    own = container(one).get("env", ())
    return {variable["name"]: variable["valueFrom"]["secretKeyRef"] for variable in own}


def selects(selector: Any, found: dict[str, str]) -> bool:
    """Whether pods with these labels are meant."""
    exact = selector.get("matchLabels", {}).items() <= found.items()
    others = selector.get("matchExpressions", ())
    assert all(one["operator"] == "In" for one in others)
    return exact and all(found.get(one["key"]) in one["values"] for one in others)


def ports(one: Any) -> dict[str, int]:
    """The ports of its container by name."""
    return {port["name"]: port["containerPort"] for port in container(one).get("ports", ())}


def probes(one: Any) -> Iterator[tuple[str, Any]]:
    """Name and definition of each probe."""
    for key, value in container(one).items():
        if key.endswith("Probe"):
            yield key, value


def slept(one: Any) -> int:
    """Seconds its preStop hook takes."""
    word, number = container(one)["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    return int(number)


def anchors() -> list[str]:
    """Places where YAML refers to itself, which not every tool resolves alike."""
    texts = [(FOLDER / name).read_text() for name in KUSTOMIZATION["resources"]]
    return [place for text in texts for place in re.findall(r"[:\[ ][&*]\w+|<<:", text)]
