"""The nightly run: find new images, continue training, pass a gate, and update the outputs.

    plan -> train -> evaluate -> publish -> gate -> upscale

Each stage is a function that returns its findings; `nights/<date>/state.json` records them before the next stage
starts. A run that was killed continues after its last recorded stage; a finished one is not repeated. The stages are
idempotent, so a stage that was killed starts again (training continues from its own checkpoint). Between train and
publish the weights exist on this machine only; if they are gone, these stages run again.

    nights/<date>/state.json       the findings, stage by stage
    nights/<date>/images.parquet   the images that were drawn
    nights/<date>/lease/           one process per date
    consumed/<date>.parquet        see jobs/nightly/images.py

Runs of different dates may overlap: `latest` moves by compare-and-swap, and a run that finds it moved measures again.
"""

import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from imgtx.errors import RunInterruptedError, StorageError, UsageError
from imgtx.models.weight_file import file_digest
from jobs.nightly.context import NightlyRun, check_nightly_run
from jobs.nightly.images import from_parquet, mark_consumed
from jobs.nightly.stages import IMAGES, STAGES, Stages, finished, trained
from pipeline.ledger.lease import Lease


def run_nightly(nightly: NightlyRun, *, force_unlock: bool = False) -> dict[str, Any]:
    """Run the remaining stages and return the state. A finished run costs one read and changes nothing.

    Raises UsageError before any work, LeaseHeldError if another process runs this date, RunInterruptedError if the
    lease was lost.
    """
    if (state := read_state(nightly)).get("finished"):
        return state
    check_nightly_run(nightly)
    with Lease(nightly.record, f"nightly-{nightly.date}", force_unlock=force_unlock) as lease:
        # Another process may have finished it before this one got the lease.
        state = read_state(nightly)
        if state.get("finished"):
            return state
        nightly.record.sweep("")
        _do(nightly, state, lease)
        mark_consumed(nightly.state, nightly.date, from_parquet(nightly.record.read(IMAGES)))
        state["finished"] = _now()
        _write_state(nightly, state, lease)
    shutil.rmtree(nightly.folder, ignore_errors=True)
    return state


def _do(nightly: NightlyRun, state: dict[str, Any], lease: Lease) -> None:
    stages: Stages = state["stages"]
    _repeat_lost(nightly, stages)
    for name, stage in STAGES.items():
        if name not in stages:
            stages[name] = stage(nightly, stages)
            _write_state(nightly, state, lease)
        nightly.log(name, describe(stages[name]))


def read_state(nightly: NightlyRun) -> dict[str, Any]:
    """Return what an earlier process recorded for this date, or a new state."""
    try:
        return json.loads(nightly.record.read("state.json"))
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return {"date": nightly.date, "stages": {}}
    except ValueError as error:
        raise UsageError(
            f"{nightly.record.uri}state.json is damaged ({error}): remove it to run this date again"
        ) from error


def summary(state: dict[str, Any], *, before: bool) -> str:
    """Return a finished run in one line; `before`: it was finished before this process started."""
    gate = state["stages"]["gate"]
    what = f"latest stays: {gate['skipped']}" if "skipped" in gate else describe(gate)
    line = f"{state['date']}: {what}"
    return f"{line}; done at {state['finished']}, nothing to do" if before else line


def describe(found: dict[str, Any]) -> str:
    """Return the findings of a stage in one line."""
    return found.get("summary") or ", ".join(f"{name} {value}" for name, value in found.items())


def _repeat_lost(nightly: NightlyRun, stages: Stages) -> None:
    """Repeat the stages whose unpublished weights are not on this machine."""
    if "publish" in stages:
        return
    for name, path in (("train", trained(nightly)), ("evaluate", finished(nightly))):
        digest = stages.get(name, {}).get("digest")
        if digest and not (path.is_file() and file_digest(path) == digest):
            nightly.log(name, "its weights are not on this machine: running it again")
            for later in list(STAGES)[list(STAGES).index(name) :]:
                stages.pop(later, None)


def _write_state(nightly: NightlyRun, state: dict[str, Any], lease: Lease) -> None:
    if lease.lost:
        raise RunInterruptedError(
            "another process took over this date; the same command continues when that has ended"
        )
    record = state | {"spec": asdict(nightly.spec), "updated": _now()}
    nightly.record.write("state.json", (json.dumps(record, indent=1) + "\n").encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
