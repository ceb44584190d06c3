"""The start times of nightly runs: Kubernetes and systemd get the same, and mistakes are named."""

import shutil
import subprocess

import pytest

from imgtx.errors import UsageError
from jobs.nightly.schedule import Schedule, check_schedule


@pytest.mark.parametrize(
    ("at", "days", "cron", "calendar"),
    [
        ("01:30", [], "30 1 * * *", "*-*-* 01:30:00 Europe/Berlin"),
        ("00:00", ["sun"], "0 0 * * sun", "Sun *-*-* 00:00:00 Europe/Berlin"),
        ("23:59", ["mon", "fri"], "59 23 * * mon,fri", "Mon,Fri *-*-* 23:59:00 Europe/Berlin"),
    ],
)
def test_kubernetes_and_systemd_start_at_the_same_times(at: str, days: list[str], cron: str, calendar: str):
    schedule = Schedule(name="n", at=at, days=days, time_zone="Europe/Berlin")
    check_schedule(schedule)
    assert (schedule.cron, schedule.calendar) == (cron, calendar)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_calendar():
    calendar = Schedule(at="22:05", days=["tue", "sat"]).calendar
    found = subprocess.run(
        ["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=True
    )
    assert "Tue,Sat *-*-* 22:05:00 Etc/UTC" in found.stdout


@pytest.mark.parametrize(
    "at", ["", "1:30", "01:60", "24:00", "01:30:00", "-1:30", "01.30", "\u0660\u0661:\u0663\u0660", "01:30\n"]
)
def test_an_invalid_time_of_day_is_named(at: str):
    with pytest.raises(UsageError, match=r"^\[schedule\] at = .*expected a time of day"):
        check_schedule(Schedule(name="n", at=at))


@pytest.mark.parametrize("days", [["monday"], ["Mon"], ["mon", "mon"], [1], ["mon-fri"], [""], [["mon"]]])
def test_an_invalid_day_is_named(days: list):
    with pytest.raises(UsageError, match=r"^\[schedule\] days = .*expected some of mon, tue"):
        check_schedule(Schedule(name="n", days=days))
