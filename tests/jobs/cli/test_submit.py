"""`imgtx submit` with a fake head: the log on the screen, Ctrl-C's question, the exit code."""

from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.cli import submit as cli_submit
from jobs.cli.submit import LogView
from jobs.submit import head as ray_jobs
from jobs.submit import submission as submit
from jobs.submit.head import HeadGoneError, JobInfo
from tests.support.commands import complaint, imgtx, without_ray
from tests.support.zoo import photo, saved

COMMAND = ("submit", "--address", "http://head:8265", "--", "upscale", "s3://in/", "s3://out/")


@dataclass
class FakeHead:
    """A head with one job, whose log is `log` and whose following ends in `end`."""

    end: JobInfo | BaseException
    log: str = ""
    stopped: list[str] = field(default_factory=list)
    address: str = "http://head:8265"

    def follow(self, job, show):
        show(self.log)
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def stop(self, job):
        self.stopped.append(job)
        return True

    def info(self, job):
        return ended("STOPPED")


def ended(status: str, code: int | None = None, message: str = "") -> JobInfo:
    return JobInfo("job-1", status, code, "e", message, 0.0, 1.0)


@pytest.fixture
def submitted(monkeypatch):
    """Run the command against a head."""

    def run(
        head: FakeHead, *, job: JobInfo | None = None, command=COMMAND, typed: str | None = None
    ) -> Result:
        monkeypatch.setattr(ray_jobs, "connect", lambda address: head)
        monkeypatch.setattr(submit, "begin", lambda *given: job or ended("RUNNING"))
        if typed is not None:
            monkeypatch.setattr(cli_submit, "answers", lambda: True)
        return CliRunner().invoke(main, command, input=typed)

    return run


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 3), ("FAILED", 130)])
def test_submit_exits_with_the_runs_exit_code(submitted, status, code):
    result = submitted(FakeHead(ended(status, code), "1/2 images\ndone\n"))
    assert (result.exit_code, result.stdout) == (code, "1/2 images\ndone\n")
    assert f"exit code {code}" in result.stderr


def test_a_job_that_never_started_is_reported_with_its_reason(submitted):
    result = submitted(FakeHead(ended("FAILED", None, "no such package")))
    assert (result.exit_code, "did not start: no such package" in result.stderr) == (4, True)


def test_without_waiting_only_the_name_is_printed(submitted):
    head = FakeHead(AssertionError("it followed"))
    result = submitted(head, command=(*COMMAND[:3], "--no-wait", *COMMAND[3:]))
    assert (result.exit_code, result.stdout) == (0, "job-1\n")
    again = submitted(head, job=ended("SUCCEEDED", 0))
    assert (again.exit_code, again.stdout) == (0, "job-1\n")


@pytest.mark.parametrize(
    ("typed", "stops"), [(None, False), ("n\n", False), ("\n", False), ("", False), ("y\n", True)]
)
def test_ctrl_c_asks_and_detaches_by_default(submitted, typed, stops):
    head = FakeHead(KeyboardInterrupt())
    result = submitted(head, typed=typed)
    assert result.exit_code == 130
    assert head.stopped == (["job-1"] if stops else [])
    said = (
        "stopped; the same submission"
        if stops
        else "imgtx jobs stop job-1 --address http://head:8265 stops it"
    )
    assert said in result.stderr


def test_a_lost_head_is_reported_with_the_destination_to_check(submitted):
    result = submitted(FakeHead(HeadGoneError("http://head:8265 has not answered for a minute")))
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert "imgtx watch s3://out/ shows its progress" in line


def test_progress_lines_replace_each_other_on_a_terminal(capsys):
    pieces = ("0/9 images  starting", " Ray\n1/9 images  2 MP/s\n", "a warning\n2/9 images  2 MP/s\n")
    up = "\x1b[1A\x1b[2K"
    for terminal in (True, False):
        view = LogView()
        view.terminal = terminal
        for piece in pieces:
            view(piece)
        printed = capsys.readouterr().out
        assert printed.count(up) == terminal * 2
        assert printed.replace(up, "") == "".join(pieces)


def test_the_help_is_printed(submitted):
    for command in (("submit",), ("jobs",), ("jobs", "list"), ("jobs", "logs"), ("jobs", "stop"), ("watch",)):
        assert CliRunner().invoke(main, [*command, "-h"]).exit_code == 0


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "https://head/ray"])
@pytest.mark.parametrize("given", ["option", "environment"])
@pytest.mark.parametrize("command", ["upscale", "restore", "retry"])
def test_a_dashboard_address_for_a_run_is_answered_with_imgtx_submit(
    tmp_path, monkeypatch, command, address, given
):
    without_ray(monkeypatch)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(saved(photo(20, 24)))
    source, destination = str(tmp_path / "in"), str(tmp_path / "out")
    assert imgtx("upscale", source, destination, "--limit", "1").exit_code == 0
    monkeypatch.setattr(ray_jobs, "connect", lambda where: pytest.fail("it was asked"))
    words = () if given == "environment" else ("--address", address)
    if given == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    ends = (destination,) if command == "retry" else (source, destination)
    line = complaint(command, *ends, *words)
    named = f"RAY_ADDRESS={address}" if given == "environment" else f"--address {address}"
    assert f"{named}: " in line
    dashboard = "http://head:8265" if address.startswith("ray:") else address
    assert f"imgtx submit --address {dashboard} -- COMMAND" in line
