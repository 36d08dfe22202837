"""The files by which schedulers and clusters start us fit their schemas and our command line."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path

import click
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tierscale.cluster.sizing import specs_by_mark
from tierscale.jobs.nightly import command

ROOT = Path(__file__).resolve().parents[2]
KUBE = ROOT / "cluster/deploy/kuberay"
# Any name.
ANY = object()
# Fields of KubeRay's custom resources by the API reference of KubeRay 1.7.0.
CLUSTER = {
    "upgradeStrategy",
    "authOptions",
    "suspend",
    "managedBy",
    "autoscalerOptions",
    "headServiceAnnotations",
    "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions",
    "historyServerOptions",
    "networkPolicy",
    "tlsOptions",
    "headGroupSpec",
    "rayVersion",
    "workerGroupSpecs",
}
GROUP = {
    "suspend",
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "idleTimeoutSeconds",
    "priority",
    "resources",
    "labels",
    "rayStartParams",
    "template",
    "scaleStrategy",
    "numOfHosts",
}
HEAD = {
    "template",
    "headService",
    "enableIngress",
    "resources",
    "labels",
    "rayStartParams",
    "serviceType",
}
JOB = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "rayClusterSpec",
    "submitterPodTemplate",
    "metadata",
    "clusterSelector",
    "submitterConfig",
    "managedBy",
    "deletionStrategy",
    "entrypoint",
    "runtimeEnvYAML",
    "jobId",
    "submissionMode",
    "entrypointResources",
    "entrypointNumCpus",
    "entrypointNumGpus",
    "ttlSecondsAfterFinished",
    "preRunningDeadlineSeconds",
    "shutdownAfterJobFinishes",
    "suspend",
}
# What our pods may hold, at every depth: names and types by V1PodSpec, V1Container and what they
# are made of in Kubernetes' own Python client (kubernetes 37.0.2). It lists what we use, not all
# there is: a new field is looked up there and written down here.
QUANTITY = (str, int)
CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "env": [{"name": str, "value": str}],
    "ports": [{"containerPort": int, "name": str}],
    "resources": {"requests": {ANY: QUANTITY}, "limits": {ANY: QUANTITY}},
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
VOLUME = {
    "name": str,
    "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
    "emptyDir": {"medium": str, "sizeLimit": QUANTITY},
    "configMap": {"name": str},
}
EXPRESSIONS = [{"key": str, "operator": str, "values": [str]}]
WISH = {"weight": int, "preference": {"matchExpressions": EXPRESSIONS}}
POD = {
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [WISH]}},
    "containers": [CONTAINER],
    "restartPolicy": str,
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "fsGroup": int},
    "serviceAccountName": str,
    "terminationGracePeriodSeconds": int,
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "volumes": [VOLUME],
}
CLAIM = {"accessModes": [str], "resources": {"requests": {ANY: QUANTITY}}}
CRON = {
    "schedule",
    "timeZone",
    "concurrencyPolicy",
    "startingDeadlineSeconds",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
    "jobTemplate",
}


def documents(name):
    return list(yaml.safe_load_all((KUBE / name).read_text()))


RAYJOB, RAYCLUSTER = documents("rayjob.yaml")[0], documents("raycluster.yaml")[0]


def fits(value, shape, at="spec"):
    """Fail where a value has a name or a type that its shape has not.

    Kubernetes drops an unknown field without a word.
    """
    if isinstance(shape, dict):
        assert isinstance(value, dict), f"{at} is {value!r}"
        for name, below in value.items():
            assert ANY in shape or name in shape, f"{at} has no field {name}"
            fits(below, shape[ANY] if ANY in shape else shape[name], f"{at}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{at} is {value!r}"
        for number, below in enumerate(value):
            fits(below, shape[0], f"{at}[{number}]")
    else:
        # True is an int to Python, and none to Kubernetes.
        assert type(value) in (shape if isinstance(shape, tuple) else (shape,)), (
            f"{at} is {value!r}"
        )


def pods(found):
    """All pod specs below a value."""
    if isinstance(found, dict):
        if "containers" in found:
            yield found
        for value in found.values():
            yield from pods(value)
    elif isinstance(found, list):
        for value in found:
            yield from pods(value)


def parsed(line):
    """The options of a nightly command line, as our own parser takes them; None: it is none."""
    words = shlex.split(line.replace("\\\n", " "))
    start = next(
        (
            i
            for i, word in enumerate(words)
            if word == "nightly" or word.endswith("jobs/nightly.py")
        ),
        None,
    )
    if start is None:
        return None
    arguments = [word for word in words[start + 1 :] if word not in (">", "/dev/null", "…")]
    return click.Context(command).command.make_context("nightly", arguments).params


def test_ray_accepts_the_cluster_file():
    config = prepare_config(yaml.safe_load((ROOT / "cluster/deploy/ray-cluster.yaml").read_text()))
    validate_config(config)
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0, "the head drives and computes nothing"
    light, full = specs_by_mark(
        [dict(types[name]["resources"]) for name in ("head", "light", "light", "full")],
        "auto",
        "auto",
        None,
    )
    assert (light.size, full.size) == (6, 2) and light.device == full.device == "cuda"
    assert light.size * light.num_gpus <= 2 and full.size * full.num_gpus <= 1
    assert all(
        "RAY_AUTH_MODE=token" in config[f"{kind}_start_ray_commands"][-1]
        for kind in ("head", "worker")
    )


@pytest.mark.parametrize("kinds", [("light",), ("full",), ("light", "full")])
def test_nodes_of_the_cluster_file_are_used_by_their_marks_whichever_are_up(kinds):
    types = yaml.safe_load((ROOT / "cluster/deploy/ray-cluster.yaml").read_text())[
        "available_node_types"
    ]
    pools = specs_by_mark(
        [dict(types[name]["resources"]) for name in ("head", *kinds)], "auto", "auto", None
    )
    assert [pool.mark for pool in pools if pool] == list(kinds)
    for pool in filter(None, pools):
        assert (
            pool.grows
            and pool.device == "cuda"
            and pool.size == types[pool.mark]["resources"][pool.mark]
            and pool.num_cpus == 0
        )


def test_the_custom_resources_have_known_fields_only():
    assert (
        RAYCLUSTER["apiVersion"] == RAYJOB["apiVersion"] == "ray.io/v1"
        and set(RAYJOB["spec"]) <= JOB
    )
    for spec in (RAYCLUSTER["spec"], RAYJOB["spec"]["rayClusterSpec"]):
        assert set(spec) <= CLUSTER and set(spec["headGroupSpec"]) <= HEAD
        assert spec["authOptions"] == {"mode": "token", "secretName": "tierscale-token"}
        for group in spec["workerGroupSpecs"]:
            assert (
                set(group) <= GROUP
                and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            )
            assert (
                json.loads(json.loads(group["rayStartParams"]["resources"]))[group["groupName"]]
                >= 1
            )
        for params in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert all(isinstance(value, str) for value in params["rayStartParams"].values())


def test_a_job_brings_the_cluster_that_can_be_had_alone():
    assert RAYJOB["spec"]["rayClusterSpec"] == RAYCLUSTER["spec"]


def test_pods_are_whole_and_workers_can_be_taken_away():
    everything = [
        document
        for name in ("rayjob.yaml", "raycluster.yaml", "cronjob.yaml")
        for document in documents(name)
    ]
    found = list(pods(everything))
    assert len(found) == 8
    for pod in found:
        fits(pod, POD)
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert ":" in container["image"] and "limits" in container["resources"]
            assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes
            assert not any("TOKEN" in env["name"] for env in container.get("env", ()))
            if "lifecycle" in container:
                waited = int(
                    re.findall(
                        r"(?:sleep|seq) (\d+)",
                        container["lifecycle"]["preStop"]["exec"]["command"][-1],
                    )[0]
                )
                assert 10 <= waited < pod["terminationGracePeriodSeconds"]
    for group in RAYCLUSTER["spec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert (
            pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
            and "preStop" in pod["containers"][0]["lifecycle"]
        )
        assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= {
            toleration["key"] for toleration in pod["tolerations"]
        }


@pytest.mark.parametrize(
    "document", [RAYCLUSTER["spec"], RAYJOB["spec"]["rayClusterSpec"]], ids=["cluster", "job"]
)
def test_the_hook_of_the_head_lets_the_nightly_drain_and_ends_with_it(document):
    """The very text of the hook, with a name that no other process here has in place of "jobs"."""
    container = document["headGroupSpec"]["template"]["spec"]["containers"][0]
    *shell, text = container["lifecycle"]["preStop"]["exec"]["command"]
    assert text.count("obs/nightly.py") == 2
    name = f"o{uuid.uuid4().hex}"
    draining = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.4),"
        " sys.exit(7))); print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{draining}; time.sleep(60)", f"j{name}/nightly.py"],
        stdout=subprocess.PIPE,
    ) as nightly:
        try:
            nightly.stdout.readline()
            began = time.monotonic()
            hook = subprocess.run(
                [*shell, text.replace("obs/nightly.py", f"{name}/nightly.py")], timeout=20
            )
            assert hook.returncode == 0 and 0.4 < time.monotonic() - began < 10
            assert nightly.poll() == 7, "the hook ended before the nightly, or never reached it"
        finally:
            nightly.kill()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"containers": [{"lifecycle": {"preStop": {"exec": {"cmd": ["sleep"]}}}}]},
            r"containers\[0\].lifecycle.preStop.exec has no field cmd",
        ),
        ({"containers": [{"env": [{"name": "TZ", "value": 1}]}]}, r"env\[0\].value is 1"),
        ({"tolerations": {"key": "a"}}, "tolerations is "),
        ({"terminationGracePeriodSeconds": True}, "terminationGracePeriodSeconds is True"),
    ],
)
def test_a_field_that_is_misspelt_deep_in_a_pod_is_found(change, text):
    with pytest.raises(AssertionError, match=text):
        fits({**next(pods(RAYCLUSTER)), **change}, POD)


def test_claims_are_whole():
    claims = documents("volumes.yaml")
    for claim in claims:
        assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
        fits(claim["spec"], CLAIM)
    volumes = [
        volume
        for pod in pods(RAYCLUSTER)
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in volumes} == {
        claim["metadata"]["name"] for claim in claims
    }


def test_the_cron_job_creates_the_ray_job():
    kinds = {document["kind"]: document for document in documents("cronjob.yaml")}
    cron = kinds["CronJob"]["spec"]
    assert (
        kinds["CronJob"]["apiVersion"] == "batch/v1"
        and set(cron) <= CRON
        and cron["concurrencyPolicy"] == "Forbid"
    )
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    assert (
        pod["serviceAccountName"]
        == kinds["ServiceAccount"]["metadata"]["name"]
        == kinds["RoleBinding"]["subjects"][0]["name"]
    )
    assert kinds["Role"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}
    ]
    generator = documents("kustomization.yaml")[0]["configMapGenerator"][0]
    assert pod["volumes"][0]["configMap"]["name"] == generator["name"]
    assert pod["containers"][0]["command"] == [
        "kubectl",
        "create",
        "-f",
        f"/job/{generator['files'][0]}",
    ]
    assert "generateName" in RAYJOB["metadata"], "every night gets a job of its own"


def test_the_night_fits_its_clocks():
    """The window, and time to drain, lie within the job's deadline; both clocks have one zone."""
    options = parsed(RAYJOB["spec"]["entrypoint"])
    cron = next(
        document for document in documents("cronjob.yaml") if document["kind"] == "CronJob"
    )["spec"]
    minute, hour = map(int, cron["schedule"].split()[:2])
    window = ((int(options["until"][:2]) - hour) % 24) * 3600 - minute * 60
    assert window < RAYJOB["spec"]["activeDeadlineSeconds"] < window + 2 * 3600
    head = RAYCLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {"name": "TZ", "value": cron["timeZone"]} in head["env"]
    mounts = {mount["mountPath"] for mount in head["volumeMounts"]}
    assert all(
        any(options[name].startswith(path) for path in mounts)
        for name in ("archive", "output", "ledger")
    )
    assert yaml.safe_load(RAYJOB["spec"]["runtimeEnvYAML"]) == {"working_dir": "/opt/tierscale"}
    assert "WORKDIR /opt/tierscale" in (ROOT / "cluster/deploy/Containerfile").read_text()


def test_the_timer_starts_the_service():
    service, timer = (configparser.ConfigParser(strict=False, interpolation=None) for _ in range(2))
    service.optionxform = timer.optionxform = str
    service.read(ROOT / "cluster/deploy/systemd/tierscale-nightly.service")
    timer.read(ROOT / "cluster/deploy/systemd/tierscale-nightly.timer")
    assert (
        parsed(service["Service"]["ExecStart"])["until"] == "06:00"
        and timer["Timer"]["OnCalendar"] == "*-*-* 22:00:00"
    )
    assert (
        service["Service"]["SuccessExitStatus"] == "75 143"
        and service["Service"]["KillMode"] == "mixed"
    )
    # All of the file system is read-only to the service but what it names; Ray has to write its
    # token into HOME.
    assert service["Service"]["ProtectSystem"] == "strict"
    home = f"HOME=/var/lib/{service['Service']['StateDirectory']}"
    assert (
        service["Service"]["Environment"] == home
        and f"\n{home}\n" in (ROOT / "cluster/deploy/systemd/crontab").read_text()
    )


@pytest.mark.parametrize(
    "name", ["docs/nightly.md", "docs/cluster.md", "cluster/deploy/systemd/crontab"]
)
def test_every_command_that_is_shown_is_one(name):
    lines = [
        line
        for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines()
        if "--archive" in line
    ]
    assert lines and all(parsed(line) for line in lines)


def test_the_image_holds_what_is_installed():
    text = (ROOT / "cluster/deploy/Containerfile").read_text()
    packages = re.search(r"packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text())[1]
    for package in {name.split(".")[0] for name in re.findall(r'"([\w.]+)"', packages)}:
        assert f"COPY {package} {package}" in text
    # The context of the build is what it copies; the code that a job uploads from the image is
    # filtered there too.
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()}
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert (
        rules[0] == "*"
        and {rule[1:] for rule in rules if rule.startswith("!")} == copied
        and ".rayignore" in copied
    )
    assert all((ROOT / name).exists() for name in copied)
    assert "USER ray" in text and "RAY_AUTH_MODE=token" in text
    version = RAYCLUSTER["spec"]["rayVersion"]
    assert (
        f"ray=={version}" in (ROOT / "constraints.txt").read_text()
        and f"ray:{version}-py311" in (ROOT / "cluster/deploy/ray-cluster.yaml").read_text()
    )


def test_every_target_of_the_makefile_is_made_each_time():
    text = (ROOT / "Makefile").read_text()
    assert set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split()) == set(
        re.findall(r"^([a-z-]+):(?! *=)", text, re.M)
    )


DEPLOY = [path for path in sorted((ROOT / "cluster/deploy").rglob("*")) if path.is_file()]


@pytest.mark.parametrize(
    "path",
    [
        *DEPLOY,
        *(ROOT / "docs" / name for name in ("cluster.md", "nightly.md")),
        ROOT / "SECURITY.md",
    ],
    ids=lambda path: path.name,
)
def test_every_file_of_ours_that_is_named_exists(path):
    named = re.findall(r"(?<![\w/])(?:cluster|jobs|docs)/[\w./-]*\w\.\w+", path.read_text())
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_kustomize_names_files_beside_it():
    file = documents("kustomization.yaml")[0]
    names = [*file["resources"], *file["configMapGenerator"][0]["files"]]
    assert all((KUBE / name).is_file() for name in names)


def test_a_job_in_a_pod_runs_a_file_of_the_image():
    words = shlex.split(RAYJOB["spec"]["entrypoint"])
    text = (ROOT / "cluster/deploy/Containerfile").read_text()
    file = next(word for word in words if word.endswith(".py"))
    assert (ROOT / file).is_file() and f"COPY {file.split('/')[0]} " in text


def test_the_links_of_the_package_lead_to_what_the_image_copies():
    text = (ROOT / "cluster/deploy/Containerfile").read_text()
    links = [path for path in (ROOT / "tierscale").iterdir() if path.is_symlink()]
    assert len(links) == 4 and all(not os.path.isabs(os.readlink(path)) for path in links)
    assert all(f"COPY {path.name} {path.name}\n" in text for path in links)
