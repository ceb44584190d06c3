"""One call to the Kubernetes API from inside a pod: make a RayJob, once."""

import json
import os
import re
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgtx.errors import StorageError, UsageError

# What Kubernetes gives to every pod of a service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 30


def due(job: str) -> datetime:
    """When the CronJob's Job of this name was due: Kubernetes ends it in that minute, counted since the epoch."""
    found = re.fullmatch(r".+-(\d{7,9})", job)
    if not found:
        raise UsageError(
            f"--job-name {job}: no name that a CronJob gives to its Jobs, such as nightly-29531234; to begin a night by "
            "hand use --date"
        )
    return datetime.fromtimestamp(int(found[1]) * 60, UTC)


def create_ray_job(manifest: dict[str, Any]) -> str:
    """Make the object; returns what came of it in one line. That it is there already is fine.

    Raises UsageError outside a pod and for what a person can mend, StorageError where a later try may succeed.
    """
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    if not host:
        raise UsageError(
            "--job-name is for the pods of the CronJob; elsewhere pipe the manifest into kubectl apply -f - without it"
        )
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{port or 443}/apis/ray.io/v1/namespaces/{namespace}/rayjobs",
        json.dumps(manifest).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {_read('token').strip()}"},
        method="POST",
    )
    trusted = ssl.create_default_context(cadata=_read("ca.crt"))
    try:
        urllib.request.urlopen(request, timeout=SECONDS, context=trusted).close()
    except urllib.error.HTTPError as error:
        if error.code == 409:
            return f"RayJob {name} is there already: this night was begun before"
        raise _refused(name, namespace, error) from error
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", error)
        raise StorageError(
            "storage", f"the Kubernetes API did not answer ({reason})", transient=True
        ) from error
    return f"RayJob {name} is made in {namespace}"


def _read(name: str) -> str:
    try:
        return (ACCOUNT / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"this pod has no {ACCOUNT / name} ({error.strerror}): its account needs automountServiceAccountToken"
        ) from error


def _refused(name: str, namespace: str, error: urllib.error.HTTPError) -> UsageError | StorageError:
    try:
        said = json.loads(error.read()).get("message", "")
    except (ValueError, AttributeError, OSError):
        said = ""
    told = (
        f"RayJob {name} in {namespace} was refused: {error.code} {' '.join(str(said).split())[:300]}".rstrip()
    )
    remedies = {
        401: "the pod's token is not taken; see its service account",
        403: "its service account needs the Role that imgtx schedule --target cronjob prints",
        404: "this cluster knows no RayJob: install the KubeRay operator",
        422: "the manifest is not what this KubeRay takes",
    }
    if error.code in remedies:
        return UsageError(f"{told}; {remedies[error.code]}")
    return StorageError("storage", told, transient=error.code >= 500 or error.code == 429)
