"""What a night trains on: the archive's images that no night before has consumed, and some that one has.

    consumed/<date>.parquet     (key, version) of what a finished night has seen, usable or not

An image counts as new again when its version changes. Which ones are taken is drawn by the date, so that a night that
was killed and starts anew on another machine takes the same.
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
from pipeline.planning.inventory import images
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import INVENTORY

CONSUMED = "consumed/"
READERS = 4  # images that are fetched and decoded at once
MOST_PIXELS = 50_000_000  # of an image to train on: four of them decoded are 0.6 GB
SEEN = pa.schema([INVENTORY.field("key"), INVENTORY.field("version")])


@dataclass(frozen=True)
class Choice:
    """The images of one night: (key, version), and how many there were to choose from."""

    new: pa.Table
    replayed: pa.Table
    found_new: int

    @property
    def rows(self) -> pa.Table:
        return pa.concat_tables([self.new, self.replayed])


def choose(archive: Store, state: Store, date: str, *, most_new: int, replayed: int) -> Choice:
    """Draw the night's images from the listing; nothing is fetched."""
    listed = _listed(archive)
    seen = consumed(state, but=date)
    new = listed.join(seen, keys=SEEN.names, join_type="left anti")
    old = listed.join(seen, keys=SEEN.names, join_type="left semi")
    return Choice(_draw(new, most_new, date), _draw(old, replayed, date), new.num_rows)


def consumed(state: Store, *, but: str) -> pa.Table:
    """What the finished nights have seen, once each; the night `but` left out."""
    keys = [key for batch in state.list(CONSUMED) for key in batch.column("key").to_pylist()]
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(lambda key: from_parquet(state.read(key)), [k for k in keys if k != _key(but)]))
    return pa.concat_tables([SEEN.empty_table(), *parts]).group_by(SEEN.names).aggregate([])


def mark_consumed(state: Store, date: str, rows: pa.Table) -> None:
    """The last but one thing a night does; again it writes the same."""
    if rows.num_rows:
        state.write(_key(date), to_parquet(rows))


def fetch_cuts(archive: Store, rows: pa.Table, folder: Path, *, smallest: int, largest: int) -> Counter[str]:
    """Put a cut of each image into `folder`, PNG of at most `largest` px a side; what lies there is not fetched again.

    Returns how many were left out, by reason: the ledger's words, and `too_small` below `smallest` px a side.
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
            if error.transient:  # an archive that is away for a while must not count as one that is broken
                raise
            return error.reason

    with ThreadPoolExecutor(READERS) as pool:
        return Counter(reason for reason in pool.map(fetch, enumerate(rows.to_pylist())) if reason)


def cut(data: bytes, key: str, *, smallest: int, largest: int) -> bytes:
    """A place in the image that its key draws, as PNG of at most `largest` px a side; ImageError as `decode`."""
    picture = decode(data, max_pixels=MOST_PIXELS)
    sides = picture.pixels.shape[:2]
    if min(sides) < smallest:
        raise ImageError("too_small", f"{sides[1]} x {sides[0]}; training needs {smallest} px a side")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
    top, left = (int(rng.integers(max(0, side - largest) + 1)) for side in sides)
    pixels = np.ascontiguousarray(picture.pixels[top : top + largest, left : left + largest])
    return encode(replace(picture, pixels=pixels, alpha=None, icc=b"", exif=b""), "png", quality=100)[0]


def local_folder(uri: str, folder: Path, endpoint_url: str | None) -> Path:
    """A folder of images on this machine: a local one as it is, a remote one copied to `folder` under its own name."""
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
    file = io.BytesIO()
    pq.write_table(rows.select(SEEN.names).cast(SEEN), file, compression="zstd")
    return file.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data)).select(SEEN.names).cast(SEEN)


def _listed(archive: Store) -> pa.Table:
    batches = images(archive, SUFFIXES, local_destination=False)
    return pa.Table.from_batches([batch.select(SEEN.names) for batch in batches], schema=SEEN)


def _images(store: Store) -> Iterator[dict]:
    """Rows of the images whose keys can be file names here; `classify` leaves out what would escape a folder."""
    for batch in images(store, SUFFIXES, local_destination=True):
        yield from batch.to_pylist()


def _draw(rows: pa.Table, most: int, date: str) -> pa.Table:
    """`most` rows at random, the same for the same rows in whatever order they come."""
    ordered = rows.sort_by([(name, "ascending") for name in SEEN.names])
    seed: Sequence[int] = [int(part) for part in date.split("-")]
    return ordered.take(np.random.default_rng(seed).permutation(ordered.num_rows)[:most])


def _key(date: str) -> str:
    return f"{CONSUMED}{date}.parquet"
