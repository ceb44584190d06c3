"""systemd units for a nightly spec: a timer, and the service that it starts on this machine.

A start that was missed while the machine was off is made up for when it is on again. During a nightly run the service
is active, and another start does nothing.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from imgtx.errors import UsageError
from jobs.nightly.schedule import Schedule
from jobs.nightly.spec import NightlySpec

# For how long failed starts are counted: less than a day, so that those of the previous date do not count.
MAX_LIMIT_HOURS = 20.0


def units(spec: NightlySpec, path: Path, program: str) -> dict[str, str]:
    """Return file names and contents of the systemd timer and its service.

    program: the absolute path of imgtx. Relative paths in the spec refer to the current working directory, as they do
    for `imgtx nightly`.
    """
    schedule = spec.when
    service = [
        "[Unit]",
        f"Description=imgtx nightly {_escaped(spec.model)}",
        "Wants=network-online.target",
        "After=network-online.target",
        f"StartLimitIntervalSec={round(min(schedule.max_hours, MAX_LIMIT_HOURS) * 3600)}",
        f"StartLimitBurst={schedule.retries + 1}",
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={_escaped(os.getcwd())}",
        f"ExecStart={_quoted(program)} nightly {_quoted(str(path.absolute()))}",
        *_environment(schedule),
        f"TimeoutStartSec={round(schedule.max_hours * 3600)}",
        # SIGTERM goes to imgtx alone, which stops Ray and keeps its state; remaining processes are then killed.
        "KillMode=mixed",
        "TimeoutStopSec=120",
        # The same date, as often as StartLimitBurst allows.
        "Restart=on-failure",
        "RestartSec=60",
        # 2: a mistake in the spec, or another process runs this date; 130: stopped by the user or TimeoutStartSec.
        "RestartPreventExitStatus=2 130",
        "Nice=5",
    ]
    timer = [
        "[Unit]",
        f"Description=start times of imgtx nightly {_escaped(spec.model)}",
        "",
        "[Timer]",
        f"OnCalendar={schedule.calendar}",
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
        raise UsageError(
            f"{text!r} contains a control character, which a systemd unit cannot hold: rename it"
        )
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """Return a word of a command line as systemd reads it: quoted, with nothing to expand."""
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
