"""A live view of the run on a destination, from what lies there: status, lease, ledger. Without Ray, from anywhere.

A run writes its status every ten seconds and renews its lease every fifteen. Who watches compares no clocks: a holder
on another machine is dead when its lease file has not changed for a minute of the watcher's own time.
"""

import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from imgtx.errors import UsageError
from jobs.progress import failures_of, left_of
from jobs.show import last_run, last_spec, print_status, read_json, read_status
from pipeline.lease import Holder, living_holder
from pipeline.records import RUNS
from pipeline.storage import Store, open_store
from pipeline.storage_retry import HASTY

DEAD_SECONDS = 60.0  # as in pipeline/lease.py
RUNNING = "running"
DONE, FAILURES, INTERRUPTED = 0, 3, 130


@dataclass(frozen=True)
class Sight:
    """One look at a destination: the newest run's status, and who holds the lease."""

    status: dict[str, Any]
    holder: Holder | None

    @property
    def over(self) -> bool:
        return self.status["state"] != RUNNING


class Pulse:
    """When the holder last gave a sign of life, by the clock of whoever watches."""

    def __init__(self) -> None:
        self.sign: tuple[str, int] | None = None
        self.since = time.monotonic()

    def silence(self, holder: Holder) -> float:
        """Seconds since its lease file last changed under our eyes."""
        sign = holder.token, holder.beat
        if sign != self.sign:
            self.sign, self.since = sign, time.monotonic()
        return time.monotonic() - self.since


def watch_run(
    destination: str, endpoint_url: str | None, every: float, *, as_json: bool, console: Console
) -> int:
    """Show the newest run until it is over; returns the exit code that it ended with, 3 for one that was killed."""
    store = replace(open_store(destination, endpoint_url=endpoint_url), patience=HASTY)
    store.probe()
    pulse = Pulse()
    live = Live(console=console, transient=True) if console.is_terminal and not as_json else None
    with live or nullcontext():
        while True:
            sight, dead = look(store, pulse)
            if sight and (sight.over or dead):
                break
            _show(sight, as_json, live)
            time.sleep(every)
    report = read_status(destination, endpoint_url)
    if dead:
        report["run"]["state"] = "killed; the same command goes on"
    print(json.dumps(report)) if as_json else print_status(report, console)
    return _exit_code(report["run"], destination, endpoint_url)


def look(store: Store, pulse: Pulse) -> tuple[Sight | None, bool]:
    """What lies there now, None before the first run; and whether the run is dead."""
    try:
        run = last_run(store)
    except UsageError:
        return None, False
    sight = Sight(read_json(store, f"{RUNS}{run}/status.json"), living_holder(store))
    if sight.over:
        return sight, False
    dead = sight.holder is None or pulse.silence(sight.holder) > DEAD_SECONDS
    if not dead:
        return sight, False
    # it may have ended between the two readings
    sight = Sight(read_json(store, f"{RUNS}{run}/status.json"), sight.holder)
    return sight, not sight.over


def line(sight: Sight) -> str:
    """The run in one line: `320/2000 images  1.84 MP/s  ETA 0:12:31  failed 3 (truncated 3)  on host a, process 12`."""
    status = sight.status
    taken = status["to_do"]
    done = taken - (status["pending"] - status["left"])
    seconds = status["seconds"]
    text = f"{done}/{taken} images"
    if done and seconds:
        text += f"  {status['megapixels'] / seconds:.3g} MP/s{left_of(done, taken, seconds)}"
    text += failures_of(status["failed"] - status["failed_before"], status["reasons"])
    if sight.holder:
        text += f"  on {sight.holder.host}, process {sight.holder.pid}"
    return text


def _show(sight: Sight | None, as_json: bool, live: Live | None) -> None:
    if as_json:
        print(json.dumps(sight.status if sight else {"state": "nothing yet"}), flush=True)
        return
    text = line(sight) if sight else "no run here yet"
    if live:
        live.update(text)
    else:
        click.echo(text, file=sys.stderr)


def _exit_code(run: dict[str, Any], destination: str, endpoint_url: str | None) -> int:
    if run["state"] == "interrupted":
        return INTERRUPTED
    if run["state"] != "done":
        return FAILURES
    spec = last_spec(destination, endpoint_url)
    allowed = spec.failures_allowed(run["listed"] - run["left"])
    return FAILURES if run["failed"] > allowed else DONE
