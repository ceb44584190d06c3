"""A nightly spec as systemd units: a timer, and the service that it starts on this machine.

A tick that was missed while the machine was off is made up for once it is on; while a night is at work its service is
active, and another tick does nothing.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from imgtx.errors import UsageError
from jobs.nightly.cron import on_calendar
from jobs.nightly.schedule import WHERE, Schedule
from jobs.nightly.spec import NightlySpec

MOST_LIMIT_HOURS = 20.0  # of counting failed starts: below a day, so that last night's do not count


def units(spec: NightlySpec, path: Path, program: str) -> dict[str, str]:
    """File names and contents of the systemd timer and its service; `program` is imgtx's own path.

    Relative paths in the spec mean this working directory, as they do for `imgtx nightly`.
    """
    schedule = spec.when
    calendar = on_calendar(schedule.ticks, schedule.time_zone, f"{WHERE} cron")
    service = [
        "[Unit]",
        f"Description=imgtx nightly {_escaped(spec.model)}",
        "Wants=network-online.target",
        "After=network-online.target",
        f"StartLimitIntervalSec={round(min(schedule.most_hours, MOST_LIMIT_HOURS) * 3600)}",
        f"StartLimitBurst={schedule.retries + 1}",
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={_escaped(os.getcwd())}",
        f"ExecStart={_quoted(program)} nightly {_quoted(str(path.absolute()))}",
        *_environment(schedule),
        f"TimeoutStartSec={round(schedule.most_hours * 3600)}",
        # SIGTERM to imgtx alone: it lets Ray's processes go and keeps its state; what is left then is killed
        "KillMode=mixed",
        "TimeoutStopSec=120",
        "Restart=on-failure",  # the same night, as often as StartLimitBurst allows
        "RestartSec=60",
        # a mistake in the spec, or another process at this date; stopped, by a person or by TimeoutStartSec
        "RestartPreventExitStatus=2 130",
        "Nice=5",
    ]
    timer = [
        "[Unit]",
        f"Description=when imgtx nightly {_escaped(spec.model)} begins",
        "",
        "[Timer]",
        f"OnCalendar={calendar}",
        "Persistent=true",
        f"Unit={schedule.name}.service",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return {
        f"{schedule.name}.service": "\n".join(service) + "\n",
        f"{schedule.name}.timer": "\n".join(timer) + "\n",
    }


def _environment(schedule: Schedule) -> Iterator[str]:
    if schedule.environment_file:
        yield f"EnvironmentFile={_escaped(os.path.abspath(schedule.environment_file))}"


def _escaped(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise UsageError(f"{text!r} holds a control character, which a systemd unit cannot: rename it")
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """A word of a command line as systemd reads it: quoted, with nothing left to expand."""
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
