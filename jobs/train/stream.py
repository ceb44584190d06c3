"""Stream training crops from object storage, epoch by epoch, each worker its part of every batch.

Notable choices: an epoch is a permutation of the keys by (seed, epoch), and epochs follow each other without a gap;
each visit to an image gives `crops` crops, the k-th drawn by (seed, epoch, key, k). So every batch is a function of
the step: a resumed training repeats and skips nothing, and it sees the same crops with any number of workers.
A block of ROTATION batches' images is open at a time and taken in turn, so that neighbouring batches share none;
the next block is fetched meanwhile, evenly.
"""

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from imgtx.errors import ImageError, UsageError
from imgtx.training.data.crops import Batch, CropSettings, DeadLeavesSource, cut, draw_place, stacked
from imgtx.training.data.images import photo_pixels
from imgtx.training.data.left_out import LeftOut
from imgtx.training.data.pairs import Pair, make_pair
from jobs.train.images import TRAIN, object_bytes
from pipeline.storage.store import Store

ROTATION = 4
# Threads: one waits for storage while the other decodes.
FETCHERS = 2
# Of a larger image each visit uses one window of this side: reducing the whole image for a few crops would cost more
# than training on them.
WINDOW = 1024
# Bytes of decoded images per worker; a training set that fits is read once.
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Images:
    """The images to stream: the objects `keys` of `store` (sorted), reduced `scale` times."""

    store: Store
    keys: pa.Array
    scale: int


@dataclass(frozen=True)
class Shard:
    """Which of several workers this is."""

    rank: int = 0
    workers: int = 1

    def of(self, batch: int) -> range:
        """Return this worker's part of a batch; the parts differ by one at most."""
        return range(self.rank * batch // self.workers, (self.rank + 1) * batch // self.workers)


class Stream:
    """A feed of this shard's part of each batch; `batch(step)` is pure, and cheap for consecutive steps."""

    def __init__(
        self,
        images: Images,
        settings: CropSettings,
        *,
        seed: int,
        batch: int,
        crops: int,
        shard: Shard,
        left_out: LeftOut | None = None,
    ):
        self._images, self._settings, self._shard = images, settings, shard
        self._seed, self._size, self._crops = seed, batch, crops
        self._leaves = DeadLeavesSource(seed, images.scale, settings.crop)
        self._order = lru_cache(maxsize=2)(self._permutation)
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="imgtx-fetch")
        self._coming: dict[int, Future[tuple[Pair, int]]] = {}
        self._cache = Cache(CACHE_BYTES)
        self._left_out = LeftOut() if left_out is None else left_out

    def batch(self, step: int) -> Batch:
        """Return the shard's crops of a step; UsageError if no image can be used, StorageError from storage."""
        block, within = divmod(step, ROTATION * self._crops)
        number, group = divmod(within, ROTATION)
        self._fetch_ahead(block, within + 1)
        crops = []
        for index in self._shard.of(self._size):
            pair, epoch = self._coming[self._visit(block, group, index)].result()
            rng = np.random.default_rng((self._seed, epoch, _hash(pair.key), number))
            if self._settings.procedural_share and rng.random() < self._settings.procedural_share:
                pair = self._leaves.pair(step, rng)
            place = draw_place(pair, self._settings, rng)
            crops.append((pair.key, *cut(pair, self._settings, place, rng)))
        return stacked(crops)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _visit(self, block: int, group: int, index: int) -> int:
        """Return the number of a visit, counted over all epochs and workers."""
        return (block * ROTATION + group) * self._size + index

    def _fetch_ahead(self, block: int, steps: int) -> None:
        """Request this block's images, and as large a share of the next block's as `steps` are of this block."""
        mine = [self._visit(block, g, i) for g in range(ROTATION) for i in self._shard.of(self._size)]
        share = -(-len(mine) * steps // (ROTATION * self._crops))
        wanted = mine + [visit + ROTATION * self._size for visit in mine[:share]]
        self._coming = {
            visit: self._coming.get(visit) or self._pool.submit(self._open, visit) for visit in wanted
        }

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._images.keys))

    def _open(self, visit: int) -> tuple[Pair, int]:
        """Return the image of a visit and its epoch; for an image that cannot be used, the next one that can."""
        count = len(self._images.keys)
        # As far as the end of the next epoch, which has every image.
        for replacement in range(visit, visit + 2 * count):
            epoch, position = divmod(replacement, count)
            key = self._images.keys[int(self._order(epoch)[position])].as_py()
            if f"{TRAIN}/{key}" in self._left_out:
                continue
            pair = self._cache.get(key) or self._load(key, epoch)
            if pair is not None:
                return pair, epoch
        raise UsageError(
            f"none of the {count} images of {self._images.store.describe()} can be used at crop = "
            f"{self._settings.crop} and scale = {self._images.scale}: {self._left_out.summary()}"
        )

    def _load(self, key: str, epoch: int) -> Pair | None:
        scale = self._images.scale
        try:
            pixels = photo_pixels(object_bytes(self._images.store, key), key, scale, self._settings.crop)
        except ImageError as error:
            self._left_out.add(f"{TRAIN}/{key}", error)
            return None
        rng = np.random.default_rng((self._seed, epoch, _hash(key)))
        windowed = _window(pixels, max(WINDOW, scale * self._settings.crop), rng)
        pair = make_pair(key, windowed, scale)
        if windowed is pixels:
            self._cache.put(key, pair)
        return pair


class Cache:
    """Decoded images by key, the least recently used dropped first. Safe for several threads."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._held = max_bytes, 0
        self._pairs: OrderedDict[str, Pair] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Pair | None:
        with self._lock:
            if key in self._pairs:
                self._pairs.move_to_end(key)
            return self._pairs.get(key)

    def put(self, key: str, pair: Pair) -> None:
        with self._lock:
            if key not in self._pairs:
                self._pairs[key] = pair
                self._held += _bytes_of(pair)
            while self._held > self._max_bytes and len(self._pairs) > 1:
                self._held -= _bytes_of(self._pairs.popitem(last=False)[1])


def _bytes_of(pair: Pair) -> int:
    # The small side may have the sums of its gradients beside it.
    return pair.clean.nbytes + 4 * pair.small.nbytes


def _window(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a square of that side at a random place; an image that is no larger comes back as the same array."""
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    top, left = int(rng.integers(max(1, height - side + 1))), int(rng.integers(max(1, width - side + 1)))
    return pixels[top : top + side, left : left + side]


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
