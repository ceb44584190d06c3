"""A plain torch training loop: one process, resumable, without Ray.

Notable choices: a batch is a function of (seed, step), so resuming repeats and skips nothing; the schedule follows
the share of the steps or of the time that is done, kept in the checkpoint; validation runs the same code as
production.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgtx.imageops.metrics import psnr_y
from imgtx.inference.predictor import Predictor
from imgtx.models.weights import Model
from imgtx.training.feeds import Data, from_folders
from imgtx.training.log import STRIP, ValidationSample, draw_strip
from imgtx.training.pairs import Pair
from imgtx.training.spec import TrainSpec
from imgtx.training.state import Training, write_weights

Reporter = Callable[[dict[str, Any]], None]

REPORT_STEPS = 50


def validation_samples(predictor: Predictor, pairs: list[Pair]) -> list[ValidationSample]:
    """Run the model on every pair."""
    if predictor.info.masks:
        whole = [(pair, pair.small[..., :-1], pair.small[..., -1]) for pair in pairs]
        return [ValidationSample(small, predictor(small, mask), pair.clean) for pair, small, mask in whole]
    return [ValidationSample(pair.small, predictor(pair.small), pair.clean) for pair in pairs]


def mean_psnr(images: list[ValidationSample]) -> float:
    """Return the mean PSNR-Y in dB of uint8 output against the clean images, `scale` border pixels cropped."""
    return float(
        np.mean([psnr_y(i.output, i.clean, crop=i.clean.shape[0] // i.small.shape[0]) for i in images])
    )


def train(
    spec: TrainSpec,
    folder: Path,
    report: Reporter,
    *,
    data: Data | None = None,
    device: str = "cpu",
    clock: Callable[[], float] | None = None,
) -> Path:
    """Train, or continue training, in `folder`; return the weight file. Ctrl-C leaves a resumable state.

    `data`: the batches and validation images, by default from the spec's folders.
    `clock` returns the seconds that the schedule counts: on a CPU by default those that the process computed, so that
    a busy machine takes longer and trains as much; elsewhere those that passed. With a clock that counts its calls,
    training repeats bit for bit.
    """
    data = data or from_folders(spec)
    training = Training(spec, folder, device)
    (folder / "spec.json").write_text(json.dumps(asdict(spec), indent=2))
    try:
        return run(training, data, report, clock)
    finally:
        training.save()


def run(training: Training, data: Data, report: Reporter, clock: Callable[[], float] | None = None) -> Path:
    """Run the loop to the end of `training`, alone or as one of a group of workers in step."""
    spec, progress, group = training.spec, training.progress, training.group
    clock = clock or clock_of(training.device)
    while training.share < 1.0:
        started, before = clock(), progress.seconds
        progress.losses.append(training.step(data.feed.batch(progress.step)))
        progress.seconds += float(group.mean(torch.tensor(clock() - started, dtype=torch.float64)))
        if progress.step % REPORT_STEPS == 0:
            loss = float(np.mean(progress.losses))
            progress.losses.clear()
            report(_line(training, loss))
        if _passed(before, progress.seconds, spec.validate_minutes) and group.is_leader:
            report(_line(training, None) | _score(training, data.valid))
        if _passed(before, progress.seconds, spec.checkpoint_minutes):
            group.checkpoint(training)
    if group.is_leader:
        report(_line(training, None) | _score(training, data.valid))
    group.checkpoint(training)
    return write_weights(training)


def clock_of(device: str) -> Callable[[], float]:
    """Return the default clock: seconds that this process computed on a CPU, seconds that passed elsewhere."""
    return time.process_time if torch.device(device).type == "cpu" else time.perf_counter


def _passed(before: float, now: float, minutes: float) -> bool:
    """Return whether a multiple of `minutes` is between two counts of seconds; the same after an interruption."""
    return before // (60 * minutes) < now // (60 * minutes)


def _line(training: Training, loss: float | None) -> dict[str, Any]:
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
    return line if loss is None else line | {"loss": round(loss, 6)}


def _score(training: Training, valid: list[Pair]) -> dict[str, float]:
    """Validate the averaged weights; write them and a strip of samples beside the checkpoint."""
    progress = training.progress
    predictor = Predictor(Model(training.averaged(), training.info(), ""), device=training.device)
    images = validation_samples(predictor, valid)
    psnr = mean_psnr(images)
    draw_strip(images).save(training.folder / STRIP)
    # A finished training that is run again adds nothing.
    if not progress.history or progress.history[-1]["step"] < progress.step:
        progress.history.append({"step": progress.step, "valid_psnr_y": psnr})
    write_weights(training)
    return {"valid_psnr_y": round(psnr, 3)}
