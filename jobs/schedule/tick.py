"""Create a RayJob once, with one call to the Kubernetes API from inside a pod.

Done with urllib: the official client would be a large dependency of every pod for a single POST.
"""

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

# Where Kubernetes puts the token and certificate of a pod's service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 30


def due(job: str) -> datetime:
    """Return when a CronJob's Job was due: its name ends with that minute, counted since the epoch."""
    found = re.fullmatch(r".+-(\d{7,9})", job)
    if not found:
        raise UsageError(
            f"--job-name {job}: expected the name that a CronJob gives to its Jobs, such as nightly-29531234; to start "
            "a nightly run by hand use --date"
        )
    return datetime.fromtimestamp(int(found[1]) * 60, UTC)


def create_ray_job(manifest: dict[str, Any]) -> str:
    """Create the object, unless it exists; return the outcome in one line.

    Raises UsageError outside a pod and for mistakes that the user can correct, StorageError if a later try may succeed.
    """
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    if not host:
        raise UsageError(
            "--job-name works only in the pods of the CronJob; elsewhere omit it and pipe the manifest into kubectl "
            "apply -f -"
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
            return f"RayJob {name} exists already: the nightly run of this date was started before"
        raise _refused(name, namespace, error) from error
    # URLError is an OSError.
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise StorageError(
            "storage", f"the Kubernetes API did not answer ({reason})", transient=True
        ) from error
    return f"created RayJob {name} in {namespace}"


def _read(name: str) -> str:
    try:
        return (ACCOUNT / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"this pod has no {ACCOUNT / name} ({error.strerror}): its service account needs "
            "automountServiceAccountToken"
        ) from error


def _refused(name: str, namespace: str, error: urllib.error.HTTPError) -> UsageError | StorageError:
    try:
        said = json.loads(error.read()).get("message", "")
    except (ValueError, AttributeError, OSError):
        said = ""
    refusal = (
        f"RayJob {name} in {namespace} was refused: {error.code} {' '.join(str(said).split())[:300]}".rstrip()
    )
    remedies = {
        401: "the API does not accept the pod's token; check its service account",
        403: "its service account needs the Role that imgtx schedule --target cronjob prints",
        404: "this cluster has no RayJob kind: install the KubeRay operator",
        422: "this version of KubeRay does not accept the manifest",
    }
    if error.code in remedies:
        return UsageError(f"{refusal}; {remedies[error.code]}")
    return StorageError("storage", refusal, transient=error.code >= 500 or error.code == 429)
