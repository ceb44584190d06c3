"""Make the schemas in this folder from their sources, without descriptions: python -m tests.schemas.make CRDS CORE

CRDS is a folder with ray.io_raycronjobs.yaml of KubeRay 1.7.0 (Apache-2.0; its jobTemplate is a RayJob's spec, whose
rayClusterSpec is a RayCluster's). CORE is kubernetes-json-schema/v1.32.0-local-strict of the package
kubernetes-validate (Apache-2.0, made from Kubernetes' own OpenAPI).
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KINDS = (
    "io.k8s.api.batch.v1.CronJob",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.rbac.v1.Role",
    "io.k8s.api.rbac.v1.RoleBinding",
)


def without_descriptions(schema: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this object are fields of a manifest, one of which may be called description."""
    if isinstance(schema, list):
        return [without_descriptions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        return {"$ref": f"#/$defs/{schema['$ref'].rpartition('/')[2]}"}
    return {
        key: without_descriptions(value, names=key in ("properties", "$defs") and not names)
        for key, value in schema.items()
        if names or key not in ("description", "$schema", "x-kubernetes-group-version-kind")
    }


def reachable(definitions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    todo = [*KINDS]
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = definitions[name]
            todo += _references(definitions[name])
    return found


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    here = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
    return here + [name for value in schema.values() for name in _references(value)]


def put(name: str, schema: Any) -> None:
    data = json.dumps(schema, sort_keys=True, separators=(",", ":")).encode()
    (HERE / name).write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    crds, core = map(Path, sys.argv[1:])
    versions = yaml.safe_load((crds / "ray.io_raycronjobs.yaml").read_text())["spec"]["versions"]
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1")
    put("kuberay-1.7.0.json.gz", without_descriptions(schema))
    definitions = json.loads((core / "_definitions.json").read_text())["$defs"]
    put("kubernetes-1.32.json.gz", without_descriptions({"$defs": reachable(definitions)}))
