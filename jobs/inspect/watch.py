"""Watch the run on a destination from any machine, without Ray: by its status, its lease and its ledger.

A run writes its status every ten seconds and renews its lease every fifteen. No clocks are compared: a holder on
another machine is dead if its lease file does not change for a minute of this machine's time.
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
from jobs.inspect.status import KILLED, print_status, read_status
from jobs.run import progress
from jobs.run.exit_code import exit_code
from pipeline.ledger.lease import DEAD_SECONDS, Holder, living_holder
from pipeline.runs import last_run, last_spec, read_json
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import RUNS

RUNNING = "running"


@dataclass(frozen=True)
class RunSnapshot:
    """One look at a destination: the newest run, the status it wrote, and the holder of the lease."""

    run: str
    status: dict[str, Any]
    holder: Holder | None

    @property
    def state(self) -> str:
        return self.status["state"]

    @property
    def over(self) -> bool:
        return self.state != RUNNING


class HeartbeatMonitor:
    """Measures by this machine's clock how long the holder of a lease has been silent."""

    def __init__(self) -> None:
        self.last: tuple[str, int] | None = None
        self.since = time.monotonic()

    def silence(self, holder: Holder) -> float:
        """Return the seconds since the lease file was first seen as it is now."""
        heartbeat = holder.token, holder.beat
        if heartbeat != self.last:
            self.last, self.since = heartbeat, time.monotonic()
        return time.monotonic() - self.since


@dataclass(frozen=True)
class Watching:
    """What to watch, how often in seconds, and how to show it."""

    destination: str
    endpoint_url: str | None
    every: float
    as_json: bool


def watch_run(watching: Watching, console: Console, *, wait_for_next: bool) -> int:
    """Show the newest run until it is over; return its exit code, 3 for a run that was killed.

    wait_for_next: ignore a run that is over already, and watch the one that follows it.
    """
    store = open_store(watching.destination, endpoint_url=watching.endpoint_url)
    store = replace(store, retry=FAIL_FAST)
    store.probe()
    monitor, first = HeartbeatMonitor(), look(store, HeartbeatMonitor())
    ignored = first.run if wait_for_next and first and first.over else ""
    live = Live(console=console, transient=True) if console.is_terminal and not watching.as_json else None
    with live or nullcontext():
        while True:
            snapshot = look(store, monitor)
            if snapshot and snapshot.run == ignored:
                snapshot = None
            if snapshot and snapshot.over:
                break
            _show(snapshot, watching.as_json, live)
            time.sleep(watching.every)
    report = read_status(watching.destination, watching.endpoint_url)
    report["run"]["state"] = snapshot.state
    print(json.dumps(report)) if watching.as_json else print_status(report, console)
    return exit_code(last_spec(watching.destination, watching.endpoint_url), report["run"])


def look(store: Store, monitor: HeartbeatMonitor) -> RunSnapshot | None:
    """Return the present state of a destination; None before its first run."""
    try:
        run = last_run(store)
    except UsageError:
        return None
    snapshot = RunSnapshot(run, _status(store, run), living_holder(store))
    if snapshot.over or (snapshot.holder and monitor.silence(snapshot.holder) <= DEAD_SECONDS):
        return snapshot
    # It may have ended between the two reads.
    snapshot = replace(snapshot, status=_status(store, run))
    return snapshot if snapshot.over else replace(snapshot, status=snapshot.status | {"state": KILLED})


def line(snapshot: RunSnapshot) -> str:
    """Return the progress of the run in one line, and where it runs."""
    holder = snapshot.holder
    return progress.line(snapshot.status) + (f"  on {holder.host}, process {holder.pid}" if holder else "")


def _status(store: Store, run: str) -> dict[str, Any]:
    return read_json(store, f"{RUNS}{run}/status.json")


def _show(snapshot: RunSnapshot | None, as_json: bool, live: Live | None) -> None:
    if as_json:
        print(json.dumps(snapshot.status if snapshot else {"state": "nothing yet"}), flush=True)
        return
    text = line(snapshot) if snapshot else "no run here yet"
    if live:
        live.update(text)
    else:
        click.echo(text, file=sys.stderr)
