"""A nightly spec as objects for Kubernetes: CronJob and RayJob, or KubeRay's own RayCronJob.

    cronjob      a CronJob whose pod makes the night's RayJob, a Role that lets it, the spec as a ConfigMap
    rayjob       one night's RayJob and the ConfigMap
    raycronjob   KubeRay's own, behind a feature gate of its operator, and the ConfigMap

However often a schedule ticks, a date has one night: the RayJob is called after the date, so a second tick finds it
there, and `imgtx nightly` itself holds a lease for each date and leaves a finished one alone.
"""

from datetime import date
from importlib.metadata import version
from typing import Any

import yaml

from imgtx.errors import UsageError
from imgtx.settings import to_toml
from jobs.nightly.schedule import Schedule
from jobs.nightly.spec import NightlySpec
from pipeline.storage.store import open_store

Manifest = dict[str, Any]

TARGETS = ("cronjob", "rayjob", "raycronjob")
SPEC_FOLDER, SPEC_FILE = "/etc/imgtx", "nightly.toml"
KEPT_SECONDS = 7 * 24 * 3600
DRAIN_SECONDS = 90  # that a worker which is told to go has to end what it has in hand
# Which pod of the CronJob this is: Kubernetes writes the minute that a Job was due at the end of its name.
JOB_NAME = {
    "name": "JOB_NAME",
    "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}},
}
LOCKED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
USER = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def manifests(spec: NightlySpec, target: str, night: date) -> list[Manifest]:
    """The Kubernetes objects of a target, in the order to apply them; `night` is for the target rayjob."""
    schedule = spec.when
    _check_reachable(spec)
    objects = [_config_map(spec, schedule)]
    if target == "cronjob":
        return [*_ticking_rights(schedule), *objects, _cron_job(schedule)]
    if target == "raycronjob":
        return [*objects, _ray_cron_job(spec, schedule)]
    return [*objects, ray_job(spec, night)]


def to_yaml(objects: list[Manifest]) -> str:
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=True)


def ray_job(spec: NightlySpec, night: date) -> Manifest:
    """The RayJob of one night; made twice it is the same object, which Kubernetes refuses to make again."""
    schedule = spec.when
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(schedule, f"{schedule.name}-{night:%Y%m%d}"),
        "spec": _ray_job_spec(spec, schedule, f" --date {night}"),
    }


def _ray_cron_job(spec: NightlySpec, schedule: Schedule) -> Manifest:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": _metadata(schedule),
        "spec": {
            "schedule": schedule.cron,
            "timeZone": schedule.time_zone,
            "jobTemplate": _ray_job_spec(spec, schedule, ""),  # the night's date is that of its first minute
        },
    }


def _ray_job_spec(spec: NightlySpec, schedule: Schedule, date_option: str) -> Manifest:
    joined = " --set upscale.address=auto" if spec.upscale else ""
    return {
        "entrypoint": f"imgtx nightly {SPEC_FOLDER}/{SPEC_FILE}{date_option}{joined}",
        "submissionMode": schedule.submission_mode,
        "backoffLimit": schedule.retries,  # each on a new cluster: what a night has done lies in its state
        "activeDeadlineSeconds": _seconds(schedule.most_hours),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "rayClusterSpec": _cluster(schedule),
    }


def _cluster(schedule: Schedule) -> Manifest:
    groups = [("cpu", schedule.workers, schedule.worker_cpus, schedule.worker_memory, 0)]
    if schedule.gpu_workers[1]:
        size = (schedule.gpu_worker_cpus, schedule.gpu_worker_memory, schedule.gpus)
        groups.append(("gpu", schedule.gpu_workers, *size))
    head = _pod(schedule, "ray-head", schedule.head_cpus, schedule.head_memory, schedule.head_gpus)
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": 300, "securityContext": LOCKED},
        "headGroupSpec": {
            # the head trains, Ray's tasks stay off it
            "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
            "template": head,
        },
        "workerGroupSpecs": [
            {
                "groupName": name,
                "replicas": nodes[0],
                "minReplicas": nodes[0],
                "maxReplicas": nodes[1],
                "rayStartParams": {},
                "template": _pod(schedule, "ray-worker", cpus, memory, gpus),
            }
            for name, nodes, cpus, memory, gpus in groups
            if nodes[1]
        ],
    }


def _pod(schedule: Schedule, name: str, cpus: int, memory: int, gpus: int) -> Manifest:
    size: Manifest = {"cpu": str(cpus), "memory": f"{memory}Gi"}
    if gpus:
        size["nvidia.com/gpu"] = str(gpus)
    container = _container(schedule, name, schedule.gpu_image if gpus else schedule.image, size)
    if name == "ray-head":
        ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
        container["ports"] = [{"name": port, "containerPort": number} for port, number in ports.items()]
    spec: Manifest = {
        "serviceAccountName": schedule.service_account,
        "securityContext": USER,
        "containers": [container],
    }
    if schedule.submission_mode == "SidecarMode" and name == "ray-head":
        spec["restartPolicy"] = "Never"
    if name == "ray-worker":
        spec["terminationGracePeriodSeconds"] = DRAIN_SECONDS + 30
        container["env"] = [{"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(DRAIN_SECONDS)}]
    return {"metadata": {"labels": _labels(schedule)}, "spec": spec | {"volumes": [_volume(schedule)]}}


def _container(schedule: Schedule, name: str, image: str, size: Manifest) -> Manifest:
    container: Manifest = {
        "name": name,
        "image": image,
        "resources": {"requests": size, "limits": size},
        "securityContext": LOCKED,
        "volumeMounts": [{"name": "spec", "mountPath": SPEC_FOLDER, "readOnly": True}],
    }
    if schedule.secret:
        container["envFrom"] = [{"secretRef": {"name": schedule.secret}}]
    return container


def _cron_job(schedule: Schedule) -> Manifest:
    tick = _container(schedule, "tick", schedule.image, {"cpu": "500m", "memory": "512Mi"})
    tick.pop("envFrom", None)  # it makes a RayJob and touches no storage
    command = f"imgtx schedule {SPEC_FOLDER}/{SPEC_FILE} --target rayjob --job-name $(JOB_NAME)"
    tick |= {"command": command.split(), "env": [JOB_NAME]}
    pod = {
        "restartPolicy": "OnFailure",
        "serviceAccountName": _ticker(schedule),
        "securityContext": USER,
        "containers": [tick],
        "volumes": [_volume(schedule)],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(schedule),
        "spec": {
            "schedule": schedule.cron,
            "timeZone": schedule.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": _seconds(schedule.late_hours),
            "successfulJobsHistoryLimit": 7,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 6,
                    "activeDeadlineSeconds": 1800,
                    "ttlSecondsAfterFinished": KEPT_SECONDS,
                    "template": {"metadata": {"labels": _labels(schedule)}, "spec": pod},
                }
            },
        },
    }


def _ticking_rights(schedule: Schedule) -> list[Manifest]:
    """The tick's own account: it may make RayJobs, and nothing else; those of the nights are `service_account`'s."""
    name, group = _ticker(schedule), "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": name, "namespace": schedule.namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(schedule, name)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": _metadata(schedule, name),
            "rules": [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": _metadata(schedule, name),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [account],
        },
    ]


def _config_map(spec: NightlySpec, schedule: Schedule) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(schedule),
        "data": {SPEC_FILE: to_toml(spec.to_dict())},  # what was read, without the file's comments
    }


def _ticker(schedule: Schedule) -> str:
    return f"{schedule.name}-tick"


def _volume(schedule: Schedule) -> Manifest:
    return {"name": "spec", "configMap": {"name": schedule.name}}


def _metadata(schedule: Schedule, name: str = "") -> Manifest:
    return {"name": name or schedule.name, "namespace": schedule.namespace, "labels": _labels(schedule)}


def _labels(schedule: Schedule) -> dict[str, str]:
    return {"app.kubernetes.io/name": "imgtx", "app.kubernetes.io/instance": schedule.name}


def _seconds(hours: float) -> int:
    return max(1, round(hours * 3600))


def _check_reachable(spec: NightlySpec) -> None:
    """A pod has a disk of its own: a folder of this machine is not there."""
    places = {"archive": spec.archive, "model": spec.model, "state": spec.state, "valid": spec.valid}
    places |= {f"datasets[{number}]": uri for number, uri in enumerate(spec.datasets)}
    places |= {f"upscale.{n}": spec.upscale[n] for n in ("source", "destination") if spec.upscale.get(n)}
    for name, uri in places.items():
        if open_store(uri, endpoint_url=spec.endpoint_url).is_local:
            raise UsageError(
                f"{name} = {uri!r} is a folder of this machine, which pods do not see: give s3:// or another URI, or "
                "--target systemd"
            )


class _Dumper(yaml.SafeDumper):
    """Text of several lines as such, and no anchors: people read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
