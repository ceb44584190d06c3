"""Read a folder or bucket of images: one work row an image, its key the path relative to the source.

Keys stay in Arrow from end to end; millions of them never become Python objects.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.codecs import SUFFIXES
from pipeline.sources.base import SourceKind
from pipeline.sources.keys import complaint_about
from pipeline.storage.checks import check_apart, check_source
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import blanks
from pipeline.tables.schemas import FAILED, INVENTORY, LISTED, SKIPPED

ROWS = 65_536


@dataclass(frozen=True)
class ImageFolder:
    """A `Source` whose items are the image files under one root."""

    store: Store

    @property
    def kind(self) -> SourceKind:
        return IMAGES

    @property
    def uri(self) -> str:
        return self.store.uri

    def describe(self) -> str:
        return self.store.describe()

    def check(self, destination: Store) -> None:
        check_apart(self.store, destination)
        check_source(self.store)

    def list(self, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
        return (
            classify(batch, SUFFIXES, local_destination=local_destination) for batch in inventory(self.store)
        )

    def read(self, item: str, version: str) -> bytes:
        return self.store.read(item, version=version)

    def download(self, item: str, path: str, version: str) -> None:
        self.store.download(item, path, version=version)

    def why_nothing(self, listed: int) -> str:
        what = f"holds no image among {listed} files" if listed else "is empty"
        return (
            f"the source {self.describe()} {what}: give a folder or prefix that holds images, named "
            f"{' '.join(SUFFIXES)}"
        )


def open_images(uri: str, endpoint_url: str | None) -> ImageFolder:
    """Open a folder or bucket."""
    return ImageFolder(open_store(uri, endpoint_url=endpoint_url))


IMAGES = SourceKind("images", recognises=lambda uri: True, open=open_images)


def inventory(store: Store) -> Iterator[pa.RecordBatch]:
    """Yield every object under `store`, in batches of INVENTORY with about ROWS rows, in no particular order.

    Raises StorageError if the listing cannot be read to its end.
    """
    pages: list[pa.RecordBatch] = []
    rows = 0
    for page in store.list():
        pages.append(page)
        rows += page.num_rows
        if rows >= ROWS:
            yield _one(pages)
            pages, rows = [], 0
    if rows:
        yield _one(pages)


def classify(batch: pa.RecordBatch, suffixes: Collection[str], *, local_destination: bool) -> pa.RecordBatch:
    """Add to a batch of INVENTORY the columns of LISTED, by the keys alone.

    suffixes: lower-case, with their dot (`imgtx.codecs.SUFFIXES`); keys match in any case. Other keys are skipped
    (reason suffix). An image whose key would escape the destination, or cannot be a file name at a local one, is failed
    (reason unsafe_key) with a message that says why.
    """
    key = batch.column("key")
    complaint = complaint_about(key, local_destination=local_destination)
    is_image = pc.match_substring_regex(key, _suffix_pattern(suffixes), ignore_case=True)
    is_unsafe = pc.and_(is_image, pc.not_equal(complaint, ""))
    status = pc.case_when(pc.make_struct(pc.invert(is_image), is_unsafe), SKIPPED, FAILED, "")
    reason = pc.case_when(pc.make_struct(pc.invert(is_image), is_unsafe), "suffix", "unsafe_key", "")
    message = pc.if_else(is_unsafe, complaint, "")
    none = blanks(LISTED, ("item", "inputs", "conditions"), len(key))
    return pa.RecordBatch.from_arrays([*batch.columns, *none, status, reason, message], schema=LISTED)


def images(store: Store, suffixes: Collection[str], *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `inventory` that `classify` neither skips nor fails, in batches of INVENTORY."""
    for batch in inventory(store):
        named = classify(batch, suffixes, local_destination=local_destination)
        yield named.filter(pc.equal(named.column("status"), "")).select(INVENTORY.names)


def image_versions(store: Store) -> pa.Table:
    """Return key and version of every image under `store`, in memory."""
    schema = pa.schema([("key", pa.string()), ("version", pa.string())])
    batches = [batch.select(schema.names) for batch in images(store, SUFFIXES, local_destination=False)]
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _one(pages: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(pages, schema=INVENTORY).combine_chunks().to_batches()[0]


def _suffix_pattern(suffixes: Collection[str]) -> str:
    return "(" + "|".join(re.escape(suffix) for suffix in suffixes) + ")$"
