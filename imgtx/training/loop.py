"""A plain torch training loop: one process, resumable, without Ray.

Notable choices: a batch is a function of (seed, step), so resuming repeats and skips nothing; the schedule follows
the share of the steps or of the time that is done, kept in the checkpoint; validation runs the same code as
production.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgtx.training.feeds import Data, from_folders
from imgtx.training.objective import Objective
from imgtx.training.spec import TrainSpec
from imgtx.training.state import Spec, Training, write_weights
from imgtx.training.threads import Threads

log = logging.getLogger("imgtx.train")

Reporter = Callable[[dict[str, Any]], None]

REPORT_STEPS = 50


def train(
    spec: Spec,
    folder: Path,
    report: Reporter,
    *,
    data: Data | None = None,
    objective: Objective | None = None,
    device: str = "cpu",
    clock: Callable[[], float] | None = None,
    threads: Threads | None = None,
    first_weights: str = "",
) -> Path:
    """Train, or continue training, in `folder`; return the weight file. Ctrl-C leaves a resumable state.

    `data`: the batches and validation images, by default from the spec's folders. `objective`: what is learned from
    them, by default what a TrainSpec means.
    `clock` returns the seconds that the schedule counts: on a CPU by default those that this thread computed, so that
    a busy machine takes longer and trains as much; elsewhere those that passed. With a clock that counts its calls,
    training repeats bit for bit.
    `threads` chooses the number of threads of a training on a CPU; by default torch's stays. `first_weights`: where
    `init_from` is on this machine, if that is elsewhere.
    """
    if data is None:
        # Data of other kinds is made by who knows them.
        assert isinstance(spec, TrainSpec)
        data = from_folders(spec)
    training = Training(spec, folder, device, objective=objective, first_weights=first_weights)
    (folder / "spec.json").write_text(json.dumps(asdict(spec), indent=2))
    try:
        return run(training, data, report, clock, threads)
    finally:
        training.save()


def run(
    training: Training,
    data: Data,
    report: Reporter,
    clock: Callable[[], float] | None = None,
    threads: Threads | None = None,
) -> Path:
    """Run the loop to the end of `training`, alone or as one of a group of workers in step."""
    spec, progress, group = training.spec, training.progress, training.group
    clock = clock or clock_of(training.device)
    first_step, first_seconds, passed = progress.step, progress.seconds, time.perf_counter()

    def trial() -> None:
        training.trial(data.feed.batch(progress.step))

    if threads and training.share < 1.0:
        threads.choose(trial)
    while training.share < 1.0:
        started, began, before = clock(), time.perf_counter(), progress.seconds
        progress.losses.append(training.step(data.feed.batch(progress.step)))
        seconds = threads.trained(clock() - started) if threads else clock() - started
        progress.seconds += float(group.mean(torch.tensor(seconds, dtype=torch.float64)))
        if threads:
            threads.watch(time.perf_counter() - began, trial)
        if progress.step % REPORT_STEPS == 0:
            loss = float(np.mean(progress.losses))
            progress.losses.clear()
            report(_line(training, data) | {"loss": round(loss, 6)})
        if _passed(before, progress.seconds, spec.validate_minutes) and group.is_leader:
            report(_line(training, data) | _score(training, data))
        if _passed(before, progress.seconds, spec.checkpoint_minutes):
            group.checkpoint(training)
    if group.is_leader:
        report(_line(training, data) | _score(training, data))
    group.checkpoint(training)
    if progress.step > first_step:
        log.info(
            "trained %d steps: %.2g minutes of computing, in %.2g that passed",
            progress.step - first_step,
            (progress.seconds - first_seconds) / 60,
            (time.perf_counter() - passed) / 60,
        )
    return write_weights(training)


def clock_of(device: str) -> Callable[[], float]:
    """Return the default clock: seconds that this thread computed on a CPU, seconds that passed elsewhere.

    Other threads share its work, or wait: with them counted too, waiting would be training.
    """
    return time.thread_time if torch.device(device).type == "cpu" else time.perf_counter


def _passed(before: float, now: float, minutes: float) -> bool:
    """Return whether a multiple of `minutes` is between two counts of seconds; the same after an interruption."""
    return before // (60 * minutes) < now // (60 * minutes)


def _line(training: Training, data: Data) -> dict[str, Any]:
    progress = training.progress
    share = training.share
    line: dict[str, Any] = {
        "step": progress.step,
        "minutes": round(progress.seconds / 60, 2),
        "minutes_left": round(progress.seconds / 60 * (1 - share) / max(share, 1e-9), 2),
        "done": round(share, 4),
        "lr": training.rate,
        "samples_per_second": round(progress.step * training.spec.batch / max(progress.seconds, 1e-9), 2),
    }
    return line | {"left_out": len(data.left_out)} if data.left_out else line


def _score(training: Training, data: Data) -> dict[str, float]:
    """Validate the averaged weights; write them and a picture of samples beside the checkpoint."""
    progress = training.progress
    scores = training.objective.score(
        training.averaged(), training.info(), data.valid, training.folder, training.device
    )
    # A finished training that is run again adds nothing.
    if not progress.history or progress.history[-1]["step"] < progress.step:
        progress.history.append({"step": progress.step, **scores})
    write_weights(training)
    return {name: round(value, 3) for name, value in scores.items()}
