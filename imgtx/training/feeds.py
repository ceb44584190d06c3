"""Where a training gets its batches and validation images."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from imgtx.training.data.crops import Batch, Sampler
from imgtx.training.data.device_feed import DeviceBatch
from imgtx.training.data.left_out import LeftOut
from imgtx.training.data.pairs import MIN_VALID_SIDE, Pair, degrade_validation
from imgtx.training.spec import TrainSpec


class Feed(Protocol):
    """Batches as a pure function of the step, so that a training can continue where it stopped."""

    def batch(self, step: int) -> Any: ...


class Data(NamedTuple):
    feed: Feed
    # What the objective scores the network on: pairs, or questions.
    valid: Sequence[Any]
    # The images that cannot be used, as far as this process knows them.
    left_out: LeftOut | None = None


def from_folders(spec: TrainSpec) -> Data:
    """Decode the spec's folders into memory, without images that cannot be used; UsageError if there is no other."""
    # Not above: a bare machine lacks its decoders.
    from imgtx.training.data.images import load_pairs

    left_out = LeftOut()
    pairs = load_pairs(Path(spec.train), spec.scale, smallest=spec.crop, left_out=left_out)
    valid = load_pairs(
        Path(spec.valid), spec.scale, smallest=MIN_VALID_SIDE, most=spec.valid_images, left_out=left_out
    )
    return from_pairs(spec, pairs, valid, left_out)


def from_pairs(
    spec: TrainSpec, pairs: list[Pair], valid: list[Pair], left_out: LeftOut | None = None
) -> Data:
    """Return the data of images that are in memory already."""
    settings = spec.crop_settings
    sampler = Sampler(pairs, settings, seed=spec.seed, batch=spec.batch)
    return Data(sampler, degrade_validation(valid, settings.degradation, settings.damage), left_out)


class PrefetchingFeed:
    """A feed whose next batches are prepared by threads while the device computes."""

    def __init__(self, feed: Feed, threads: int | None = None):
        self._feed = feed
        self._threads = threads or max(1, min(12, (os.cpu_count() or 1) - 1))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="imgtx-feed")
        self._made: dict[int, Future[Batch | DeviceBatch]] = {}

    def batch(self, step: int) -> Batch | DeviceBatch:
        for ahead in range(step, step + 2 * self._threads):
            if ahead not in self._made:
                self._made[ahead] = self._pool.submit(self._feed.batch, ahead)
        return self._made.pop(step).result()
