"""The door to a head's Jobs API, by Ray's own client: connect, submit, look, follow, stop; every failure in one line.

    head = connect("http://head:8265")
    head.submit(submission_id="...", entrypoint="python -m jobs.cli ...", runtime_env={...}, metadata={...})
    head.follow("...", print)

The token goes as Ray's own tools send it: RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, ~/.ray/auth_token;
what a proxy wants besides stands in RAY_JOB_HEADERS, a JSON table. An `https://` head is checked against
REQUESTS_CA_BUNDLE where that is set.
"""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imgtx.errors import ImgtxError, UsageError, first_line

RAY = "2.60."  # the series that pyproject.toml asks for: driver and nodes run the head's Ray
PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED = "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"
ENDED = (SUCCEEDED, FAILED, STOPPED)
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray lets them win over what a person typed
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")  # each sets its own level
RECONNECT_SECONDS = 60.0  # a head that does not answer for so long is gone
POLL_SECONDS = 1.0
AGENT_SECONDS, AGENT_PAUSE = 60.0, 2.0


@dataclass(frozen=True)
class JobInfo:
    """What the head says of a job. Times are seconds since the epoch, 0 where there is none."""

    id: str
    status: str
    exit_code: int | None
    entrypoint: str
    message: str
    started: float
    ended: float

    @property
    def over(self) -> bool:
        return self.status in ENDED


class HeadGoneError(ImgtxError):
    """The head answered, and does so no longer."""


class _Shown:
    """How much of a log was shown: the head begins each time at its beginning."""

    def __init__(self, show: Callable[[str], None]):
        self.show, self.characters = show, 0

    async def tail(self, client: Any, job: str) -> None:
        seen = 0
        async for piece in client.tail_job_logs(job):
            if fresh := piece[max(0, self.characters - seen) :]:
                self.show(fresh)
            seen += len(piece)
            self.characters = max(seen, self.characters)


@dataclass(frozen=True)
class Head:
    """A head that answered. Methods raise UsageError for a job that is not there, HeadGoneError without an answer."""

    address: str
    client: Any

    def find(self, job: str) -> JobInfo | None:
        with self._telling():
            try:
                return _job_info(self.client.get_job_info(job))
            except RuntimeError as error:
                if "404" in str(error):
                    return None
                raise

    def info(self, job: str) -> JobInfo:
        found = self.find(job)
        if found is None:
            raise UsageError(f"{self.address} has no job {job}: imgtx jobs list shows those it has")
        return found

    def jobs(self) -> list[JobInfo]:
        """Submitted jobs, the newest first."""
        with self._telling():
            found = [_job_info(job) for job in self.client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.started, reverse=True)

    def submit(self, **job: Any) -> bool:
        """Submit; False where a job of this id is there already, perhaps since a moment ago.

        A head that has just started answers before it can take jobs: it is asked again for AGENT_SECONDS.
        """
        patient_until = time.monotonic() + AGENT_SECONDS
        with self._telling():
            while True:
                try:
                    self.client.submit_job(**job)
                    return True
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return False
                    if "No available agent" not in str(error) or time.monotonic() > patient_until:
                        raise
                time.sleep(AGENT_PAUSE)

    def stop(self, job: str) -> bool:
        """Ask the job to stop; False where it has ended already."""
        self.info(job)
        with self._telling():
            return bool(self.client.stop_job(job))

    def logs(self, job: str) -> str:
        self.info(job)
        with self._telling():
            return self.client.get_job_logs(job)

    def follow(self, job: str, show: Callable[[str], None]) -> JobInfo:
        """Show the job's log from its beginning, piece by piece, until it has ended; a lost connection is taken up."""
        lost: tuple[type[BaseException], ...] = (HeadGoneError, RuntimeError, *_client_errors())
        log, silent_since = _Shown(show), 0.0
        while True:
            try:
                asyncio.run(log.tail(self.client, job))
                found = self.info(job)
                if found.over:
                    return found
                silent_since = 0.0
            except lost as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > RECONNECT_SECONDS:
                    raise HeadGoneError(
                        f"{self.address} has not answered for a minute ({_first(error)})"
                    ) from error
            time.sleep(POLL_SECONDS)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except _client_errors() as error:
            raise HeadGoneError(f"{self.address} does not answer ({_first(error)})") from error
        except RuntimeError as error:
            raise ImgtxError(f"{self.address} refused: {_first(error)}") from error


def connect(address: str | None) -> Head:
    """The head at `http(s)://HOST:8265`; UsageError, in seconds, where none answers or it cannot be used."""
    address = address or next((v for n in ADDRESS_VARIABLES if (v := os.environ.get(n))), "")
    if urlsplit(address).scheme not in ("http", "https"):
        given = f"--address {address}" if address else "no --address"
        raise UsageError(
            f"{given}: give the head's dashboard, http://HOST:8265, or set RAY_API_SERVER_ADDRESS to it"
        )
    if "@" in urlsplit(address).netloc:
        raise UsageError(
            "--address holds credentials before its host: give it without, and what a proxy wants in RAY_JOB_HEADERS"
        )
    for name in ADDRESS_VARIABLES:
        os.environ.pop(name, None)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(
            address.rstrip("/"), headers=_headers(), verify=os.environ.get("REQUESTS_CA_BUNDLE") or True
        )
    except _client_errors() as error:
        raise UsageError(
            f"--address {address}: no head answers there ({_first(error)}); give its dashboard, http://HOST:8265, as "
            "`ray start --head` prints it where ray[default] is installed"
        ) from error
    except (RuntimeError, AuthenticationError) as error:
        raise UsageError(f"--address {address}: {_remedy(error)}") from error
    version = str(client._server_ray_version)  # asked by its constructor, with no public door
    if not version.startswith(RAY):
        raise UsageError(f"--address {address} runs Ray {version}; this imgtx needs {RAY}x there")
    return Head(address.rstrip("/"), client)


def _headers() -> dict[str, str]:
    try:
        headers = dict(json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}"))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f'RAY_JOB_HEADERS is no table in JSON ({error}): write {{"NAME": "VALUE"}}'
        ) from error
    token = _token()
    if token and not any(name.lower() == "authorization" for name in headers):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _token() -> str:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return ""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        if named:
            raise UsageError(f"RAY_AUTH_TOKEN_PATH {named} cannot be read ({error.strerror})") from error
        return ""


def _remedy(error: Exception) -> str:
    text = str(error)
    if text.startswith(("Authentication required", "Authentication failed")):
        what = "wants a token" if "required" in text[:40] else "does not take this token"
        return f"the head {what}: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"
    return f"this is no head that takes jobs ({_first(error)}); give its dashboard, http://HOST:8265"


def _job_info(details: Any) -> JobInfo:
    return JobInfo(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        exit_code=details.driver_exit_code,
        entrypoint=details.entrypoint,
        message=details.message or "",
        started=(details.start_time or 0) / 1000,
        ended=(details.end_time or 0) / 1000,
    )


def _client_errors() -> tuple[type[BaseException], ...]:
    """What the libraries under Ray's client raise when nobody answers."""
    import aiohttp
    import requests

    return (requests.exceptions.RequestException, aiohttp.ClientError, ConnectionError)


def _first(error: BaseException) -> str:
    # aiohttp adds how it was told to check certificates.
    return re.sub(r" ssl:(<[^>]*>|\w+)", "", first_line(error, 300))
