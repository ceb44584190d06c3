"""Training as a person sees it: one line for each report on the terminal, the same as JSON lines in the folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from imgtx.errors import UsageError
from jobs.train_loop import train
from jobs.train_spec import TrainSpec
from pipeline.model_store import local_model


def run_training(spec: TrainSpec, folder: Path, console: Console) -> Path:
    """Train in `folder` (state, log, weights); returns the weight file. The same call goes on where it stopped."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--folder {folder} cannot be made ({error.strerror}): give another folder"
        ) from error
    with (folder / "log.jsonl").open("a") as log:

        def report(values: dict[str, Any]) -> None:
            log.write(json.dumps(values) + "\n")
            log.flush()
            console.print(
                "  ".join(f"{name} {_short(value)}" for name, value in values.items()), highlight=False
            )

        if spec.init_from:
            spec = replace(spec, init_from=local_model(spec.init_from))
        return train(spec, folder, report, device="cuda" if torch.cuda.is_available() else "cpu")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
