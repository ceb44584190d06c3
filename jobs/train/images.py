"""The images of a training in storage: listed as runs list them, and checked before workers start."""

import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgtx.codecs import SUFFIXES, read_header
from imgtx.errors import ImageError, StorageError, UsageError
from imgtx.training.images import photo_pixels
from imgtx.training.pairs import MIN_VALID_SIDE, Pair, make_pair
from imgtx.training.spec import TrainSpec
from pipeline.sources.images import images
from pipeline.storage.checks import check_source
from pipeline.storage.store import Store

# The number of images whose size is read before workers start.
CHECKED_IMAGES = 16
TRAIN, VALID = "train", "valid"
KEYS = "keys.parquet"


@dataclass(frozen=True)
class Sources:
    """The places of training and validation images."""

    train: Store
    valid: Store


def list_images(sources: Sources, spec: TrainSpec) -> pa.Table:
    """Return columns `part` (train or valid) and `key`, sorted; only the first `valid_images` of the validation images.

    Raises UsageError if either place contains no image.
    """
    tables = []
    for part, store, most in ((TRAIN, sources.train, None), (VALID, sources.valid, spec.valid_images)):
        check_source(store)
        keys = _keys(store)
        if not len(keys):
            raise UsageError(
                f"{part} = {store.describe()} contains no images: give a place with {', '.join(sorted(SUFFIXES))} files"
            )
        keys = keys.take(pc.sort_indices(keys))[:most]
        tables.append(pa.table({"part": pa.array([part] * len(keys)), "key": keys}))
    return pa.concat_tables(tables)


def _keys(store: Store) -> pa.Array:
    chosen = [batch.column("key") for batch in images(store, SUFFIXES, local_destination=False)]
    return pa.concat_arrays(chosen) if chosen else pa.array([], pa.string())


def part_of(listed: pa.Table, part: str) -> pa.Array:
    return listed.filter(pc.equal(listed["part"], part))["key"].combine_chunks()


def check_images(sources: Sources, listed: pa.Table, spec: TrainSpec) -> None:
    """Raise UsageError unless all validation images can be used and one of a few others is large enough."""
    load_valid(sources.valid, part_of(listed, VALID).to_pylist(), spec.scale)
    keys = part_of(listed, TRAIN).to_pylist()
    sample = random.Random(spec.seed).sample(keys, min(CHECKED_IMAGES, len(keys)))
    needed, largest, complaint = spec.crop * spec.scale, 0, ""
    for key in sample:
        try:
            header = read_header(sources.train.read(key))
        except (ImageError, StorageError) as error:
            complaint = f" ({key}: {error})"
            continue
        largest = max(largest, min(header.height, header.width))
    if largest < needed:
        raise UsageError(
            f"crop = {spec.crop} at scale = {spec.scale} needs images of {needed} px a side; of {len(sample)} "
            f"images checked in {sources.train.describe()} the largest has {largest}{complaint}: lower crop, or give "
            "larger images"
        )


def load_valid(store: Store, keys: list[str], scale: int) -> list[Pair]:
    """Return the validation pairs; UsageError for an image that cannot be used."""
    return [make_pair(key, photo_pixels(store.read(key), key, scale, MIN_VALID_SIDE), scale) for key in keys]


def encode_keys(keys: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(keys, sink)
    return sink.getvalue().to_pybytes()


def decode_keys(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))


def first_weights(spec: TrainSpec) -> str:
    """Return the key of the starting weights under a training's root: the driver's path means nothing elsewhere."""
    return f"begins-with/{Path(spec.init_from).stem}.safetensors"
