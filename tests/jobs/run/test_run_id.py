"""Ids of runs sort by the time when the runs began."""

from datetime import UTC, datetime, timedelta

import pytest

import jobs.run.prepare as prepare


def test_runs_of_one_second_sort_by_time(monkeypatch: pytest.MonkeyPatch):
    start = datetime(2026, 11, 30, 19, 56, 10, tzinfo=UTC)
    times = [start + timedelta(milliseconds=ms) for ms in (0, 1, 7, 250, 500, 999, 1000, 1001)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return next(clock)

    clock = iter(times)
    monkeypatch.setattr(prepare, "datetime", Clock)
    ids = [prepare.new_run_id() for _ in times]
    assert ids == sorted(ids)
    assert ids[0].startswith("20261130T195610-000")
    assert ids[-1].startswith("20261130T195611-004")
