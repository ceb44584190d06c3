"""The tick inside a pod: the minute in a Job's name, and one request; every answer to it gives one line."""

import io
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path

import pytest

from imgtx.errors import StorageError, UsageError
from jobs.schedule import tick as kubernetes
from jobs.schedule.tick import create_ray_job, due
from tests.support.commands import complaint

SHIPPED = Path(__file__).parents[3] / "jobs" / "specs" / "nightly.toml"
JOB = {"kind": "RayJob", "metadata": {"name": "nightly-20261123", "namespace": "ml"}}
# 2026-11-23 01:30 UTC in minutes.
TICK = "imgtx-sr-x2-29923290"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[urllib.request.Request]:
    """Set up a pod's environment; its requests to the API are collected in this list and answered by 201."""
    asked: list[urllib.request.Request] = []

    def answer(request: urllib.request.Request, **options: object) -> io.BytesIO:
        asked.append(request)
        return io.BytesIO(b"{}")

    (tmp_path / "token").write_text("pod-token\n")
    (tmp_path / "ca.crt").write_text("")
    monkeypatch.setattr(kubernetes, "ACCOUNT", tmp_path)
    monkeypatch.setattr(kubernetes.ssl, "create_default_context", lambda cadata: None)
    monkeypatch.setattr(kubernetes.urllib.request, "urlopen", answer)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    return asked


def answer_with(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(request: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(kubernetes.urllib.request, "urlopen", refuse)


def http_error(code: int, message: str = "") -> urllib.error.HTTPError:
    body = io.BytesIO(json.dumps({"message": message}).encode())
    return urllib.error.HTTPError("https://x", code, "", Message(), body)


def test_a_jobs_name_gives_the_minute_it_was_due():
    assert due(TICK) == datetime(2026, 11, 23, 1, 30, tzinfo=UTC)
    for name in ("imgtx", "imgtx-sr-x2-manual-8xk", "29923290", "imgtx-20261123T0130"):
        with pytest.raises(UsageError, match="expected the name that a CronJob gives"):
            due(name)


def test_a_ray_job_is_created_with_the_pods_token(pod):
    assert create_ray_job(JOB) == "created RayJob nightly-20261123 in ml"
    (request,) = pod
    assert request.full_url == "https://[fd00::1]:6443/apis/ray.io/v1/namespaces/ml/rayjobs"
    assert request.get_method() == "POST"
    assert request.get_header("Authorization") == "Bearer pod-token"
    assert json.loads(request.data) == JOB


def test_a_run_that_was_started_before_is_not_started_again(pod, monkeypatch):
    answer_with(monkeypatch, http_error(409))
    assert (
        create_ray_job(JOB)
        == "RayJob nightly-20261123 exists already: the nightly run of this date was started before"
    )


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            http_error(403, "may\nnot"),
            UsageError,
            "was refused: 403 may not; its service account needs the Role",
        ),
        (http_error(404), UsageError, "install the KubeRay operator"),
        (
            http_error(422, "spec.x"),
            UsageError,
            "422 spec.x; this version of KubeRay does not accept the manifest",
        ),
        (http_error(503), StorageError, "was refused: 503"),
        (urllib.error.URLError("refused"), StorageError, "did not answer (refused)"),
    ],
)
def test_a_refusal_of_the_api_is_one_line(pod, monkeypatch, error, kind, words):
    answer_with(monkeypatch, error)
    with pytest.raises(kind) as caught:
        create_ray_job(JOB)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pod-token" not in str(caught.value)


def test_a_pod_without_its_token_is_reported(pod, tmp_path):
    (tmp_path / "token").unlink()
    with pytest.raises(UsageError, match="automountServiceAccountToken"):
        create_ray_job(JOB)


def test_outside_a_pod_kubectl_is_suggested(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "kubectl apply" in complaint("schedule", str(SHIPPED), "--target", "rayjob", "--job-name", TICK)
