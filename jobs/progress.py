"""How a run shows itself while it goes: a bar on a terminal, a line every half minute elsewhere, JSON for machines."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from jobs.tally import Tally

LINE_SECONDS = 30.0

Watcher = Callable[[Tally], None]


@contextmanager
def watcher(*, as_json: bool, console: Console) -> Iterator[Watcher]:
    """A function to call with the tally as often as it changes; draws on stderr, stdout stays for results."""
    if as_json:
        yield _every(LINE_SECONDS, lambda tally: print(json.dumps(tally.to_dict("running")), flush=True))
    elif console.is_terminal:
        with _bar(console) as watch:
            yield watch
    else:
        yield _every(LINE_SECONDS, lambda tally: print(line(tally), file=sys.stderr, flush=True))


def line(tally: Tally) -> str:
    """Where the run stands, in one line: `320/2000 images  1.84 MP/s  ETA 0:12:31  failed 3 (truncated 2, empty 1)`."""
    text = f"{tally.done}/{tally.to_do} images  {rate(tally)}"
    if tally.done and tally.seconds:
        left = int((tally.to_do - tally.done) * tally.seconds / tally.done)
        text += f"  ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
    return text + failures(tally)


def rate(tally: Tally) -> str:
    return f"{tally.megapixels / tally.seconds:.2f} MP/s" if tally.seconds else "starting Ray"


def failures(tally: Tally) -> str:
    if not tally.failed:
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in tally.reasons.most_common(3))
    return f"  failed {tally.failed} ({reasons})"


@contextmanager
def _bar(console: Console) -> Iterator[Watcher]:
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failures]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("images", total=None, rate="starting Ray", failures="")

        def watch(tally: Tally) -> None:
            progress.update(
                task, total=tally.to_do, completed=tally.done, rate=rate(tally), failures=failures(tally)
            )

        yield watch


def _every(seconds: float, show: Callable[[Tally], None]) -> Watcher:
    last = time.monotonic()

    def watch(tally: Tally) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            show(tally)

    return watch
