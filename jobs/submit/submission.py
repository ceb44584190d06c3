"""Submit a command to a cluster, once per day, and explain how it ended.

    submission = make_submission(command, day, name=None, packages=PINNED, variables=())    # before anything is sent
    job = begin(head, submission, say)                # submits, or finds what was submitted before
    code = exit_code(head.follow(job.id, show))       # its log, and the exit code that it ended with

A command has one name per day. While a job of that name waits or runs, or after it succeeded, the same submission finds
it and starts nothing. After one that failed or was stopped, the next attempt is called `-2`, then `-3`.
"""

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imgtx.errors import DONE, FAILURES, INTERRUPTED, UNREACHABLE, UsageError
from jobs.submit.command import JobCommand
from jobs.submit.head import FAILED, STOPPED, SUCCEEDED, Head, JobInfo
from jobs.submit.package import files_to_ship, packages, write_package
from pipeline.cluster.environment import CODE, ENDPOINTS, forwarded

PINNED, IMAGE = "pinned", "image"
# Names of secret values, and endings of names that only refer to one.
SECRET = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
REFERENCE = re.compile(r"(_FILE|_PATH|_PROFILE|_URI|_ARN)$", re.IGNORECASE)
# How long a stopped run has to write its ledger; Ray's default is 3 s.
STOP_SECONDS = 60

# The endings of Ray's names for what ends a job that had started.
LOST = ("SUPERVISOR_ACTOR_DIED", "SUPERVISOR_ACTOR_UNKNOWN_FAILURE")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Submission:
    """Everything about a job except the cluster. `packages` is PINNED or IMAGE."""

    id: str
    command: JobCommand
    day: date
    packages: str
    variables: dict[str, str]


def make_submission(
    command: JobCommand, day: date, *, name: str | None, packages: str, variables: tuple[str, ...]
) -> Submission:
    """Return a checked submission; UsageError for a name that Ray rejects or a variable that may hold a secret."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(
            f"--id {name!r}: expected up to 100 letters, digits, dots, - and _, beginning with a letter or digit"
        )
    return Submission(
        name or command.submission_id(day), command, day, packages, forwarded(os.environ) | given(variables)
    )


def given(variables: tuple[str, ...]) -> dict[str, str]:
    """Return the variables of the options `--env NAME=VALUE`."""
    found = {}
    for text in variables:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UsageError(f"--env {name}: give NAME=VALUE, for example --env AWS_PROFILE=archive")
        if SECRET.search(name) and not REFERENCE.search(name):
            raise UsageError(
                f"--env {name} looks like a secret, and a job's environment is public on its cluster: give the nodes "
                f"credentials of their own, or a reference such as --env AWS_PROFILE=archive (docs/guides/cluster.md)"
            )
        found[name] = value
    return found


def begin(head: Head, submission: Submission, say: Say) -> JobInfo:
    """Submit, or return the job of this name that waits, runs or has succeeded."""
    _warn_of_loopback(head, submission, say)
    for attempt in count(1):
        job = submission.id if attempt == 1 else f"{submission.id}-{attempt}"
        found = head.find(job)
        if found is None and _submit(head, submission, job):
            say(f"submitted {job} to {head.address}")
            return head.info(job)
        # Another process may have submitted it in between.
        found = found or head.info(job)
        if not found.over:
            say(f"{job} was submitted before and is {found.status.lower()}: following it, starting nothing")
            return found
        if found.status == SUCCEEDED:
            say(
                f"{job} was submitted before and succeeded: starting nothing; to run it again give --id another name"
            )
            return found
        say(f"{job} was submitted before and {_how(found)}: submitting it again")
    raise AssertionError


def exit_code(job: JobInfo) -> int:
    """Return the command's exit code as a shell would.

    130 for a job that was stopped, 4 if it never started, 3 if it was lost in the middle.
    """
    if job.status == SUCCEEDED:
        return DONE
    if _was_lost(job):
        return FAILURES
    if job.exit_code is None:
        return INTERRUPTED if job.status == STOPPED else UNREACHABLE
    return job.exit_code if job.exit_code > 0 else 128 - job.exit_code


def failure_reason(job: JobInfo) -> str:
    """Return in one line why a job ended without an exit code of imgtx; "" otherwise."""
    code = exit_code(job)
    if _was_lost(job):
        return (
            f"{job.id} was lost with the process or machine that watched over it; imgtx watch DESTINATION says how far "
            "it came, and the same command continues where it stopped"
        )
    if job.exit_code is None and job.status == "FAILED":
        lines = [line.strip() for line in job.message.splitlines() if line.strip()]
        return f"{job.id} did not start: {' '.join(lines)[:600]}"
    if code == 127 or "No module named ray" in job.message:
        return (
            f"{job.id}: the head has no `python` with Ray on its PATH: start it in an activated environment "
            "(PATH=/path/to/venv/bin:$PATH ray start --head), or submit with --packages pinned"
        )
    if code > 128 and job.exit_code is not None and job.exit_code != INTERRUPTED:
        return f"{job.id} was killed by signal {code - 128}; the same command continues where it stopped"
    return ""


def _was_lost(job: JobInfo) -> bool:
    """Return whether a job had started when Ray's process that watches over it ended: its command's end is unknown."""
    return job.exit_code is None and job.status == FAILED and job.cause.endswith(LOST)


def _how(job: JobInfo) -> str:
    if job.status == STOPPED:
        return "was stopped"
    return "failed" if job.exit_code is None else f"failed with exit code {job.exit_code}"


def _submit(head: Head, submission: Submission, job: str) -> bool:
    files = files_to_ship(CODE, submission.command.files)
    with tempfile.TemporaryDirectory(prefix="imgtx-submit-") as folder:
        package = Path(folder) / "imgtx.zip"
        write_package(package, files)
        return head.submit(
            submission_id=job,
            entrypoint=submission.command.entrypoint,
            runtime_env=runtime_environment(submission, str(package)),
            metadata={"imgtx": submission.command.name, "date": str(submission.day)},
        )


def runtime_environment(submission: Submission, package: str) -> dict[str, Any]:
    environment: dict[str, Any] = {
        "working_dir": package,
        "env_vars": submission.variables | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
    }
    if submission.packages == PINNED:
        environment["pip"] = {"packages": packages(CODE), "pip_check": False}
    return environment


def _warn_of_loopback(head: Head, submission: Submission, say: Say) -> None:
    local = ("localhost", "127.0.0.1", "::1")
    for name in ENDPOINTS:
        endpoint = submission.variables.get(name, "")
        if urlsplit(endpoint).hostname in local and urlsplit(head.address).hostname not in local:
            say(
                f"{name}={endpoint} is sent along; there it refers to each machine of the cluster itself, not to this "
                "one"
            )
