"""Training as the user sees it: a progress bar on a terminal, a line per report elsewhere, a log in the folder."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from imgtx.inference.cores import usable_cores
from imgtx.inference.predictor import default_device
from imgtx.inference.processor import this_processor
from imgtx.printable import printable
from imgtx.training.folder import held_folder
from imgtx.training.log import TrainingLog
from imgtx.training.loop import train
from imgtx.training.spec import TrainSpec
from imgtx.training.state import CHECKPOINT, Spec
from imgtx.training.style.spec import StyleSpec
from imgtx.training.threads import Threads
from jobs.train.captioned import train_text_to_image
from jobs.train.ray import RayTrainConfig, train_on_ray
from jobs.train.stylised import train_style
from pipeline.models.resolve import local_model

# sr-x2, batch 8 of 48 px, one thread on such a CPU: 1.07 s a step in bfloat16, 0.60 in float32.
EMULATED = (
    "this CPU has no bfloat16 instructions and takes nearly twice as long as with float32: "
    "--set precision=float32 (not for a training that has begun)"
)


def run_training(
    spec: Spec,
    folder: Path,
    console: Console,
    config: RayTrainConfig | None = None,
    *,
    endpoint_url: str | None = None,
) -> Path:
    """Train in `folder` (state, log, weights); return the weight file. The same call continues where it stopped.

    With a `config` several workers train on Ray, and their state is in its storage. endpoint_url: of `init_from`.
    """
    loss = spec.loss if isinstance(spec, TrainSpec) else spec.objective
    with (
        _said(console),
        held_folder(folder),
        TrainingLog(folder, loss) as record,
        _terminal(console) as show,
    ):

        def report(values: dict[str, Any]) -> None:
            record(values)
            show(values)

        if config:
            assert isinstance(spec, TrainSpec)
            return train_on_ray(spec, config, folder, report)
        # A training that has begun does without them.
        began = not spec.init_from or (folder / CHECKPOINT).exists()
        weights = "" if began else local_model(spec.init_from, endpoint_url)
        device = default_device()
        if device == "cpu" and spec.precision in this_processor().emulated:
            console.print(EMULATED, highlight=False)
        with closing(Threads(usable_cores())) if device == "cpu" else nullcontext() as threads:
            if isinstance(spec, StyleSpec):
                return train_style(spec, folder, report, threads, weights)
            if not isinstance(spec, TrainSpec):
                return train_text_to_image(spec, folder, report, threads, weights)
            return train(spec, folder, report, device=device, threads=threads, first_weights=weights)


class ConsoleHandler(logging.Handler):
    """Prints what training logs, above the bar of a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(printable(record.getMessage()), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _said(console: Console) -> Iterator[None]:
    """Print on the console what training logs: where it continues, what it leaves out."""
    log, handler = logging.getLogger("imgtx.train"), ConsoleHandler(console)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@contextmanager
def _terminal(console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that shows a report: it moves the bar of a terminal, or prints a line elsewhere."""
    if not console.is_terminal:
        yield lambda values: console.print(_line(values), highlight=False, soft_wrap=True)
        return
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[summary]}"))
    last: dict[str, Any] = {}
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=1.0, summary="starting")

        def show(values: dict[str, Any]) -> None:
            last.update(values)
            bar.update(task, completed=values["done"], summary=format_summary(last))

        yield show


def format_summary(values: dict[str, Any]) -> str:
    """`step 1200  loss 0.0213  lr 0.00048  27.9/s  ETA 0:41  valid 34.12 dB`"""
    minutes = int(values["minutes_left"])
    parts = [f"step {values['step']}", f"loss {values['loss']:.4f}" if "loss" in values else ""]
    parts += [f"{values['workers']} workers"] if "workers" in values else []
    parts += [f"lr {values['lr']:.2g}", f"{values['samples_per_second']:.3g}/s"]
    parts += [f"ETA {minutes // 60}:{minutes % 60:02}"]
    parts += [f"valid {values['valid_psnr_y']:.2f} dB" if "valid_psnr_y" in values else ""]
    parts += [f"valid {values['valid_attributes']:.1%}" if "valid_attributes" in values else ""]
    parts += [f"valid {values['valid_loss']:.3f}" if "valid_loss" in values else ""]
    return "  ".join(part for part in parts if part)


def _line(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
