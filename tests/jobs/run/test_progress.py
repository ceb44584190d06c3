"""Progress on terminals of any width: the count and the time left are always there."""

import io
import re

import pytest
from rich.console import Console

from jobs.run import progress
from jobs.run.progress import watcher
from jobs.run.tally import Tally

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_count_and_time_left_survive(width: int, monkeypatch: pytest.MonkeyPatch):
    tally = Tally(
        "r",
        50_000,
        0,
        0,
        0,
        0,
        50_000,
        0,
        {},
        written=11_990,
        failed=10,
        place="on a machine with a long name",
    )
    tally.reasons.update(truncated=7, corrupt=3)
    monkeypatch.setattr(progress, "_time_left", lambda status: "  ETA 3:21:09")
    monkeypatch.setattr(progress, "_rate", lambda status: "0.123 MP/s")
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None)
    with watcher(as_json=False, console=console) as display:
        display(tally)
    lines = [line.rstrip() for line in re.split(r"[\r\n]", CONTROL.sub("", shown.getvalue()))]
    assert max(map(len, lines)) <= width
    (last,) = {line for line in lines if "12000/50000" in line}
    assert width < 40 or "ETA 3:21:09" in last
    assert width < 80 or "failed 10" in last
