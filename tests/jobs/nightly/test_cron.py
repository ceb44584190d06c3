"""Cron expressions: what Kubernetes takes is taken, what it refuses is refused here, and systemd ticks alike."""

import shutil
import subprocess

import pytest

from imgtx.errors import UsageError
from jobs.nightly.cron import on_calendar, parse_cron


@pytest.mark.parametrize(
    ("text", "calendar"),
    [
        ("30 1 * * *", "*-*-* 01:30:00 Europe/Berlin"),
        ("0 2,14 * * mon-fri", "Mon,Tue,Wed,Thu,Fri *-*-* 02,14:00:00 Europe/Berlin"),
        ("*/20 3 1 */6 *", "*-01,07-01 03:00,20,40:00 Europe/Berlin"),
        ("50/5 0 * JAN ?", "*-01-* 00:50,55:00 Europe/Berlin"),
        ("0 1-5/2 * * 0", "Sun *-*-* 01,03,05:00:00 Europe/Berlin"),
        ("* * 29 2 *", "*-02-29 *:*:00 Europe/Berlin"),
    ],
)
def test_the_same_ticks_for_systemd(text: str, calendar: str):
    assert on_calendar(parse_cron(text, "cron"), "Europe/Berlin", "cron") == calendar


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_reads_the_calendar():
    calendar = on_calendar(parse_cron("5,35 22 1-7/3 3,9 *", "cron"), "Etc/UTC", "cron")
    found = subprocess.run(
        ["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=True
    )
    assert "*-03,09-01,04,07 22:05,35:00 Etc/UTC" in found.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 fields"),
        ("30 1 * *", "has 4 fields"),
        ("@daily", "has 1 fields"),
        ("TZ=UTC 30 1 * * *", "has 6 fields"),
        ("60 1 * * *", "'60' is no minute; legal are 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 1 0 * *", "'0' is no day of the month"),
        ("0 1 * 13 *", "'13' is no month; legal are 1 to 12 or jan"),
        ("0 1 * * 7", "'7' is no day of the week; legal are 0 to 6 or sun"),
        ("0 1 * * fri-mon", "'fri-mon'"),
        ("0 1 5-2 * *", "'5-2'"),
        ("*/0 1 * * *", "'*/0'"),
        ("0, 1 * * *", "'' is no minute"),
        ("-1 1 * * *", "'-1'"),
        ("1.5 1 * * *", "'1.5'"),
        ("٣ 1 * * *", "'٣'"),
        ("0 1 30 2 *", "never comes: these months have 29 days at most"),
        ("0 1 31 4,6 *", "never comes: these months have 30 days at most"),
    ],
)
def test_what_is_no_cron_expression_is_named(text: str, words: str):
    with pytest.raises(UsageError) as caught:
        parse_cron(text, "[schedule] cron")
    assert words in str(caught.value)
    assert str(caught.value).startswith("[schedule] cron")


def test_either_day_is_enough_where_both_are_restricted_and_systemd_cannot_say_so():
    cron = parse_cron("0 1 30 2 mon", "cron")  # every Monday of February
    with pytest.raises(UsageError, match="leave one of them"):
        on_calendar(cron, "Etc/UTC", "cron")
