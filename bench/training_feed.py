"""Measure the cost of streaming training images from storage: the same steps fed from memory and by the stream.

    python -m bench.training_feed [--spec jobs/specs/sr-x2.toml] [--steps 64] [--rounds 3] [--photos FOLDER]

Each round times the training step (forward, backward, update) with both feeds in turn, in one process of one thread.
CPU seconds, the stream's threads included, so that other programs do not count. `first epoch` reads and decodes
everything (64 steps are a block of the stream: fewer would include the cost of images for later steps); `later` finds
all images in the worker's cache, as with a training set that fits in memory.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from bench.photos import photo_archive
from bench.report import save
from imgtx.codecs import SUFFIXES
from imgtx.training.data.crops import Sampler
from imgtx.training.data.images import load_pairs
from imgtx.training.feeds import Feed
from imgtx.training.spec import TrainSpec, load_train_spec
from imgtx.training.state import Training
from jobs.train.stream import Images, Shard, Stream
from pipeline.storage.store import open_store

MEGAPIXELS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, default=Path("jobs/specs/sr-x2.toml"))
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="a folder of photos  [default: an archive of JPEGs]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as name:
        photos = options.photos or Path(name) / "photos"
        if not options.photos:
            photo_archive(photos, MEGAPIXELS)
        spec = load_train_spec(options.spec, {"train": str(photos), "valid": str(photos)})
        rows = measure(replace(spec, init_from=""), Path(name), options.steps, options.rounds)
    save(
        "training_feed", {"spec": options.spec.name, "steps": options.steps, "rounds": options.rounds, **rows}
    )
    print(json.dumps(rows, indent=1))


def measure(spec: TrainSpec, folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """Return medians over rounds: CPU ms a crop from memory, and their ratio to the stream's, first and later."""
    training = Training(spec, folder)
    memory = Sampler(
        load_pairs(Path(spec.train), spec.scale, smallest=spec.crop),
        spec.crop_settings,
        seed=spec.seed,
        batch=spec.batch,
    )
    seconds_of(training, memory, 4)
    times: dict[str, list[float]] = {"memory": [], "first": [], "later": []}
    for _ in range(rounds):
        stream = streamed(spec)
        times["first"].append(seconds_of(training, stream, steps))
        times["memory"].append(seconds_of(training, memory, steps))
        all_in_cache(stream, spec)
        times["later"].append(seconds_of(training, stream, steps))
        stream.close()
    each = median(times["memory"])
    return {
        "cpu_ms_a_crop_from_memory": round(1000 * each / (steps * spec.batch), 2),
        "first_epoch_ratio": round(
            median(m / s for m, s in zip(times["memory"], times["first"], strict=True)), 3
        ),
        "later_ratio": round(median(m / s for m, s in zip(times["memory"], times["later"], strict=True)), 3),
    }


def streamed(spec: TrainSpec) -> Stream:
    import pyarrow as pa

    keys = sorted(path.name for path in Path(spec.train).iterdir() if path.suffix in SUFFIXES)
    images = Images(open_store(spec.train), pa.array(keys), spec.scale)
    return Stream(
        images,
        spec.crop_settings,
        seed=spec.seed,
        batch=spec.batch,
        crops=spec.crops_per_image,
        shard=Shard(),
    )


def all_in_cache(stream: Stream, spec: TrainSpec) -> None:
    """Read every image once, so that the cache keeps those that fit."""
    for visit in range(len(list(Path(spec.train).iterdir()))):
        stream._open(visit)


def seconds_of(
    training: Training, feed: Feed, steps: int, clock: Callable[[], float] = time.process_time
) -> float:
    started = clock()
    for step in range(steps):
        training.step(feed.batch(step))
    return clock() - started


if __name__ == "__main__":
    main()
