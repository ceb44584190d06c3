"""The nightly loop: what is new in the archive, training that goes on, a gate, and outputs made anew.

    plan -> train -> evaluate -> publish -> gate -> upscale

Each stage is a function of the night that returns what it found; `nights/<date>/state.json` records it before the next
one begins. A night that was killed goes on behind its last recorded stage, a finished one is left alone. A stage that
was killed begins anew, and may: what it does twice it does the same (training goes on from its own checkpoint). Only
the weights between train and publish lie on this machine alone: where they are gone, these stages run again.

    nights/<date>/state.json       what was found, stage by stage
    nights/<date>/images.parquet   the images that were drawn
    nights/<date>/lease/           one process a date
    consumed/<date>.parquet        see jobs/nightly/images.py

Nights of different dates may overlap: the pointer moves by compare-and-swap, and who finds it moved measures again.
"""

import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from imgtx.errors import RunInterruptedError, StorageError, UsageError
from imgtx.models.weight_file import file_digest
from jobs.nightly.context import Night, check_night
from jobs.nightly.images import from_parquet, mark_consumed
from jobs.nightly.stages import IMAGES, STAGES, Stages, finished, trained
from pipeline.ledger.lease import Lease


def run_night(night: Night, *, force_unlock: bool = False) -> dict[str, Any]:
    """Do what is left of the night; returns its state. A finished night costs one read and changes nothing.

    Raises UsageError before any work, LeaseHeldError where another process is at this date, RunInterruptedError where
    the lease was lost.
    """
    if (state := read_state(night)).get("finished"):
        return state
    check_night(night)
    with Lease(night.own, f"nightly-{night.date}", force_unlock=force_unlock) as lease:
        state = read_state(night)  # somebody may have finished it before this lease was ours
        if state.get("finished"):
            return state
        night.own.sweep("")
        _do(night, state, lease)
        mark_consumed(night.state, night.date, from_parquet(night.own.read(IMAGES)))
        state["finished"] = _now()
        _write_state(night, state, lease)
    shutil.rmtree(night.folder, ignore_errors=True)
    return state


def _do(night: Night, state: dict[str, Any], lease: Lease) -> None:
    stages: Stages = state["stages"]
    _forget_lost(night, stages)
    for name, stage in STAGES.items():
        if name not in stages:
            stages[name] = stage(night, stages)
            _write_state(night, state, lease)
        night.say(name, told(stages[name]))


def read_state(night: Night) -> dict[str, Any]:
    """What the date's earlier process has recorded; a new state where there was none."""
    try:
        return json.loads(night.own.read("state.json"))
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return {"date": night.date, "stages": {}}
    except ValueError as error:
        raise UsageError(
            f"{night.own.uri}state.json is damaged ({error}): remove it to do the night anew"
        ) from error


def summary(state: dict[str, Any], *, before: bool) -> str:
    """A finished night in one line; `before`: it was finished before this process came."""
    gate = state["stages"]["gate"]
    what = f"latest stays: {gate['skipped']}" if "skipped" in gate else told(gate)
    line = f"{state['date']}: {what}"
    return f"{line}; done at {state['finished']}, nothing to do" if before else line


def told(found: dict[str, Any]) -> str:
    """A stage's findings in one line."""
    return found.get("told") or ", ".join(f"{name} {value}" for name, value in found.items())


def _forget_lost(night: Night, stages: Stages) -> None:
    """Weights that were not published yet lie on one machine: elsewhere the stages that made them run again."""
    if "publish" in stages:
        return
    for name, path in (("train", trained(night)), ("evaluate", finished(night))):
        digest = stages.get(name, {}).get("digest")
        if digest and not (path.is_file() and file_digest(path) == digest):
            night.say(name, "its weights are not on this machine: again")
            for later in list(STAGES)[list(STAGES).index(name) :]:
                stages.pop(later, None)


def _write_state(night: Night, state: dict[str, Any], lease: Lease) -> None:
    if lease.lost:
        raise RunInterruptedError(
            "another process took this date over; the same command goes on when it has ended"
        )
    record = state | {"spec": asdict(night.spec), "updated": _now()}
    night.own.write("state.json", (json.dumps(record, indent=1) + "\n").encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
