"""The files that run ``esms`` in containers, by what must be true of them."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from esms_source.cli.commands import main
from esms_source.config import Settings
from esms_source.config.ref_id_table import RefIdTable

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
KUBERNETES = {
    item["kind"]: item
    for item in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text())
}
DOCS = (ROOT / "docs/containers.md").read_text()
JOB, DEPLOYMENT = KUBERNETES["CronJob"], KUBERNETES["Deployment"]
PODS = [
    JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    DEPLOYMENT["spec"]["template"]["spec"],
]
ESMS = COMPOSE["services"]["esms"]
SECRET = re.compile(r"KEY|SECRET|PASSWORD|CREDENTIALS$")
OURS = re.compile(r"\bSOURCES__ESMS__(\w+)")


def last_of(instruction):
    return re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)[-1]


def health_check():
    [command] = re.findall(r"HEALTHCHECK [^\[]*CMD (\[.*\])", DOCKERFILE)
    return json.loads(command)


def commands():
    """All command lines of ``esms`` that the files start."""
    yield json.loads(last_of("CMD"))
    yield [word.replace("${ESMS_DESTINATION:-duckdb}", "x") for word in ESMS["command"]]
    for pod in PODS:
        yield pod["containers"][0]["args"]
    for line in re.findall(r"\besms ((?:check|query)\b.*)$", DOCS, re.MULTILINE):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("args", list(commands()))
def test_every_command_line_is_one_that_esms_takes(args):
    """Click reads each one, as it would at the start of the container."""
    assert json.loads(last_of("ENTRYPOINT")) == ["esms"]
    place = next(i for i, word in enumerate(args) if word in main.commands)
    with main.make_context("esms", args[: place + 1]) as context:
        command = main.commands[args[place]]
        command.make_context(args[place], args[place + 1 :], parent=context).close()


def test_the_image_runs_as_a_user_that_is_not_root():
    """By number, as Kubernetes wants it; the pods name the same one."""
    user, _, group = last_of("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"] is True
        named = [pod["securityContext"][f"runAs{name}"] for name in ("User", "Group")]
        assert named == [int(user), int(group)]
        assert pod["securityContext"]["fsGroup"] == int(group)
    assert "user" not in ESMS


def test_nothing_but_two_folders_can_be_written():
    """The root file system is read-only, and no right can be won."""
    folders = {"/data", "/tmp"}  # noqa: S108  the container's own
    assert "DLT_DATA_DIR=/data" in DOCKERFILE
    assert ESMS["read_only"] is True
    assert ESMS["cap_drop"] == ["ALL"]
    assert ESMS["security_opt"] == ["no-new-privileges:true"]
    assert {volume.partition(":")[2] for volume in ESMS["volumes"]} == folders
    for pod in PODS:
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {
            mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]
        }
        assert set(mounts) == folders
        assert {volume["name"] for volume in pod["volumes"]} == set(mounts.values())


def test_the_pods_are_bounded_and_have_time_to_end():
    """Memory has a limit, and a SIGTERM five minutes; one pod works at a time."""
    for pod in PODS:
        assert pod["terminationGracePeriodSeconds"] == 300
        resources = pod["containers"][0]["resources"]
        assert resources["requests"]["memory"] == "512Mi"
        assert resources["limits"]["memory"] == "1Gi"
    assert JOB["spec"]["concurrencyPolicy"] == "Forbid"
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}
    assert ESMS["stop_grace_period"] == "5m"


def test_one_command_applies_each_way_to_run_and_none_the_secret():
    """The labels are those that the two commands at the top select."""
    labels = {
        kind: item["metadata"]["labels"]["run"] for kind, item in KUBERNETES.items()
    }
    assert labels == {
        "Secret": "template",
        "ConfigMap": "both",
        "CronJob": "cronjob",
        "Deployment": "deployment",
    }


def test_the_probe_is_the_same_everywhere():
    """The image, the Deployment and the documentation name one command."""
    [container] = PODS[1]["containers"]
    assert container["livenessProbe"]["exec"]["command"] == health_check()
    assert f"\n{health_check()[-1]}\n" in DOCS


def test_no_file_holds_a_secret():
    """What may be one is empty, or comes from the environment of who starts it."""
    environments = [service["environment"] for service in COMPOSE["services"].values()]
    environments += [
        KUBERNETES["Secret"]["stringData"],
        KUBERNETES["ConfigMap"]["data"],
    ]
    named = [item for items in environments for item in items.items()]
    secrets = {text for name, text in named if SECRET.search(name)}
    assert secrets == {"", "${POSTGRES_PASSWORD:-}"}
    assert not any(SECRET.search(name) for name in KUBERNETES["ConfigMap"]["data"])
    given = re.findall(r"(\w+)=(\S+)", DOCKERFILE)
    assert dict(given)["DESTINATION__DUCKDB__CREDENTIALS"] == "/data/esms.duckdb"
    assert [name for name, _ in given if SECRET.search(name)] == [
        "DESTINATION__DUCKDB__CREDENTIALS"
    ]


def test_the_image_is_built_from_named_files_only():
    """Settings and keys of the folder can't get into it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if not line.startswith("#")]
    assert ignored[0] == "*"
    taken = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for names in copied for name in names.split()} == taken
    assert all((ROOT / name).exists() for name in taken)


def test_every_setting_that_is_named_exists():
    """A misspelt name would be read by nobody."""
    known = {field.name for field in fields(Settings)}
    table = {field.name for field in fields(RefIdTable)}
    files = (
        "deploy/kubernetes.yaml",
        "compose.yaml",
        "Dockerfile",
        "docs/containers.md",
    )
    names = {name for file in files for name in OURS.findall((ROOT / file).read_text())}
    assert len(names) >= 8
    for name in names:
        parent, _, child = name.lower().partition("__")
        assert parent in known
        assert not child or child in table
