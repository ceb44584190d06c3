"""Read the state of a destination and print plans and runs as tables."""

import shlex
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imgtx.models.choice import AUTO
from imgtx.printable import printable
from jobs.inspect.left_out import not_listed_line, skipped_line
from jobs.run.consent import Replacement
from jobs.run.progress import SMALL_IMAGE
from jobs.run.tally import Summary
from pipeline.ledger.lease import Lease, living_holder
from pipeline.ledger.ledger import Ledger
from pipeline.planning.plan import CLASSES, REFUSED, Plan
from pipeline.runs import last_run, last_spec, read_json
from pipeline.sources import open_selected
from pipeline.sources.images import ImageFolder
from pipeline.spec import RunSpec
from pipeline.storage.store import open_store
from pipeline.tables.rows import counts_of
from pipeline.tables.schemas import FAILED, IMAGES, REASONS, RUNS, SKIPPED
from pipeline.tasks import get_task
from pipeline.tasks.base import Opened
from pipeline.verify import VerifyReport, mark_pending, verify

# How many failed images are shown.
EXAMPLES = 10
KILLED = "killed; the same command continues"


def read_status(destination: str, endpoint_url: str | None) -> dict[str, Any]:
    """Return the status of the newest run and the counts of the ledger, by status and by reason of failure."""
    store = open_store(destination, endpoint_url=endpoint_url)
    run = read_json(store, f"{RUNS}{last_run(store)}/status.json")
    if run["state"] == "running" and living_holder(store) is None:
        run["state"] = KILLED
    statuses, reasons, examples = Counter[str](), Counter[str](), list[dict[str, str]]()
    for rows in Ledger(store).current_in_pieces(["key", "status", "reason", "stage", "message"]):
        failed = rows.filter(pc.equal(rows["status"], FAILED))
        statuses.update(counts_of(rows["status"]))
        reasons.update(counts_of(failed["reason"]))
        few = failed.slice(0, EXAMPLES - len(examples))
        examples += few.select(["key", "stage", "reason", "message"]).to_pylist()
    return {
        "destination": store.describe(),
        "arguments": _arguments(store.uri, endpoint_url),
        "run": run,
        "ledger": dict(statuses),
        "failures": dict(reasons),
        "examples": examples,
    }


def print_status(report: dict[str, Any], console: Console) -> None:
    run = report["run"]
    _say(console, f"[bold]{escape(report['destination'])}[/]  run {run['run']}: {run['state']}")
    _say(
        console,
        f"listed {run['listed']} = written {run['written']} + current {run['current']} + skipped {run['skipped']} "
        f"+ failed {run['failed']} + pending {run['pending']}",
    )
    _say_left_out(
        console, run["skipped"], run["listed"], run.get("skipped_kinds", {}), run.get("not_listed", {})
    )
    _say(console, "ledger: " + (", ".join(f"{k} {v}" for k, v in report["ledger"].items()) or "empty"))
    if report["failures"]:
        console.print(_failures(report["failures"]))
        _print_examples(report["examples"], console)
        quoted = escape(report["arguments"])
        hidden = sum(report["failures"].values()) - len(report["examples"])
        if hidden > 0:
            _say(console, f"... and {hidden} more: imgtx failures {quoted} lists them all")
        _say(console, f"imgtx retry {quoted} processes them again")


def _arguments(destination: str, endpoint_url: str | None) -> str:
    """Return what to write after `imgtx retry` and others to name a destination, quoted for a shell."""
    return shlex.join([destination, *(["--endpoint-url", endpoint_url] if endpoint_url else [])])


def _say(console: Console, line: str) -> None:
    """Print one line without wrapping it, so that paths can be copied."""
    console.print(printable(line), soft_wrap=True)


def _failures(counts: dict[str, int]) -> Table:
    table = Table("reason", "images", "meaning", title="failed")
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        table.add_row(reason, str(count), REASONS.get(reason, ""))
    return table


def _print_examples(rows: list[dict[str, str]], console: Console) -> None:
    for row in rows:
        line = f"  {row['key']}: {row['message']} [{row['stage']}]"
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def plan_dict(plan: Plan) -> dict[str, Any]:
    return {
        "listed": plan.listed,
        "to_do": plan.work.num_rows,
        "classes": {
            name: {"images": plan.counts.get(name, 0), "bytes": plan.sizes.get(name, 0)} for name in CLASSES
        },
        "vanished": plan.vanished,
        "replaces": plan.replaces,
        "deletes": plan.deletes,
        "not_listed": plan.not_listed,
        "skipped_kinds": plan.skipped_kinds,
    }


def print_plan(plan: Plan, console: Console) -> None:
    table = Table(
        "class", "images", "MB", "meaning", title=f"{plan.listed} listed, {plan.work.num_rows} to do"
    )
    for name, meaning in CLASSES.items():
        if plan.counts[name]:
            table.add_row(name, str(plan.counts[name]), f"{plan.sizes[name] / 1e6:.1f}", meaning)
    console.print(table)
    if plan.replaces or plan.deletes:
        found = Replacement(plan.replaces, plan.deletes, plan.images)
        _say(console, f"of images that have not changed, a run {found}")
    _say_left_out(console, plan.counts[SKIPPED], plan.listed, plan.skipped_kinds, plan.not_listed)
    if plan.vanished:
        _say(console, _vanished(plan.vanished))


def print_summary(summary: Summary, spec: RunSpec, console: Console) -> None:
    _say(
        console,
        f"[bold]listed {summary.listed} = written {summary.written} + current {summary.current} "
        f"+ skipped {summary.skipped} + failed {summary.failed} + pending {summary.pending}[/]",
    )
    if summary.written:
        _say(
            console,
            f"{_speed(summary)}, {summary.bytes_in / 1e6:.1f} MB read, "
            f"{summary.bytes_out / 1e6:.1f} MB written; {summary.seconds_total:.1f} s in all",
        )
    if len(summary.models) > 1 or spec.model == AUTO:
        made = ", ".join(f"{name} {count}" for name, count in sorted(summary.models.items()))
        _say(console, f"models: {escape(made) or 'none'} (imgtx upscale --help: --kind)")
    if line := unknown_line(summary):
        _say(console, f"[bold]warning:[/] {escape(line)}")
    if summary.bottleneck:
        _say(console, summary.bottleneck)
    if summary.reasons:
        console.print(_failures(summary.reasons))
    _say_left_out(console, summary.skipped, summary.listed, summary.skipped_kinds, summary.not_listed)
    root = escape(spec.destination.rstrip("/"))
    quoted = escape(_arguments(spec.destination.rstrip("/"), spec.endpoint_url))
    if summary.vanished:
        _say(console, _vanished(summary.vanished))
    if summary.failed:
        _say(
            console,
            f"{summary.failed} failed{_which_failed(summary)}: imgtx failures {quoted} names them, "
            f"imgtx retry {quoted} tries again",
        )
    _say(console, f"results  {root}/{IMAGES}")
    _say(console, f"ledger   {root}/ledger/")
    _say(console, f"summary  {root}/{RUNS}{summary.run}/summary.json")


def unknown_line(summary: Summary) -> str:
    """Return which words of the prompts the model does not know; "" where it knows all."""
    if not summary.with_unknown_words:
        return ""
    words = ", ".join(summary.unknown_words)
    return (
        f"{summary.with_unknown_words} of {summary.written} images have prompts with words that mean nothing to the "
        f"model: {summary.model_knows}: {words} (the ledger's column message has each image's; what the packaged model "
        "knows: docs/guides/generate.md)"
    )


def _which_failed(summary: Summary) -> str:
    """Return how many failures are not of this run's work: ", 2 of them before, 1 of them unread"."""
    unread = summary.causes.get(REFUSED, 0)
    counts = {"before": summary.failed_before - unread, "unread": unread}
    return "".join(f", {count} of them {which}" for which, count in counts.items() if count > 0)


def _speed(summary: Summary) -> str:
    """Return how much was done in which time; in images where they are small."""
    time = f"in {summary.seconds_work:.1f} s after start-up"
    if summary.megapixels < SMALL_IMAGE * summary.written:
        rate = summary.written / summary.seconds_work if summary.seconds_work else 0.0
        return f"{summary.written} image{'s' * (summary.written > 1)} {time} ({rate:.2f} images/s)"
    return f"{summary.megapixels:.2f} megapixels {time} ({summary.megapixels_per_second:.2f} MP/s)"


def _say_left_out(
    console: Console, skipped: int, listed: int, kinds: dict[str, int], not_listed: dict[str, int]
) -> None:
    if line := skipped_line(skipped, listed, kinds):
        _say(console, f"[bold]warning:[/] {escape(line)}")
    if line := not_listed_line(not_listed):
        _say(console, line)


def _vanished(count: int) -> str:
    return f"in the ledger and no longer in the source: {count}; their outputs stay"


def run_verify(destination: str, endpoint_url: str | None, *, deep: bool, fix: bool) -> VerifyReport:
    """Verify a destination against the source of its last run; with `fix`, mark damaged keys as pending."""
    spec = last_spec(destination, endpoint_url)
    store = open_store(destination, endpoint_url=spec.endpoint_url)
    ledger, task = Ledger(store), get_task(spec.task)
    source = open_selected(spec, task.sources)
    selection = source.selection if isinstance(source, ImageFolder) else None
    opened = Opened(source, task.open_inputs(spec))
    # Under the lease, so that what a run repairs meanwhile is not marked.
    with Lease(store, "verify") if fix else nullcontext():
        listing = task.list(opened, spec, local_destination=store.is_local)
        report = verify(listing, store, ledger, deep=deep, selection=selection)
        if fix:
            mark_pending(ledger, report.damaged_keys())
    return report


def print_verify(report: VerifyReport, destination: str, console: Console, *, fixed: bool) -> None:
    for row in report.problems.slice(0, 50).to_pylist():
        line = f"{row['problem']}: {row['output'] or row['key']}: {row['message']}"
        console.print(printable(line), markup=False, soft_wrap=True)
    if report.problems.num_rows > 50:
        _say(console, f"... and {report.problems.num_rows - 50} more (--json lists them all)")
    counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
    damaged = len(report.damaged_keys())
    verdict = "damaged" if damaged else "different from the ledger" if report.problems.num_rows else "sound"
    _say(console, f"[bold]{verdict}[/]: {counts}")
    if damaged and fixed:
        _say(
            console,
            f"{damaged} outputs are marked as pending: run the same command again to make them",
        )
    elif damaged:
        _say(console, f"imgtx verify {escape(destination)} --fix marks {damaged} outputs as pending")
