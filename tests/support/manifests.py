"""Check Kubernetes manifests by what clusters require: the schemas of the API server, the checks that KubeRay
makes beyond its schema, and the command lines.

Offline, and as the API server does it: nulls are dropped, unknown fields are refused, quantities and ports may be
numbers or text. The schemas are vendored in tests/schemas.
"""

import gzip
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import click
import jsonschema
import yaml

from jobs.cli import main
from jobs.nightly.schedule import SUBMISSION_MODES
from tests.support.source_tree import ROOT

Manifest = dict[str, Any]

CORE = {
    ("batch/v1", "CronJob"): "io.k8s.api.batch.v1.CronJob",
    ("v1", "ConfigMap"): "io.k8s.api.core.v1.ConfigMap",
    ("v1", "Namespace"): "io.k8s.api.core.v1.Namespace",
    ("v1", "ServiceAccount"): "io.k8s.api.core.v1.ServiceAccount",
    ("rbac.authorization.k8s.io/v1", "Role"): "io.k8s.api.rbac.v1.Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "io.k8s.api.rbac.v1.RoleBinding",
}
# The longest name of a RayJob: KubeRay appends to it (MaxRayJobNameLength).
LONGEST = {"RayJob": 47, "RayCronJob": 36, "CronJob": 52, "RayCluster": 53}


def read(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def problems(manifest: Manifest) -> list[str]:
    """Return what a cluster would refuse in the manifest, or what could not work there."""
    return [*_of_schema(manifest), *_of_names(manifest), *_of_ray(manifest), *_of_commands(manifest)]


def _of_schema(manifest: Manifest) -> Iterator[str]:
    kind = (manifest.get("apiVersion"), manifest.get("kind"))
    core = schemas("kubernetes-1.32")["$defs"]
    if kind in CORE:
        schema = {"$ref": f"#/$defs/{CORE[kind]}", "$defs": core}
    elif kind in ray_schemas():
        schema = ray_schemas()[kind]
        meta = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "$defs": core}
        yield from _errors(manifest.get("metadata"), meta)
    else:
        yield f"no schema is vendored for {kind}"
        return
    yield from _errors(_without_nulls(manifest), schema)


def _errors(value: Any, schema: Manifest) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(value):
        yield f"{error.json_path}: {error.message[:200]}"


@cache
def schemas(name: str) -> Manifest:
    return json.loads(gzip.decompress((ROOT / f"tests/schemas/{name}.json.gz").read_bytes()))


@cache
def ray_schemas() -> dict[tuple[str, str], Manifest]:
    """Return the schemas of KubeRay's three nested kinds."""
    whole = _strict(schemas("kuberay-1.7.0"))
    cron = whole["properties"]["spec"]
    job = cron["properties"]["jobTemplate"]
    specs = {"RayCronJob": cron, "RayJob": job, "RayCluster": job["properties"]["rayClusterSpec"]}
    return {
        ("ray.io/v1", kind): whole
        | {"properties": whole["properties"] | {"spec": spec}, "required": ["spec"]}
        for kind, spec in specs.items()
    }


def _strict(schema: Any) -> Any:
    """Convert OpenAPI as the API server reads it: other fields are unknown, and int-or-string allows both."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        key: {n: _strict(s) for n, s in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
    }
    open_ended = "additionalProperties" in strict or strict.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in strict and not open_ended:
        strict["additionalProperties"] = False
    if strict.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    return strict


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _of_names(manifest: Manifest) -> Iterator[str]:
    name, longest = manifest["metadata"]["name"], LONGEST.get(manifest["kind"], 253)
    if len(name) > longest:
        yield f"the name {name!r} is longer than {longest}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"the name {name!r} is no DNS label that begins with a letter"


def _of_ray(manifest: Manifest) -> Iterator[str]:
    spec, kind = manifest.get("spec", {}), manifest["kind"]
    if kind in ("CronJob", "RayCronJob"):
        day = "(sun|mon|tue|wed|thu|fri|sat)"
        if not re.fullmatch(rf"[1-5]?\d (1?\d|2[0-3]) \* \* (\*|{day}(,{day})*)", spec["schedule"]):
            yield f"the schedule {spec['schedule']!r} is not a time of day"
    job = spec.get("jobTemplate", {}) if kind == "RayCronJob" else spec
    if kind in ("RayJob", "RayCronJob"):
        if job.get("submissionMode", "K8sJobMode") not in SUBMISSION_MODES:
            yield f"submissionMode is {job['submissionMode']}"
        if ("rayClusterSpec" in job) == ("clusterSelector" in job):
            yield "one of rayClusterSpec and clusterSelector must be there"
        if job.get("backoffLimit", 0) and "clusterSelector" in job:
            yield "backoffLimit goes with a cluster of its own only"
    cluster = spec if kind == "RayCluster" else job.get("rayClusterSpec", {})
    groups = cluster.get("workerGroupSpecs", [])
    if len({group["groupName"] for group in groups}) < len(groups):
        yield "two worker groups have one name"
    for group in groups:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{group['groupName']}: minReplicas <= replicas <= maxReplicas does not hold"


def _of_commands(manifest: Manifest) -> Iterator[str]:
    for words in commands(manifest):
        if wrong := misread(words):
            yield f"{shlex.join(words)}: {wrong}"


def commands(value: Any) -> Iterator[list[str]]:
    """Return every imgtx command line in a manifest: entrypoints, and containers' commands and arguments."""
    if isinstance(value, dict):
        lines = [shlex.split(value["entrypoint"])] if isinstance(value.get("entrypoint"), str) else []
        if isinstance(value.get("command"), list):
            lines.append([*value["command"], *value.get("args", [])])
        yield from (words for words in lines if words[:1] == ["imgtx"])
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from commands(item)


def misread(words: list[str]) -> str:
    """Return click's error for the command line `imgtx ...`, which is parsed and not run; "" if it is valid."""
    command: click.Command = main
    arguments = words[1:]
    try:
        while isinstance(command, click.Group):
            context = command.make_context("imgtx", list(arguments), **main.context_settings)
            _, found, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found
            command = found
        command.make_context("imgtx", list(arguments), **main.context_settings)
    except click.exceptions.Exit:
        return "asks for help only"
    except click.ClickException as error:
        return error.format_message()
    return ""


def check_time_to_go(cluster: Manifest) -> None:
    """Assert that Kubernetes gives a terminating worker more time than Ray takes to drain it."""
    import ray

    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        ((variable,),) = (container["env"] for container in pod["containers"])
        # The pinned release knows it.
        assert hasattr(ray._private.ray_constants, variable["name"])
        assert 0 < int(variable["value"]) < pod["terminationGracePeriodSeconds"]
