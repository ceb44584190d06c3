"""Which job a submission is, what it gets from this machine, and how its end is read. The head is a fake."""

import zipfile
from dataclasses import dataclass, field
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from imgtx.errors import ClusterError, ImgtxError, UsageError
from jobs.cli import main
from jobs.submit.command import check_command
from jobs.submit.head import Head, HeadGoneError, JobInfo, _first, _headers, connect
from jobs.submit.submission import (
    PINNED,
    Submission,
    begin,
    exit_code,
    failure_reason,
    given,
    make_submission,
    runtime_environment,
)
from pipeline.cluster.environment import forwarded

DAY = date(2026, 11, 23)


@dataclass
class FakeClient:
    """Ray's client as far as `Head` uses it; jobs are stored by their id."""

    jobs: dict[str, SimpleNamespace] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    # Another user submits a moment earlier.
    racing: bool = False
    # Requests before the agent has started.
    starting: int = 0

    def get_job_info(self, job: str) -> SimpleNamespace:
        if job not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")
        return self.jobs[job]

    def list_jobs(self) -> list[SimpleNamespace]:
        return [*self.jobs.values(), SimpleNamespace(submission_id=None)]

    def submit_job(self, **request: Any) -> None:
        job = request["submission_id"]
        if self.starting:
            self.starting -= 1
            raise RuntimeError("Request failed with status code 500: No available agent to submit job.")
        taken = job in self.jobs
        self.put(job, "RUNNING")
        if taken or self.racing:
            raise RuntimeError(f"Request failed: Job with submission_id {job} already exists.")
        assert zipfile.is_zipfile(request["runtime_env"]["working_dir"])
        self.requests.append(request)

    def put(self, job: str, status: str, code: int | None = None, message: str = "") -> None:
        self.jobs[job] = SimpleNamespace(
            submission_id=job, status=status, driver_exit_code=code, entrypoint="e", message=message,
            start_time=1000 + len(self.jobs), end_time=None,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def small_code(tmp_path, monkeypatch):
    """Package only a lock: this clone's package has 14 MB."""
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    monkeypatch.setattr("jobs.submit.submission.CODE", tmp_path)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def head(client: FakeClient) -> Head:
    return Head("http://head:8265", client)


def submission(**changes: Any) -> Submission:
    command = check_command(("upscale", "s3://in/", "s3://out/"), main)
    return make_submission(command, DAY, **({"name": None, "packages": PINNED, "variables": ()} | changes))


def begun(head: Head, **changes: Any) -> tuple[str, list[str]]:
    said: list[str] = []
    return begin(head, submission(**changes), said.append).id, said


def test_submitting_twice_starts_one_job(head, client):
    first, said = begun(head)
    assert said == [f"submitted {first} to http://head:8265"]
    assert begun(head)[0] == first
    client.put(first, "SUCCEEDED", 0)
    again, said = begun(head)
    assert again == first
    assert "succeeded: starting nothing" in said[0]
    assert len(client.requests) == 1


def test_a_head_without_an_agent_is_asked_again(head, client, monkeypatch):
    monkeypatch.setattr("jobs.submit.head.AGENT_PAUSE", 0.0)
    client.starting = 3
    begun(head)
    assert len(client.requests) == 1
    monkeypatch.setattr("jobs.submit.head.AGENT_SECONDS", 0.0)
    client.starting = 3
    client.jobs.clear()
    with pytest.raises(ImgtxError, match=r"refused: .*No available agent"):
        begun(head)


@pytest.mark.parametrize(
    ("status", "code", "how"), [("FAILED", 3, "exit code 3"), ("STOPPED", None, "was stopped")]
)
def test_a_failed_job_is_submitted_again_with_the_next_number(head, client, status, code, how):
    first, _ = begun(head)
    client.put(first, status, code)
    second, said = begun(head)
    assert (second, how in said[0]) == (f"{first}-2", True)
    client.put(second, status, code)
    assert begun(head)[0] == f"{first}-3"
    assert begun(head)[0] == f"{first}-3"
    assert len(client.requests) == 3


def test_the_loser_of_a_race_follows_the_winning_job(head, client):
    client.racing = True
    job, said = begun(head, name="nightly")
    assert job == "nightly"
    assert "following it" in said[0]
    assert client.requests == []


def test_a_request_contains_no_secret(head, client, monkeypatch):
    planted = {
        "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_SESSION_TOKEN": "planted-session",
        "RAY_AUTH_TOKEN": "planted-token",
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_REGION": "eu-central-1",
        "PATH_TO_MINE": "mine",
    }
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    begun(head, variables=("AWS_PROFILE=archive", "AWS_WEB_IDENTITY_TOKEN_FILE=/var/token"))
    (request,) = client.requests
    text = repr(request)
    assert "planted" not in text.lower()
    environment = request["runtime_env"]["env_vars"]
    assert environment["AWS_ENDPOINT_URL"] == "http://store:9000"
    assert environment["AWS_PROFILE"] == "archive"
    assert "PATH_TO_MINE" not in environment
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_packages_are_pinned_or_left_to_the_image():
    assert runtime_environment(submission(), "x.zip")["pip"]["packages"][-1].startswith("-c ")
    assert "pip" not in runtime_environment(submission(packages="image"), "x.zip")


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "MY_API_KEY"])
def test_a_variable_named_like_a_secret_is_refused(name):
    with pytest.raises(UsageError, match="looks like a secret") as error:
        given((f"{name}=planted",))
    assert "planted" not in str(error.value)


def test_a_variable_has_a_name_and_a_value():
    with pytest.raises(UsageError, match="give NAME=VALUE"):
        given(("AWS_PROFILE",))


def test_an_endpoint_with_credentials_is_not_forwarded():
    with pytest.raises(UsageError, match="without credentials"):
        forwarded({"AWS_ENDPOINT_URL": "http://user:pass@store:9000"})


def test_a_loopback_endpoint_is_reported(head):
    _, said = begun(head, variables=("AWS_ENDPOINT_URL=http://localhost:9000",))
    assert "refers to each machine of the cluster itself" in said[0]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 101])
def test_an_invalid_name_is_refused(name):
    with pytest.raises(UsageError, match="--id"):
        submission(name=name)


def ended(status: str, code: int | None = None, message: str = "", cause: str = "") -> JobInfo:
    return JobInfo("j", status, code, "e", message, 0.0, 0.0, cause)


@pytest.mark.parametrize(
    ("job", "code", "reason"),
    [
        (ended("SUCCEEDED", 0), 0, ""),
        (ended("FAILED", 3), 3, ""),
        (ended("FAILED", 2), 2, ""),
        (ended("FAILED", 130), 130, ""),
        (ended("STOPPED"), 130, ""),
        (ended("FAILED", -9), 137, "killed by signal 9"),
        (ended("FAILED", 127), 127, "no `python` with Ray on its PATH"),
        (ended("FAILED", 1, "ModuleNotFoundError: No module named ray"), 1, "no `python` with Ray"),
        (ended("FAILED", None, "Failed to set up runtime environment.\npip said no"), 4, "pip said no"),
        (
            ended("FAILED", None, "The actor died", "JobErrorType.JOB_SUPERVISOR_ACTOR_DIED"),
            3,
            "was lost with the process or machine",
        ),
        (ended("FAILED", None, "no room", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"), 4, "did not start: no room"),
    ],
)
def test_the_exit_code_is_that_of_the_run(job, code, reason):
    assert exit_code(job) == code
    assert reason in failure_reason(job)
    assert bool(reason) == bool(failure_reason(job))


class Tail:
    """A client whose log comes in pieces, with interruptions."""

    def __init__(self, *answers: list[str] | Exception, status: str = "SUCCEEDED"):
        self.answers, self.status = list(answers), status

    async def tail_job_logs(self, job: str):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        for piece in answer:
            yield piece

    def get_job_info(self, job: str) -> SimpleNamespace:
        return SimpleNamespace(
            submission_id=job, status="RUNNING" if self.answers else self.status, driver_exit_code=0,
            entrypoint="e", message="", start_time=1, end_time=2,
        )  # fmt: skip


def test_an_interrupted_log_is_continued_where_it_stopped(monkeypatch):
    monkeypatch.setattr("jobs.submit.head.POLL_SECONDS", 0.0)
    shown: list[str] = []
    client = Tail(["one\n", "tw"], RuntimeError("closed"), ["one\ntwo\n"], ["one\n", "two\n", "three\n"])
    job = Head("http://head:8265", client).follow("j", shown.append)
    assert "".join(shown) == "one\ntwo\nthree\n"
    assert job.status == "SUCCEEDED"


def test_a_head_that_does_not_answer_is_reported_as_lost(monkeypatch):
    monkeypatch.setattr("jobs.submit.head.POLL_SECONDS", 0.0)
    monkeypatch.setattr("jobs.submit.head.RECONNECT_SECONDS", 0.0)
    client = Tail(*[ConnectionError("refused")] * 3)
    with pytest.raises(HeadGoneError, match="has not answered"):
        Head("http://head:8265", client).follow("j", print)


def test_a_lost_connection_is_reported_by_its_reason_alone():
    text = "Cannot connect to host h:1 ssl:<ssl.SSLContext object at 0x7f> [refused]"
    assert _first(OSError(text)) == "Cannot connect to host h:1 [refused]"
    assert _first(ValueError()) == "ValueError"


def test_missing_jobs_are_named(head, client):
    with pytest.raises(UsageError, match="has no job nothing"):
        head.info("nothing")
    client.put("a", "RUNNING")
    client.put("b", "FAILED", 3)
    assert [job.id for job in head.jobs()] == ["b", "a"]
    client.get_job_info = lambda job: (_ for _ in ()).throw(RuntimeError("status code 500: broken"))
    with pytest.raises(ImgtxError, match="refused: status code 500"):
        head.find("a")


@pytest.mark.parametrize("address", [None, "head:6379", "ray://head:10001", "auto"])
def test_the_address_must_be_a_dashboards(address, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="http://HOST:8265"):
        connect(address)


def test_an_address_must_not_contain_credentials():
    with pytest.raises(UsageError, match="RAY_JOB_HEADERS") as error:
        connect("http://me:planted@head:8265")
    assert "planted" not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "bypass", "named"), [("http_proxy", "", True), ("http_proxy", "127.0.0.1", False)]
)
def test_where_no_head_answers_a_proxy_is_named(monkeypatch, variable, bypass, named):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*given, **how):
        raise ConnectionError("refused")

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", refuse)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", bypass)
    with pytest.raises(ClusterError, match="no head answers there") as error:
        connect("http://127.0.0.1:1")
    assert ("http_proxy is set" in str(error.value)) == named


def test_the_token_is_sent_as_rays_own_tools_send_it(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _headers() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert _headers() == {"Authorization": "Bearer home"}
    (tmp_path / "token").write_text("file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert _headers() == {"Authorization": "Bearer file"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "variable")
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Proxy": "p"}')
    assert _headers() == {"X-Proxy": "p", "Authorization": "Bearer variable"}
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"authorization": "Basic x"}')
    assert _headers() == {"authorization": "Basic x"}
    monkeypatch.setenv("RAY_JOB_HEADERS", "{}")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert _headers() == {}
    monkeypatch.setenv("RAY_JOB_HEADERS", "nonsense")
    with pytest.raises(UsageError, match="RAY_JOB_HEADERS is not a JSON table"):
        _headers()
