"""Run a job from its spec to its summary: lease, plan, process, record, account.

    prepare (every user mistake is reported here) -> lease -> plan -> passes over the stages -> summary

The driver is the only writer of the ledger. It drains outcome rows and appends them every few seconds. If it is killed,
at most those seconds are lost, and the next run repeats only these images.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import ImgtxError, RunInterruptedError, StorageError, UsageError, WorkersEndedError
from imgtx.memory import killed_for_memory, memory_at_hand
from jobs.run.access import AccessMonitor
from jobs.run.prepare import WAVE, Prepared, keep_inputs, plan_run, prepare
from jobs.run.tally import Summary, Tally, Watcher
from pipeline.cluster.address import check_address
from pipeline.cluster.session import check_compiles
from pipeline.engines.base import LOCAL, RAY, Engine
from pipeline.engines.choice import choose_engine
from pipeline.interrupt import interrupt_main
from pipeline.ledger.lease import Lease
from pipeline.planning.plan import OVERWRITES, PLANNED, Plan
from pipeline.runs import last_spec
from pipeline.spec import Job, RunSpec
from pipeline.stages.spool_folder import remove_abandoned
from pipeline.storage.checks import check_destination, check_shared
from pipeline.storage.store import Store
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import (
    COPIES,
    CREDENTIALS,
    FAILED,
    IMAGES,
    LEASES,
    LEDGER_PARTS,
    NO_SPACE,
    OUTCOME,
    PENDING,
    RUNS,
    WORK,
    WRITTEN,
)
from pipeline.tasks import get_task

if TYPE_CHECKING:
    from pipeline.cluster.metrics import RunMetrics

log = logging.getLogger("imgtx.run")

FLUSH_ROWS, FLUSH_SECONDS = 500, 3.0
STATUS_SECONDS = 10.0
# How often a run that waits looks whether its lease is lost; the storage is not asked for that.
LOOK_SECONDS = 1.0
ISOLATED_PASSES = 2
# Further passes after a machine was lost: the images that it was processing are not to blame.
DISTURBED_PASSES = 5


def accept(plan: Plan, spec: RunSpec) -> None:
    """Let every plan run."""


def run(
    spec: RunSpec,
    watch: Watcher,
    *,
    retry_failed: bool = False,
    force_unlock: bool = False,
    agree: Callable[[Plan, RunSpec], None] = accept,
) -> Summary:
    """Process everything that the plan asks for; return the summary, which is also in `runs/<run id>/`.

    agree: called with the plan before anything is done; raises UsageError for one that must not run.
    Raises UsageError before any work, LeaseHeldError where another run is at work, RunInterruptedError after Ctrl-C.
    """
    prepared = prepare(spec)
    check_shared(prepared.opened.source.store)
    check_shared(prepared.destination)
    if spec.engine != LOCAL:
        check_address(prepared.job.spec)
    check_compiles(prepared.job.spec)
    check_destination(prepared.destination)
    with Lease(prepared.destination, prepared.run_id, force_unlock=force_unlock) as lease:
        _sweep(prepared.destination)
        prepared.ledger.compact_if_due()
        prepared = keep_inputs(prepared)
        _warn_of_another_source(prepared)
        plan = plan_run(prepared, retry_failed=retry_failed)
        agree(plan, prepared.job.spec)
        session = Session(prepared, plan, lease, watch)
        try:
            session.process()
        except (KeyboardInterrupt, RunInterruptedError) as stop:
            # The storage's credentials may be what ended the run; what is not recorded runs again.
            # So is that of a run that has lost its lease.
            with suppress(StorageError, RunInterruptedError):
                session.finish("interrupted")
            why = f" ({stop})" if str(stop) else ""
            raise RunInterruptedError(
                f"stopped{why}: {session.tally.done} done, {session.tally.pending} pending; "
                "run the same command to continue"
            ) from stop
        except Exception as error:
            # The first error is the one to report.
            with suppress(ImgtxError):
                session.finish("failed")
            if isinstance(error, StorageError) and error.reason == NO_SPACE:
                raise session.no_space(error) from error
            if isinstance(error, WorkersEndedError):
                raise WorkersEndedError(
                    f"stopped after {session.tally.done} images, {session.tally.pending} pending: {error}; then the "
                    "same command continues"
                ) from error
            raise
        if session.tally.to_do:
            _sweep(prepared.destination)
        summary = session.finish("done")
        job = prepared.job
        get_task(job.spec.task).finish(prepared.opened, job.spec, prepared.destination, prepared.ledger)
        return summary


def _sweep(destination: Store) -> None:
    """Remove half-written files of killed workers: only under the lease and while no worker of this run is active."""
    for prefix in (IMAGES, RUNS, LEDGER_PARTS, LEASES):
        destination.sweep(prefix)


def _warn_of_another_source(run: Prepared) -> None:
    # UsageError: there is no earlier run, or its spec cannot be read.
    with suppress(UsageError):
        before = last_spec(run.destination.uri, run.destination.endpoint_url).source
        now = run.job.spec.source
        if now.startswith(f"{before.rstrip('/')}/") and now.rstrip("/") != before.rstrip("/"):
            place = now.removeprefix(before).strip("/")
            log.warning(
                "the last run on this destination read %s, this one reads %s, and keys are relative to the source: for "
                "the keys of the last run give %s and --include '%s/**'",
                before,
                now,
                before,
                place,
            )
            return
        copies = all(f"/{COPIES}" in uri for uri in (before, now))
        # An edited table has another copy, and its rows show what changed.
        if before != now and not (copies and before.rpartition("/")[2] == now.rpartition("/")[2]):
            log.warning(
                "the last run on this destination read %s, this one reads %s: outputs of equal keys are replaced",
                before,
                now,
            )


class Session:
    """The work of one run under its lease: passes over the stages, the ledger, the status file."""

    def __init__(self, run: Prepared, plan: Plan, lease: Lease, watch: Watcher):
        self.run, self.plan, self.lease, self.watch = run, plan, lease, watch
        by_size = not run.job.info.generation
        self.tally = Tally.from_plan(run.run_id, plan, self.waves(), by_size=by_size)
        self.tally.in_hand.changed = self._part_done
        # Rows of the wave whose new output replaces a file under another name.
        self.replacing = PLANNED.empty_table()
        self.buffer: list[pa.Table] = []
        self.flushed = self.reported = time.monotonic()
        self.begun = False
        self.access = AccessMonitor(run.opened.source.store)
        # Set once Ray is up.
        self.metrics: RunMetrics | None = None

    def waves(self) -> Iterator[pa.Table]:
        """Yield the rows of the plan that this run processes, in tables of WAVE rows."""
        left = self.run.job.spec.limit
        for wave in self.plan.work.tables(WAVE):
            yield wave.slice(0, left)
            if left is not None:
                left = max(0, left - wave.num_rows)
                if not left:
                    return

    def begin(self) -> None:
        """Record the settings: from now on this is the destination's last run. A run that cannot start records none."""
        self.begun = True
        self._put("spec.json", self.run.job.spec.to_dict() | {"recipe": self.run.job.recipe.digest})
        self._put("status.json", self.tally.to_dict("running"))
        self._record_left_out()

    def process(self) -> None:
        """Run all waves; raise RunInterruptedError where the run cannot continue but its state is sound."""
        try:
            with self._looking_at_the_lease():
                self._process()
        except KeyboardInterrupt:
            self._check_lease()
            raise
        except StorageError as error:
            if error.reason == CREDENTIALS:
                raise RunInterruptedError(str(error)) from error
            raise

    def _process(self) -> None:
        if not self.tally.to_do:
            self.watch(self.tally)
            self.begin()
            return
        task = get_task(self.run.job.spec.task)
        task.keep(self.run.opened, self.run.job.spec, self.run.destination)
        engine = self.tally.engine = self._choose()
        self.tally.place = _known_place(engine, self.run.job.spec, self.tally.to_do)
        self.watch(self.tally)
        with ExitStack() as stack:
            # After the last worker has ended.
            stack.callback(remove_abandoned)
            started = stack.enter_context(_start(engine, self.run.job, self.tally))
            # The local engine is up when a worker has loaded the model.
            self.tally.start(started.pool, started.place, ready=engine == LOCAL)
            self.begin()
            if engine == RAY:
                from pipeline.cluster.metrics import RunMetrics

                self.metrics = RunMetrics(self.run.destination.uri, self.run.job.spec.task)
            self.watch(self.tally)
            for planned in self.waves():
                wave = task.arrange(planned)
                self.begin_wave(wave)
                self._mark_pending(wave)
                self._wave(wave, started)
                self._check_lease()
                self.run.ledger.merge_if_due()

    def _choose(self) -> str:
        size = sum(pc.sum(wave["size"]).as_py() or 0 for wave in self.waves())
        return choose_engine(self.run.job.spec, self.tally.to_do, size)

    def begin_wave(self, wave: pa.Table) -> None:
        """Note which files the outputs of these rows will supersede."""
        self.replacing = wave.filter(pc.not_equal(wave["previous_output"], ""))

    def _mark_pending(self, work: pa.Table) -> None:
        """Mark rows as pending whose files workers are about to overwrite.

        If the run is killed in between, these keys run again under any recipe. Otherwise a return to the old settings
        would find the new pixels under the old row and count them as current.
        """
        overwritten = work.filter(pc.is_in(work["cause"], pa.array(OVERWRITES)))
        pending = to_table([row | {"status": PENDING} for row in overwritten.to_pylist()], OUTCOME)
        self._append(pending)

    def _check_lease(self) -> None:
        if not self.lease.lost:
            return
        if self.lease.removed:
            raise StorageError(
                "storage",
                f"{self.run.destination.describe()} was removed, or its {LEASES}, while the run wrote to it; a run "
                "needs its destination: the same command begins again with what is there",
            )
        raise RunInterruptedError(self.lease.why_lost)

    @contextmanager
    def _looking_at_the_lease(self) -> Iterator[None]:
        """Interrupt the main thread when the lease is lost: it may wait for hours for an image."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK_SECONDS):
                if self.lease.lost:
                    interrupt_main()
                    return

        thread = threading.Thread(target=look, name="imgtx-look-at-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    def _append(self, rows: pa.Table) -> None:
        self._check_lease()
        job = self.run.job
        recipes = {choice.job.spec.model: choice.job.recipe.digest for choice in job.choices}
        self.run.ledger.append(rows, recipe=job.recipe.digest, run=self.run.run_id, recipes=recipes)

    def _wave(self, work: pa.Table, engine: Engine) -> None:
        """Run one wave until every key has a row: lost keys run again, alone, and are then recorded as failed."""
        there, passes, disturbed, killed = engine.machines(), 0, 0, 0
        lost = self._pass(work, engine, alone=False)
        while lost.num_rows and passes < ISOLATED_PASSES:
            gone = bool(there - engine.machines()) and disturbed < DISTURBED_PASSES
            there, disturbed, before = engine.machines(), disturbed + gone, lost.num_rows
            how = "a machine is gone: running them again" if gone else "running them alone"
            log.warning("%d images came back without a row: %s", before, how)
            if self.metrics:
                self.metrics.retried(before)
            killed = killed_for_memory()
            lost = self._pass(lost, engine, alone=not gone)
            killed = killed_for_memory() - killed
            # An image is not to blame if it ran beside others, or on a machine that was lost.
            if not gone and (there <= engine.machines() or disturbed == DISTURBED_PASSES):
                # A pass that was given up has not run every image: it counts only if it brought no row.
                passes += engine.whole or lost.num_rows == before
        if not lost.num_rows:
            return
        message = "its worker process ended each time this image ran alone"
        if killed >= lost.num_rows and (memory := memory_at_hand()):
            message += f", killed for memory ({memory.describe()})"
        rows = [
            row | {"status": FAILED, "stage": "transform", "reason": "worker_crash", "message": message}
            for row in lost.to_pylist()
        ]
        self._take(to_table(rows, OUTCOME))

    def _pass(self, work: pa.Table, engine: Engine, *, alone: bool) -> pa.Table:
        """Run `work` through the stages once; return the rows that got no outcome."""
        seen: list[pa.ChunkedArray] = []

        def record(blocks: Iterable[pa.Table]) -> None:
            for block in blocks:
                seen.append(block["key"])
                self._take(block)

        try:
            record(engine.run(work.select(WORK.names), alone=alone))
        except KeyboardInterrupt:
            record(engine.drain())
            raise
        finally:
            self.tally.in_hand.clear()
        self._flush()
        done = pa.chunked_array([c for array in seen for c in array.chunks], pa.string())
        return work.filter(pc.invert(pc.is_in(work["key"], value_set=done)))

    def _take(self, rows: pa.Table) -> None:
        rows, stop = self.access.check(rows)
        if rows.num_rows:
            self._count(rows)
        if stop:
            raise stop

    def _count(self, rows: pa.Table) -> None:
        self.tally.add(rows)
        if self.metrics:
            self.metrics.add(rows)
            tally = self.tally
            self.metrics.show(pending=tally.pending, actors=tally.actors, waited=tally.waited)
        self.buffer.append(rows.select(OUTCOME.names).cast(OUTCOME))
        full = sum(t.num_rows for t in self.buffer) >= FLUSH_ROWS
        if full or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._flush()
        self._report()

    def _part_done(self) -> None:
        """Show what is done of images that are not finished. Ray calls this in a thread of its own."""
        self.tally.mark()
        self._report()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self.reported > STATUS_SECONDS:
            self.reported = now
            self._put("status.json", self.tally.to_dict("running"))
        self.watch(self.tally)

    def _flush(self) -> None:
        """Append the buffered rows to the ledger; delete the outputs that they supersede."""
        # Before anything is deleted: the files may be another run's by now.
        self._check_lease()
        self.flushed = time.monotonic()
        if not self.buffer:
            return
        rows = pa.concat_tables(self.buffer)
        # Before the row: killed in between, the key is still pending and runs again; the other order leaves an orphan.
        for name in self._superseded(rows):
            self.run.destination.delete(IMAGES + name)
        self._append(rows)
        self.buffer.clear()

    def _superseded(self, rows: pa.Table) -> list[str]:
        """Return files under another name that the rows' new outputs replace."""
        written = rows.filter(pc.equal(rows["status"], WRITTEN))["key"].combine_chunks()
        gone = self.replacing.filter(pc.is_in(self.replacing["key"], value_set=written))
        return gone["previous_output"].to_pylist()

    def _record_left_out(self) -> None:
        """Record, once, what is never fetched: keys that are not images, and names that no output can have."""
        for left_out in self.plan.left_out.tables(WAVE):
            unrecorded = left_out.filter(pc.invert(left_out["recorded"]))
            self._append(to_table([row | {"stage": "list"} for row in unrecorded.to_pylist()], OUTCOME))

    def finish(self, state: str) -> Summary:
        self._flush()
        summary = self.tally.summary(state)
        if self.begun:
            self._put("status.json", self.tally.to_dict(state))
            self._put("summary.json", summary.to_dict())
        return summary

    def no_space(self, error: StorageError) -> StorageError:
        """Return the error that ends a run whose destination takes no more files."""
        # Images whose rows did not fit are processed again.
        lost = [row for rows in self.buffer for row in rows["status"].to_pylist()]
        recorded, pending = self.tally.written - lost.count(WRITTEN), self.tally.pending + len(lost)
        return StorageError(
            NO_SPACE,
            f"no space left on {self.run.destination.describe()}: {recorded} written, {pending} pending; the same "
            f"command continues ({error})",
        )

    def _put(self, name: str, content: dict) -> None:
        data = json.dumps(content, indent=2).encode()
        self.run.destination.write(f"{RUNS}{self.run.run_id}/{name}", data)


def _known_place(engine: str, spec: RunSpec, images: int) -> str:
    """Return where images will be processed if that is known before the engine is up, else ""."""
    if engine == RAY:
        return ""
    from pipeline.engines.local import place_of, size_local_pool

    return place_of(size_local_pool(spec, images))


def _start(engine: str, job: Job, tally: Tally) -> AbstractContextManager[Engine]:
    """Return the context of a started engine. Each is imported by the runs that use it: Ray takes seconds."""
    if engine == RAY:
        from pipeline.engines.on_ray import ray_engine

        return ray_engine(job, tally.to_do, tally.in_hand, tally.worker_is_ready)
    from pipeline.engines.local import local_engine

    return local_engine(job, tally.to_do, tally.in_hand)
