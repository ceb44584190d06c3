"""Show a run's progress: a bar on a terminal, a line every 30 s elsewhere, JSON for programs."""

import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from jobs.run.tally import Tally, Watcher

LINE_SECONDS = 30.0
# In columns of the terminal: below, speed and failures would wrap beside a bar; or there is no room for a bar at all.
WIDE, NARROW = 100, 70
# In megapixels: the speed of smaller images is told in images.
SMALL_IMAGE = 0.1
# Matches the beginning of what `line` returns, to find it in a log.
LINE = re.compile(r"\d+/\d+ images  ")


@dataclass(frozen=True)
class Display:
    """Called with every change of the tally. `paused` gives a context in which nothing is drawn."""

    show: Watcher
    paused: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __call__(self, tally: Tally) -> None:
        self.show(tally)


@contextmanager
def watcher(*, as_json: bool, console: Console) -> Iterator[Display]:
    """Yield what to call with every change of the tally. It draws on stderr; stdout is for results."""
    if as_json:
        shown = _every(LINE_SECONDS, _document)
    elif console.is_terminal:
        shown = _bar(console)
    else:
        shown = _every(LINE_SECONDS, _line, at_once=True)
    with shown as watch:
        yield watch


def _document(tally: Tally) -> None:
    print(json.dumps(tally.to_dict("running")), flush=True)


def _place(tally: Tally) -> str:
    """Return what runs where, in one line."""
    return f"{tally.to_do} image{'s' * (tally.to_do > 1)} {tally.place}"


def _line(tally: Tally) -> None:
    print(line(tally.to_dict("running")), file=sys.stderr, flush=True)


def line(status: Mapping[str, Any]) -> str:
    """Return the progress in one line: `320/2000 images  1.84 MP/s  ETA 0:12:31  failed 3 (truncated 2, empty 1)`.

    status: as `Tally.to_dict` returns it and `status.json` holds it.
    """
    return f"{_done(status)}/{status['to_do']} images  {_rate(status)}{_time_left(status)}{_failures(status)}"


def _done(status: Mapping[str, Any]) -> int:
    return status["to_do"] - (status["pending"] - status["left"])


def _rate(status: Mapping[str, Any]) -> str:
    """Return the speed over the last minute, in images where they are small, or what the run waits for.

    The speed counts what is done of images that are not finished, too.
    """
    if status["waiting_for"]:
        return status["waiting_for"]
    megapixels, images = status["megapixels_per_second"], status.get("images_per_second", 0.0)
    small = megapixels < SMALL_IMAGE * images
    return f"{images:.3g} images/s" if small else f"{megapixels:.3g} MP/s"


def _time_left(status: Mapping[str, Any]) -> str:
    """Return how long the rest takes at the speed of the last minute; "" before anything is done."""
    left = status["seconds_left"]
    return "" if left is None else f"  ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


def _failures(status: Mapping[str, Any]) -> str:
    """Return how many failed in this run, and the most frequent reasons; "" if none did."""
    failed = status["failed"] - status["failed_before"]
    if not failed:
        return ""
    most = ", ".join(f"{reason} {count}" for reason, count in Counter(status["reasons"]).most_common(3))
    return f"  failed {failed}" + (f" ({most})" if most else "")


class _Speed(ProgressColumn):
    """Speed and time left at the moment when they are drawn, also while nothing changes."""

    def render(self, task: Task) -> Text:
        tally = task.fields["tally"]
        if tally is None:
            return Text("planning")
        status = tally.to_dict("running")
        return Text(_rate(status) + _time_left(status))


class _Narrow(ProgressColumn):
    """All in one column, the most important first: what finds no room is cut off on the right."""

    def render(self, task: Task) -> Text:
        tally = task.fields["tally"]
        if tally is None:
            return Text("planning")
        status = tally.to_dict("running")
        text = f"{_done(status)}/{status['to_do']}{_time_left(status)}  {_rate(status)}{_failures(status)}"
        return Text(text, no_wrap=True, overflow="crop")


@contextmanager
def _stopped(progress: Progress) -> Iterator[None]:
    progress.stop()
    try:
        yield
    finally:
        progress.start()


@contextmanager
def _bar(console: Console) -> Iterator[Display]:
    columns: tuple[ProgressColumn, ...] = (
        SpinnerColumn(),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Speed(),
        TimeElapsedColumn(),
        TextColumn("[red]{task.fields[failures]}"),
    )
    if console.width < WIDE:
        bar = (BarColumn(bar_width=10),) if console.width >= NARROW else ()
        columns = (*bar, _Narrow(table_column=Column(no_wrap=True, overflow="crop")))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("images", total=None, tally=None, failures="")
        said: list[str] = []

        def watch(tally: Tally) -> None:
            if tally.place and not said:
                said.append(_place(tally))
                progress.console.print(said[0])
            failures = _failures(tally.to_dict("running"))
            done = tally.done + tally.in_hand.images
            progress.update(task, total=tally.to_do, completed=done, tally=tally, failures=failures)

        yield Display(watch, partial(_stopped, progress))


@contextmanager
def _every(seconds: float, show: Callable[[Tally], None], *, at_once: bool = False) -> Iterator[Display]:
    """Show the tally every so many seconds, also while nothing changes, as during a slow image."""
    seen: list[Tally] = []
    said: list[str] = []
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            show(seen[-1])

    thread = threading.Thread(target=repeat, name="imgtx-progress", daemon=True)

    def watch(tally: Tally) -> None:
        if at_once and tally.place and not said:
            said.append(_place(tally))
            print(said[0], file=sys.stderr, flush=True)
        seen[:] = [tally]
        if not thread.ident:
            if at_once:
                show(tally)
            thread.start()

    try:
        yield Display(watch)
    finally:
        stop.set()
        if thread.ident:
            thread.join()
