"""A small setup for nightly runs: an archive, validation photos, weights that training improves."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from datetime import date as day
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from imgtx.degradations.dead_leaves import dead_leaves
from imgtx.models.config import ModelConfig
from imgtx.models.info import ModelInfo
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weights import save_weights
from jobs.models.admin import import_model, promote
from jobs.nightly.context import NightlyConsole, NightlyRun, open_nightly_run
from jobs.nightly.loop import run_nightly
from jobs.nightly.spec import NightlySpec
from pipeline.models.store import ModelStore
from pipeline.storage.store import open_store
from tests.support.zoo import saved

# Pixels a side: the halo is measured on photos larger than its largest tiles.
IMAGE, VALID = 72, 208


class World:
    """All stores under one URI, a folder or a bucket: `archive`, `valid`, `models`, `nights`, `out`."""

    def __init__(self, root: str, work: Path, **changes: Any):
        self.root, self.work = root.rstrip("/"), work
        self.images = 0
        self.add_images(6)
        valid = open_store(f"{self.root}/valid")
        for number in range(2):
            valid.write(f"{number}.png", leaves(1000 + number, VALID))
        work.mkdir(parents=True, exist_ok=True)
        self.begin = import_model(save_noisy_model(work / "tiny.safetensors"), f"{self.root}/models/tiny")[0]
        promote(self.begin)
        self.spec = NightlySpec(
            archive=f"{self.root}/archive",
            model=f"{self.root}/models/tiny",
            state=f"{self.root}/nights",
            valid=f"{self.root}/valid",
            train={
                "steps": 24,
                "batch": 2,
                "crop": 16,
                "peak_lr": 1e-3,
                "precision": "float32",
                "average": 0.9,
            },
            **changes,
        )

    @property
    def models(self) -> ModelStore:
        return ModelStore(open_store(f"{self.root}/models"))

    @property
    def latest(self) -> str:
        pointer = self.models.latest("tiny")
        assert pointer
        return pointer.version

    def add_images(self, count: int) -> None:
        archive = open_store(f"{self.root}/archive")
        for number in range(self.images, self.images + count):
            archive.write(f"{number % 3}/{number}.png", leaves(number, IMAGE))
        self.images += count

    def night(self, date: str, spec: NightlySpec | None = None) -> NightlyRun:
        shown = NightlyConsole(Console(file=StringIO()), lambda: nullcontext(lambda tally: None))
        return open_nightly_run(spec or self.spec, day.fromisoformat(date), self.work, shown)

    def run(self, date: str, spec: NightlySpec | None = None) -> dict[str, Any]:
        return run_nightly(self.night(date, spec))


def as_toml(spec: NightlySpec) -> str:
    """Return the spec as a user writes it."""
    values = {name: value for name, value in asdict(spec).items() if value is not None}
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if name not in tables]
    for table, fields in tables.items():
        lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]
    return "\n".join(lines)


@cache
def leaves(seed: int, side: int) -> bytes:
    return saved(dead_leaves(np.random.default_rng(seed), side, side))


def save_noisy_model(path: Path) -> str:
    """Save tiny weights that add noise to bicubic, so that a few steps of training improve them."""
    config = ModelConfig(
        scale=2, dim=16, heads=1, window=4, encoder_blocks=1, decoder_blocks=1, detail_channels=4, detail_blocks=1,
        ffn_ratio=1.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EncoderDecoder(config)
        torch.nn.init.normal_(network.head.weight, std=0.02)
    info = ModelInfo(
        name=path.stem, task="super-resolution", scale=2, multiple=config.multiple, halo=config.multiple
    )
    save_weights(path, network, info)
    return str(path)
