"""What deploy/RUNBOOK.md and the README tell an operator to run."""

import json
import re
import shlex
from collections.abc import Iterator

import kubernetes_validate

from tests.deploy import manifests
from tests.deploy.commands import parsed
from tests.deploy.compose import ROOT
from tests.deploy.manifests import container, named, pod_of

RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text()
PLACEHOLDER = re.compile(r"\b(?:[NP]|OFFSET)\b")


def commands() -> Iterator[str]:
    """Every ``processor COMMAND --OPTION …`` of both documents, but for those that leave something out for brevity."""
    text = RUNBOOK + (ROOT / "README.md").read_text()
    for found in re.findall(r"`processor ((?:\w+ )+--[^`…]+)`", text):
        yield re.sub(r"[\[\]]", "", " ".join(found.split()))


def test_commands_have_all_that_they_need() -> None:
    """Options that are required, and none that there is not."""
    found = {*commands()}
    assert "offsets reset --topic T --partition P --to OFFSET" in found
    for one in found:
        assert parsed(shlex.split(PLACEHOLDER.sub("1", one))), one


def operators_pod() -> dict[str, object]:
    """The pod that the runbook runs a command in."""
    (overrides,) = re.findall(r"--overrides='(\{.*?\n  \})' --", RUNBOOK, re.DOTALL)
    pod: dict[str, object] = json.loads(overrides.replace("'\"$settings\"'", "processor"))
    return pod


def test_an_operators_command_runs_as_the_worker_does_with_the_operators_user() -> None:
    """The same image, user, settings and certificates; a Secret that comes later counts where two have a key."""
    pod = operators_pod()
    worker = named("Deployment", "processor-worker")
    kubernetes_validate.validate(
        {**pod, "kind": "Pod", "metadata": {"name": "operator"}}, "1.30", strict=True
    )
    spec = pod["spec"]
    assert isinstance(spec, dict)
    for field in ("serviceAccountName", "nodeSelector", "securityContext"):
        assert spec[field] == pod_of(worker)[field]
    (only,) = spec["containers"]
    assert only["name"] == "operator"
    assert only["securityContext"] == container(worker)["securityContext"]
    assert only["volumeMounts"][0] in container(worker)["volumeMounts"]
    assert spec["volumes"][0] in pod_of(worker)["volumes"]
    assert [next(iter(source.values()))["name"] for source in only["envFrom"]] == [
        manifests.KUSTOMIZATION["configMapGenerator"][0]["name"],
        "processor",
        "processor-operator",
    ]
    first = container(worker)["envFrom"][0]
    assert first["configMapRef"]["name"] == only["envFrom"][0]["configMapRef"]["name"]
