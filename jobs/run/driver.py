"""Run a job from its spec to its summary: lease, plan, process, record, account.

    prepare (every user mistake is reported here) -> lease -> plan -> passes over the stages -> summary

The driver is the only writer of the ledger. It drains outcome rows and appends them every few seconds. If it is killed,
at most those seconds are lost, and the next run repeats only these images.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import ImgtxError, ModelError, RunInterruptedError, StorageError, UsageError
from jobs.run.access import AccessMonitor
from jobs.run.prepare import WAVE, Prepared, keep_inputs, plan_run, prepare
from jobs.run.tally import Summary, Tally, Watcher
from pipeline.cluster.address import address_of, check_address
from pipeline.cluster.session import check_compiles
from pipeline.ledger.lease import Lease
from pipeline.models.references import is_fetched
from pipeline.planning.plan import OVERWRITES, PLANNED, Plan
from pipeline.runs import last_spec
from pipeline.spec import Job, RunSpec
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
    OUTCOME,
    PENDING,
    RUNS,
    WORK,
    WRITTEN,
)

if TYPE_CHECKING:
    from pipeline.cluster.metrics import RunMetrics
    from pipeline.cluster.pool import Pool  # at run time Ray is imported only by a run that has work

log = logging.getLogger("imgtx.run")

FLUSH_ROWS, FLUSH_SECONDS = 500, 3.0
STATUS_SECONDS = 10.0
ISOLATED_PASSES = 2
# Further passes after a machine was lost: the images that it was processing are not to blame.
DISTURBED_PASSES = 5


def run(spec: RunSpec, watch: Watcher, *, retry_failed: bool = False, force_unlock: bool = False) -> Summary:
    """Process everything that the plan asks for; return the summary, which is also in `runs/<run id>/`.

    Raises UsageError before any work, LeaseHeldError where another run is at work, RunInterruptedError after Ctrl-C.
    """
    prepared = prepare(spec)
    check_shared(prepared.opened.source.store)
    check_shared(prepared.destination)
    check_address(address_of(prepared.job.spec))
    check_compiles(prepared.job.spec)
    check_destination(prepared.destination)
    with Lease(prepared.destination, prepared.run_id, force_unlock=force_unlock) as lease:
        _sweep(prepared.destination)
        prepared.ledger.compact_if_due()
        prepared = keep_inputs(prepared)
        _warn_of_another_source(prepared)
        plan = plan_run(prepared, retry_failed=retry_failed)
        session = Session(prepared, plan, lease, watch)
        try:
            session.process()
        except (KeyboardInterrupt, RunInterruptedError) as stop:
            # The storage's credentials may be what ended the run; what is not recorded runs again.
            with suppress(StorageError):
                session.finish("interrupted")
            why = f" ({stop})" if str(stop) else ""
            raise RunInterruptedError(
                f"stopped{why}: {session.tally.done} done, {session.tally.pending} pending; "
                "run the same command to continue"
            ) from stop
        except Exception:
            # The first error is the one to report.
            with suppress(ImgtxError):
                session.finish("failed")
            raise
        if session.tally.to_do:
            _sweep(prepared.destination)
        return session.finish("done")


def _sweep(destination: Store) -> None:
    """Remove half-written files of killed workers: only under the lease and while no worker of this run is active."""
    for prefix in (IMAGES, RUNS, LEDGER_PARTS, LEASES):
        destination.sweep(prefix)


def _warn_of_another_source(run: Prepared) -> None:
    # UsageError: there is no earlier run, or its spec cannot be read.
    with suppress(UsageError):
        before = last_spec(run.destination.uri, run.destination.endpoint_url).source
        now = run.job.spec.source
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
        self.tally = Tally.from_plan(run.run_id, plan, self.waves())
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
            self._process()
        except StorageError as error:
            if error.reason == CREDENTIALS:
                raise RunInterruptedError(str(error)) from error
            raise

    def _process(self) -> None:
        self.watch(self.tally)
        if not self.tally.to_do:
            self.begin()
            return
        from pipeline.cluster.metrics import RunMetrics
        from pipeline.cluster.pool import size_pool
        from pipeline.cluster.session import configure_data, ray_session

        with ray_session(self.run.job.spec) as resources:
            pool = size_pool(self.run.job.spec, resources, self.tally.to_do)
            configure_data(pool)
            self.begin()
            self.tally.pool = pool
            self.tally.started_work = time.monotonic()
            self.metrics = RunMetrics(self.run.destination.uri, self.run.job.spec.task)
            self.watch(self.tally)
            for wave in self.waves():
                self.begin_wave(wave)
                self._mark_pending(wave)
                self._wave(wave, pool)
                self._check_lease()
                self.run.ledger.merge_if_due()

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
        if self.lease.lost:
            raise RunInterruptedError("another run took the lease over")

    def _append(self, rows: pa.Table) -> None:
        self._check_lease()
        self.run.ledger.append(rows, recipe=self.run.job.recipe.digest, run=self.run.run_id)

    def _wave(self, work: pa.Table, pool: "Pool") -> None:
        """Run one wave until every key has a row: lost keys run again, alone, and are then recorded as failed."""
        from pipeline.cluster.session import machines

        there, passes, disturbed = machines(), 0, 0
        lost, _ = self._pass(work, pool)
        while lost.num_rows and passes < ISOLATED_PASSES:
            gone = bool(there - machines()) and disturbed < DISTURBED_PASSES
            there, disturbed, before = machines(), disturbed + gone, lost.num_rows
            how = "a machine is gone: running them again" if gone else "running them alone"
            log.warning("%d images came back without a row: %s", before, how)
            if self.metrics:
                self.metrics.retried(before)
            lost, whole = self._pass(lost, pool if gone else pool.isolated())
            # An image is not to blame if it ran beside others, or on a machine that was lost.
            if not gone and (there <= machines() or disturbed == DISTURBED_PASSES):
                # A pass that Ray gave up has not run every image: it counts only if it brought no row.
                passes += whole or lost.num_rows == before
        if not lost.num_rows:
            return
        message = "its worker process ended each time this image ran alone"
        rows = [
            row | {"status": FAILED, "stage": "transform", "reason": "worker_crash", "message": message}
            for row in lost.to_pylist()
        ]
        self._take(to_table(rows, OUTCOME))

    def _pass(self, work: pa.Table, pool: "Pool") -> tuple[pa.Table, bool]:
        """Run one Ray dataset over `work`; return the rows that got no outcome, and whether it ran to its end."""
        from pipeline.cluster.private import local_daemon_died
        from pipeline.cluster.session import RAY_ENDED, STALL_SECONDS
        from pipeline.flow import build_dataset

        seen: list[pa.ChunkedArray] = []
        whole = True
        try:
            for block in build_dataset(work.select(WORK.names), self.run.job, pool).iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                seen.append(block["key"])
                self._take(block)
        except Exception as error:
            # Ray gave the dataset up; every key without a row is planned again, so nothing is lost by continuing.
            if not _is_ray_failure(error):
                raise
            if type(error).__name__ == "ExecutionTimeoutError":
                # No image is to blame: keys without a row stay pending.
                raise RunInterruptedError(f"nothing came back for {STALL_SECONDS / 3600:g} hours") from error
            if getattr(error, "actor_init_failed", False):
                raise ModelError(_why_no_model(self.run.job, error)) from error
            whole = False
            log.warning("Ray ended a pass early: %s", str(error).splitlines()[0][:200])
        self._flush()
        # An image that found no Ray must not be blamed for its worker's end.
        if local_daemon_died():
            raise RunInterruptedError(RAY_ENDED)
        done = pa.chunked_array([c for array in seen for c in array.chunks], pa.string())
        return work.filter(pc.invert(pc.is_in(work["key"], value_set=done))), whole

    def _take(self, rows: pa.Table) -> None:
        rows, ended = self.access.check(rows)
        if rows.num_rows:
            self._count(rows)
        if ended:
            raise RunInterruptedError(ended)

    def _count(self, rows: pa.Table) -> None:
        self.tally.add(rows)
        if self.metrics:
            self.metrics.add(rows)
            tally = self.tally
            self.metrics.show(pending=tally.pending, actors=tally.actors, waited=tally.waited)
        self.buffer.append(rows.select(OUTCOME.names).cast(OUTCOME))
        now = time.monotonic()
        if sum(t.num_rows for t in self.buffer) >= FLUSH_ROWS or now - self.flushed > FLUSH_SECONDS:
            self._flush()
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

    def _put(self, name: str, content: dict) -> None:
        data = json.dumps(content, indent=2).encode()
        self.run.destination.write(f"{RUNS}{self.run.run_id}/{name}", data)


def _why_no_model(job: Job, error: Exception) -> str:
    cause = str(error).strip().splitlines()[-1]
    if "--compile" in cause:
        return f"--model {job.spec.model} could not be compiled by a worker: {cause}"
    needs = "to reach it, with credentials," if is_fetched(job.spec.model) else "the file under this path"
    return (
        f"--model {job.spec.model} could not be loaded by a worker ({cause}): every machine of the cluster needs "
        f"{needs} and room for it"
    )


def _is_ray_failure(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] == "ray"
