"""The images of a training in storage: listed as runs list them, and checked before workers start."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtx.codecs import SUFFIXES
from imgtx.errors import ImageError, StorageError, UsageError
from imgtx.training.data.images import photo_pixels
from imgtx.training.data.left_out import LeftOut, usable
from imgtx.training.data.pairs import MIN_VALID_SIDE, Pair, make_pair
from imgtx.training.spec import TrainSpec
from pipeline.sources.images import images
from pipeline.storage.checks import check_source
from pipeline.storage.store import Store
from pipeline.tables.schemas import FORBIDDEN

# The most images that are read before workers start, in search of one that can be trained on.
CHECKED_IMAGES = 1000
TRAIN, VALID = "train", "valid"
KEYS = "keys.parquet"
# Of storage errors that concern one object and do not pass.
OF_ONE_OBJECT = ("not_found", FORBIDDEN)


@dataclass(frozen=True)
class Sources:
    """The places of training and validation images."""

    train: Store
    valid: Store


def list_training(sources: Sources, spec: TrainSpec) -> pa.Table:
    """Return columns `part` and `key` of the training images, sorted, whether they can be used or not.

    Raises UsageError if there is none.
    """
    return _rows(TRAIN, _listed(TRAIN, sources.train))


def check_training(sources: Sources, keys: pa.Array, spec: TrainSpec) -> None:
    """Raise UsageError unless one of the images, of many of them one of CHECKED_IMAGES, can be trained on."""
    tried = random.Random(spec.seed).sample(range(len(keys)), min(CHECKED_IMAGES, len(keys)))
    load_pairs(sources.train, (keys[at].as_py() for at in tried), spec.scale, spec.crop, part=TRAIN, most=1)


def list_valid(sources: Sources, spec: TrainSpec, left_out: LeftOut) -> pa.Table:
    """Return columns `part` and `key` of the first `valid_images` validation images that can be used, sorted.

    Raises UsageError if there is none.
    """
    keys, most = _listed(VALID, sources.valid).to_pylist(), spec.valid_images
    pairs = load_pairs(
        sources.valid, keys, spec.scale, MIN_VALID_SIDE, part=VALID, most=most, left_out=left_out
    )
    return _rows(VALID, pa.array([pair.key for pair in pairs], pa.string()))


def _listed(part: str, store: Store) -> pa.Array:
    check_source(store, f"{part} = {store.describe()}")
    chosen = [batch.column("key") for batch in images(store, SUFFIXES, local_destination=False)]
    keys = pa.concat_arrays(chosen) if chosen else pa.array([], pa.string())
    if not len(keys):
        raise UsageError(
            f"{part} = {store.describe()} contains no images: give a place with {', '.join(sorted(SUFFIXES))} files"
        )
    return keys.take(pc.sort_indices(keys))


def _rows(part: str, keys: pa.Array) -> pa.Table:
    return pa.table({"part": pa.array([part] * len(keys)), "key": keys})


def part_of(listed: pa.Table, part: str) -> pa.Array:
    return listed.filter(pc.equal(listed["part"], part))["key"].combine_chunks()


def load_valid(store: Store, keys: list[str], scale: int, left_out: LeftOut | None = None) -> list[Pair]:
    """Return the validation pairs of the images that can be used; UsageError if there is none."""
    return load_pairs(store, keys, scale, MIN_VALID_SIDE, part=VALID, left_out=left_out)


def load_pairs(
    store: Store,
    keys: Iterable[str],
    scale: int,
    smallest: int,
    *,
    part: str,
    most: int | None = None,
    left_out: LeftOut | None = None,
) -> list[Pair]:
    """Return the pairs of the first `most` images that can be used; UsageError if there is none."""

    def read(name: str, key: str) -> Pair:
        return make_pair(key, photo_pixels(object_bytes(store, key), key, scale, smallest), scale)

    named = ((f"{part}/{key}", key) for key in keys)
    return list(usable(named, read, store.describe(), most=most, left_out=left_out).values())


def object_bytes(store: Store, key: str) -> bytes:
    """Return the bytes of an image; ImageError where it is gone or refused, StorageError where the storage fails."""
    try:
        return store.read(key)
    except StorageError as error:
        if error.reason in OF_ONE_OBJECT:
            raise ImageError(error.reason, str(error)) from error
        raise


def encode_keys(keys: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(keys, sink)
    return sink.getvalue().to_pybytes()


def decode_keys(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))
