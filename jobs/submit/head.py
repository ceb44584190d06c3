"""Talk to a head's Jobs API through Ray's own client: connect, submit, list, follow, stop.

    head = connect("http://head:8265")
    head.submit(submission_id="...", entrypoint="python -m jobs.cli ...", runtime_env={...}, metadata={...})
    head.follow("...", print)

Every failure is an ImgtxError of one line. The token comes from RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names
or ~/.ray/auth_token, as in Ray's own tools; RAY_JOB_HEADERS, a JSON table, adds headers for a proxy. The certificate of
an `https://` head is checked against REQUESTS_CA_BUNDLE if that is set.
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
from urllib.request import getproxies, proxy_bypass

from imgtx.errors import ClusterError, ImgtxError, UsageError, first_line

# The series that pyproject.toml requires: driver and nodes run the head's Ray.
RAY = "2.60."
PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED = "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"
ENDED = (SUCCEEDED, FAILED, STOPPED)
# Ray prefers these to the address that its client is given.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# Loggers that set their own level.
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
# A head that does not answer for so long is gone.
RECONNECT_SECONDS = 60.0
POLL_SECONDS = 1.0
AGENT_SECONDS, AGENT_PAUSE = 60.0, 2.0


@dataclass(frozen=True)
class JobInfo:
    """A job as the head reports it. Times are seconds since the epoch, 0 if unknown."""

    id: str
    status: str
    exit_code: int | None
    entrypoint: str
    message: str
    started: float
    ended: float
    # What Ray calls the cause of a failure.
    cause: str = ""

    @property
    def over(self) -> bool:
        return self.status in ENDED


class HeadGoneError(ImgtxError):
    """The head answered before, and does not answer any more."""


class _LogTail:
    """Shows each part of a log once, although every connection gets it from its beginning."""

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
    """A head that answered. Methods raise UsageError for an unknown job, HeadGoneError if it does not answer."""

    address: str
    client: Any

    def find(self, job: str) -> JobInfo | None:
        with self._one_line_errors():
            try:
                return _job_info(self.client.get_job_info(job))
            except RuntimeError as error:
                if "404" in str(error):
                    return None
                raise

    def info(self, job: str) -> JobInfo:
        found = self.find(job)
        if found is None:
            raise UsageError(f"{self.address} has no job {job}: imgtx jobs list shows its jobs")
        return found

    def jobs(self) -> list[JobInfo]:
        """Return the submitted jobs, newest first."""
        with self._one_line_errors():
            found = [_job_info(job) for job in self.client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.started, reverse=True)

    def submit(self, **job: Any) -> bool:
        """Submit a job; return False if one of this id exists.

        A head that has just started answers before it accepts jobs, so the request is repeated for AGENT_SECONDS.
        """
        deadline = time.monotonic() + AGENT_SECONDS
        with self._one_line_errors():
            while True:
                try:
                    self.client.submit_job(**job)
                    return True
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return False
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise
                time.sleep(AGENT_PAUSE)

    def stop(self, job: str) -> bool:
        """Ask the job to stop; return False if it has ended already."""
        self.info(job)
        with self._one_line_errors():
            return bool(self.client.stop_job(job))

    def logs(self, job: str) -> str:
        self.info(job)
        with self._one_line_errors():
            return self.client.get_job_logs(job)

    def follow(self, job: str, show: Callable[[str], None]) -> JobInfo:
        """Show the job's log from its beginning until the job has ended, reconnecting after a lost connection."""
        lost: tuple[type[BaseException], ...] = (HeadGoneError, RuntimeError, *_client_errors())
        log, silent_since = _LogTail(show), 0.0
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
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except _client_errors() as error:
            raise HeadGoneError(f"{self.address} does not answer ({_first(error)})") from error
        except RuntimeError as error:
            raise ImgtxError(f"{self.address} refused: {_first(error)}") from error


def connect(address: str | None) -> Head:
    """Return the head at `http(s)://HOST:8265`, within seconds.

    Raises ClusterError where none answers, UsageError where it cannot be used.
    """
    address = address or next((v for n in ADDRESS_VARIABLES if (v := os.environ.get(n))), "")
    if urlsplit(address).scheme not in ("http", "https"):
        given = f"--address {address}" if address else "no --address"
        raise UsageError(
            f"{given}: give the head's dashboard, http://HOST:8265, or set RAY_API_SERVER_ADDRESS to it"
        )
    if "@" in urlsplit(address).netloc:
        raise UsageError(
            "--address contains credentials before its host: remove them; RAY_JOB_HEADERS can hold headers for a proxy"
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
        raise ClusterError(
            f"--address {address}: no head answers there ({_first(error)}); give its dashboard, http://HOST:8265, as "
            f"`ray start --head` prints it where ray[default] is installed{_through_proxy(address)}"
        ) from error
    except (RuntimeError, AuthenticationError) as error:
        raise UsageError(f"--address {address}: {_remedy(error)}") from error
    # The constructor asked for it; there is no public attribute.
    version = str(client._server_ray_version)
    if not version.startswith(RAY):
        raise UsageError(
            f"--address {address} runs Ray {version}: this version of imgtx needs Ray {RAY}x there"
        )
    return Head(address.rstrip("/"), client)


def _headers() -> dict[str, str]:
    try:
        headers = dict(json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}"))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f'RAY_JOB_HEADERS is not a JSON table ({error}): write {{"NAME": "VALUE"}}'
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
        what = "requires a token" if "required" in text[:40] else "does not accept this token"
        return f"the head {what}: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"
    return f"this is not a head that accepts jobs ({_first(error)}); give its dashboard, http://HOST:8265"


def _job_info(details: Any) -> JobInfo:
    return JobInfo(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        exit_code=details.driver_exit_code,
        entrypoint=details.entrypoint,
        message=details.message or "",
        started=(details.start_time or 0) / 1000,
        ended=(details.end_time or 0) / 1000,
        cause=str(getattr(details, "error_type", None) or ""),
    )


def _client_errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions of the libraries under Ray's client for a head that does not answer."""
    import aiohttp
    import requests

    return (requests.exceptions.RequestException, aiohttp.ClientError, ConnectionError)


def _through_proxy(address: str) -> str:
    """Return a remark where requests to `address` go through a proxy that the environment names; else ""."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme not in getproxies() or proxy_bypass(host):
        return ""
    return f"; {parts.scheme}_proxy is set and was asked for it: put {host} into no_proxy to go without"


def _first(error: BaseException) -> str:
    # aiohttp appends its certificate settings.
    return re.sub(r" ssl:(<[^>]*>|\w+)", "", first_line(error, 300))
