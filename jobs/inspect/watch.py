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

from imgtx.errors import DONE, FAILURES, INTERRUPTED, UsageError
from jobs.inspect.status import KILLED, print_status, read_status
from jobs.run.progress import failures_of, left_of
from pipeline.ledger.lease import Holder, living_holder
from pipeline.runs import last_run, last_spec, read_json
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import RUNS

DEAD_SECONDS = 60.0  # as in pipeline/ledger/lease.py
RUNNING = "running"


@dataclass(frozen=True)
class Sight:
    """One look at a destination: the newest run, what it says of itself, and who holds the lease."""

    run: str
    status: dict[str, Any]
    holder: Holder | None

    @property
    def state(self) -> str:
        return self.status["state"]

    @property
    def over(self) -> bool:
        return self.state != RUNNING


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


@dataclass(frozen=True)
class Watching:
    """What is watched, and how it is shown."""

    destination: str
    endpoint_url: str | None
    every: float  # seconds
    as_json: bool


def watch_run(watching: Watching, console: Console, *, wait_for_next: bool) -> int:
    """Show the newest run until it is over; returns the exit code that it ended with, 3 for one that was killed.

    wait_for_next: a run that is over already is not meant, but the one that comes after it.
    """
    store = open_store(watching.destination, endpoint_url=watching.endpoint_url)
    store = replace(store, retry=FAIL_FAST)
    store.probe()
    pulse, first = Pulse(), look(store, Pulse())
    before = first.run if wait_for_next and first and first.over else ""
    live = Live(console=console, transient=True) if console.is_terminal and not watching.as_json else None
    with live or nullcontext():
        while True:
            sight = look(store, pulse)
            if sight and sight.run == before:
                sight = None
            if sight and sight.over:
                break
            _show(sight, watching.as_json, live)
            time.sleep(watching.every)
    report = read_status(watching.destination, watching.endpoint_url)
    report["run"]["state"] = sight.state
    print(json.dumps(report)) if watching.as_json else print_status(report, console)
    return _exit_code(report["run"], watching)


def look(store: Store, pulse: Pulse) -> Sight | None:
    """What lies there now; None before the first run."""
    try:
        run = last_run(store)
    except UsageError:
        return None
    sight = Sight(run, read_json(store, f"{RUNS}{run}/status.json"), living_holder(store))
    if sight.over or (sight.holder and pulse.silence(sight.holder) <= DEAD_SECONDS):
        return sight
    sight = replace(
        sight, status=read_json(store, f"{RUNS}{run}/status.json")
    )  # it may have ended in between
    return sight if sight.over else replace(sight, status=sight.status | {"state": KILLED})


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


def _exit_code(run: dict[str, Any], watching: Watching) -> int:
    if run["state"] == "interrupted":
        return INTERRUPTED
    if run["state"] != "done":
        return FAILURES
    allowed = last_spec(watching.destination, watching.endpoint_url).failures_allowed(
        run["listed"] - run["left"]
    )
    return FAILURES if run["failed"] > allowed else DONE
