"""The images that a nightly run trains on: new ones of the archive, and a sample of older ones.

    consumed/<date>.parquet     (key, version) of the images that a finished run has used or found unusable

An image counts as new again when its version changes. The date seeds the draw, so a run that was killed and starts
again on another machine takes the same images.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgtx.codecs import SUFFIXES, decode, encode
from imgtx.errors import ImageError, StorageError, UsageError
from imgtx.files import write_atomically
from pipeline.sources.images import images
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import INVENTORY

CONSUMED = "consumed/"
# Images that are fetched and decoded at once.
READERS = 4
# The largest image to train on: four of them decoded take 0.6 GB.
MAX_PIXELS = 50_000_000
SEEN = pa.schema([INVENTORY.field("key"), INVENTORY.field("version")])


@dataclass(frozen=True)
class Choice:
    """The images of one date: rows of (key, version), and how many new ones there were to choose from."""

    new: pa.Table
    replayed: pa.Table
    found_new: int

    @property
    def rows(self) -> pa.Table:
        return pa.concat_tables([self.new, self.replayed])


def choose(archive: Store, state: Store, date: str, *, max_new_images: int, replay_images: int) -> Choice:
    """Draw the images of a date from the archive's listing, without fetching any."""
    listed = _listed(archive)
    seen = consumed(state, but=date)
    new = listed.join(seen, keys=SEEN.names, join_type="left anti")
    old = listed.join(seen, keys=SEEN.names, join_type="left semi")
    return Choice(_draw(new, max_new_images, date), _draw(old, replay_images, date), new.num_rows)


def consumed(state: Store, *, but: str) -> pa.Table:
    """Return the (key, version) that finished runs have used, once each, leaving out the date `but`."""
    keys = [key for batch in state.list(CONSUMED) for key in batch.column("key").to_pylist()]
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(lambda key: from_parquet(state.read(key)), [k for k in keys if k != _key(but)]))
    return pa.concat_tables([SEEN.empty_table(), *parts]).group_by(SEEN.names).aggregate([])


def mark_consumed(state: Store, date: str, rows: pa.Table) -> None:
    """Record the images of a date as used; a second call writes the same."""
    if rows.num_rows:
        state.write(_key(date), to_parquet(rows))


def fetch_cuts(archive: Store, rows: pa.Table, folder: Path, *, smallest: int, largest: int) -> Counter[str]:
    """Write a crop of each image into `folder`, as PNG of at most `largest` px per side, unless it is there.

    Returns how many images were left out, by reason: the ledger's reasons, and `too_small` below `smallest` px per
    side.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def fetch(item: tuple[int, dict[str, str]]) -> str:
        number, row = item
        path = folder / f"{number:06d}.png"
        try:
            if not path.exists():
                data = archive.read(row["key"], version=row["version"])
                write_atomically(
                    path, cut(data, row["key"], smallest=smallest, largest=largest), durable=False
                )
            return ""
        except ImageError as error:
            return error.reason
        except StorageError as error:
            # An archive that is briefly unavailable must not count as broken images.
            if error.transient:
                raise
            return error.reason

    with ThreadPoolExecutor(READERS) as pool:
        return Counter(reason for reason in pool.map(fetch, enumerate(rows.to_pylist())) if reason)


def cut(data: bytes, key: str, *, smallest: int, largest: int) -> bytes:
    """Return a crop of the image at a place seeded by its key, as PNG of at most `largest` px per side.

    Raises ImageError as `decode` does, and `too_small` below `smallest` px per side.
    """
    picture = decode(data, max_pixels=MAX_PIXELS)
    sides = picture.pixels.shape[:2]
    if min(sides) < smallest:
        raise ImageError("too_small", f"{sides[1]} x {sides[0]}; training needs {smallest} px per side")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
    top, left = (int(rng.integers(max(0, side - largest) + 1)) for side in sides)
    pixels = np.ascontiguousarray(picture.pixels[top : top + largest, left : left + largest])
    return encode(replace(picture, pixels=pixels, alpha=None, icc=b"", exif=b""), "png", quality=100)[0]


def local_folder(uri: str, folder: Path, endpoint_url: str | None) -> Path:
    """Return a local folder of the images at `uri`: itself if it is local, else a copy in `folder` with its name."""
    store = open_store(uri, endpoint_url=endpoint_url)
    if store.is_local:
        return Path(store.uri)
    target = folder / store.uri.rstrip("/").rpartition("/")[2]
    found = 0
    for row in _images(store):
        found += 1
        path = target / row["key"]
        if not path.exists() or path.stat().st_size != row["size"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(row["key"], str(path))
    if not found:
        raise UsageError(f"{store.describe()} holds no image: give a folder or prefix of clean photos")
    return target


def to_parquet(rows: pa.Table) -> bytes:
    """Return (key, version) rows as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(rows.select(SEEN.names).cast(SEEN), file, compression="zstd")
    return file.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    """Return the rows that `to_parquet` wrote."""
    return pq.read_table(io.BytesIO(data)).select(SEEN.names).cast(SEEN)


def _listed(archive: Store) -> pa.Table:
    batches = images(archive, SUFFIXES, local_destination=False)
    return pa.Table.from_batches([batch.select(SEEN.names) for batch in batches], schema=SEEN)


def _images(store: Store) -> Iterator[dict]:
    """Yield the images whose keys can be file names here; `classify` leaves out keys that would leave the folder."""
    for batch in images(store, SUFFIXES, local_destination=True):
        yield from batch.to_pylist()


def _draw(rows: pa.Table, limit: int, date: str) -> pa.Table:
    """Return up to `limit` rows at random, the same for the same rows in any order."""
    ordered = rows.sort_by([(name, "ascending") for name in SEEN.names])
    seed: Sequence[int] = [int(part) for part in date.split("-")]
    return ordered.take(np.random.default_rng(seed).permutation(ordered.num_rows)[:limit])


def _key(date: str) -> str:
    return f"{CONSUMED}{date}.parquet"
