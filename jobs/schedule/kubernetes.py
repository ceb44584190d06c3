"""Kubernetes objects for a nightly spec: a CronJob that creates RayJobs, a RayJob, or KubeRay's own RayCronJob.

    cronjob      a CronJob whose pod creates the RayJob of the date, a Role that allows it, the spec as a ConfigMap
    rayjob       the RayJob of one date, and the ConfigMap
    raycronjob   KubeRay's own kind, behind a feature gate of its operator, and the ConfigMap

A date has one nightly run, however often the schedule fires: the RayJob is named after the date, so a second one cannot
be created, and `imgtx nightly` itself holds a lease per date and does not repeat a finished one.
"""

from datetime import date
from importlib.metadata import version
from typing import Any

import yaml

from imgtx.errors import UsageError
from imgtx.settings import to_toml
from jobs.nightly.schedule import DEFAULT_SECRET, Schedule
from jobs.nightly.spec import NightlySpec
from pipeline.storage.store import open_store

Manifest = dict[str, Any]

TARGETS = ("cronjob", "rayjob", "raycronjob")
SPEC_FOLDER, SPEC_FILE = "/etc/imgtx", "nightly.toml"
KEPT_SECONDS = 7 * 24 * 3600
# How long a worker that is being removed has to finish the work it holds.
DRAIN_SECONDS = 90
# The name of the Job that this pod belongs to: Kubernetes ends it with the minute at which the Job was due.
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


def manifests(spec: NightlySpec, target: str, day: date) -> list[Manifest]:
    """Return the Kubernetes objects of a target, in the order to apply them.

    day: the date of the nightly run, for the target rayjob.
    """
    schedule = spec.when
    _check_reachable(spec)
    objects = [_config_map(spec, schedule)]
    if target == "cronjob":
        return [*_starter_rights(schedule), *objects, _cron_job(schedule)]
    if target == "raycronjob":
        return [*objects, _ray_cron_job(spec, schedule)]
    return [*objects, ray_job(spec, day)]


def to_yaml(objects: list[Manifest]) -> str:
    """Return the objects as YAML documents."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120, explicit_start=True)


def ray_job(spec: NightlySpec, day: date) -> Manifest:
    """Return the RayJob of one date; its name is that of the date, so Kubernetes creates it only once."""
    schedule = spec.when
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(schedule, f"{schedule.name}-{day:%Y%m%d}"),
        "spec": _ray_job_spec(spec, schedule, f" --date {day}"),
    }


def _ray_cron_job(spec: NightlySpec, schedule: Schedule) -> Manifest:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": _metadata(schedule),
        "spec": {
            "schedule": schedule.cron,
            "timeZone": schedule.time_zone,
            # Without --date: the date is that on which the run starts.
            "jobTemplate": _ray_job_spec(spec, schedule, ""),
        },
    }


def _ray_job_spec(spec: NightlySpec, schedule: Schedule, date_option: str) -> Manifest:
    joined = " --set upscale.address=auto" if spec.upscale else ""
    return {
        "entrypoint": f"imgtx nightly {SPEC_FOLDER}/{SPEC_FILE}{date_option}{joined}",
        "submissionMode": schedule.submission_mode,
        # Each retry gets a new cluster and continues from the state of the date.
        "backoffLimit": schedule.retries,
        "activeDeadlineSeconds": _seconds(schedule.max_hours),
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
            # The head trains, so Ray places no tasks on it.
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
        optional = {"optional": True} if schedule.secret == DEFAULT_SECRET else {}
        container["envFrom"] = [{"secretRef": {"name": schedule.secret} | optional}]
    return container


def _cron_job(schedule: Schedule) -> Manifest:
    starter = _container(schedule, "starter", schedule.image, {"cpu": "500m", "memory": "512Mi"})
    # It creates a RayJob and reads no storage.
    starter.pop("envFrom", None)
    command = f"imgtx schedule {SPEC_FOLDER}/{SPEC_FILE} --target rayjob --job-name $(JOB_NAME)"
    starter |= {"command": command.split(), "env": [JOB_NAME]}
    pod = {
        "restartPolicy": "OnFailure",
        "serviceAccountName": _starter(schedule),
        "securityContext": USER,
        "containers": [starter],
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


def _starter_rights(schedule: Schedule) -> list[Manifest]:
    """Return the account of the CronJob's pods, which may create RayJobs and nothing else.

    The pods of the RayJobs run under `service_account`.
    """
    name, group = _starter(schedule), "rbac.authorization.k8s.io"
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
        # The values of the spec, without the comments of its file.
        "data": {SPEC_FILE: to_toml(spec.to_dict())},
    }


def _starter(schedule: Schedule) -> str:
    return f"{schedule.name}-starter"


def _volume(schedule: Schedule) -> Manifest:
    return {"name": "spec", "configMap": {"name": schedule.name}}


def _metadata(schedule: Schedule, name: str = "") -> Manifest:
    return {"name": name or schedule.name, "namespace": schedule.namespace, "labels": _labels(schedule)}


def _labels(schedule: Schedule) -> dict[str, str]:
    return {"app.kubernetes.io/name": "imgtx", "app.kubernetes.io/instance": schedule.name}


def _seconds(hours: float) -> int:
    return max(1, round(hours * 3600))


def _check_reachable(spec: NightlySpec) -> None:
    """Raise UsageError for a folder of this machine, which pods do not see."""
    places = {"archive": spec.archive, "model": spec.model, "state": spec.state, "valid": spec.valid}
    places |= {f"datasets[{number}]": uri for number, uri in enumerate(spec.datasets)}
    places |= {f"upscale.{n}": spec.upscale[n] for n in ("source", "destination") if spec.upscale.get(n)}
    for name, uri in places.items():
        if open_store(uri, endpoint_url=spec.endpoint_url).is_local:
            raise UsageError(
                f"{name} = {uri!r} is a folder of this machine, which pods do not see: give s3:// or another URI, or "
                "use --target systemd"
            )


class _Dumper(yaml.SafeDumper):
    """A dumper for readable YAML: text of several lines as a block, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
