"""Read a folder or bucket of images: one work row an image, its key the path relative to the source.

Keys stay in Arrow from end to end; millions of them never become Python objects.
"""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.codecs import SUFFIXES
from imgtx.errors import StorageError, UsageError
from pipeline.sources.base import Source, SourceKind
from pipeline.sources.globs import escaped, is_glob, plain_start
from pipeline.sources.keys import complaint_about
from pipeline.sources.looked_up import Found, look_up, one_by_one
from pipeline.sources.selection import Selection
from pipeline.storage.checks import check_apart, check_source, place_in
from pipeline.storage.objects import as_text
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import blanks
from pipeline.tables.schemas import FAILED, INVENTORY, LISTED, NOT_FOUND, SKIPPED, SUFFIX, UNSAFE_KEY

ROWS = 65_536
EVERYTHING = Selection()


@dataclass(frozen=True)
class ImageFolder:
    """A `Source` whose items are the image files under one root that `selection` takes."""

    store: Store
    selection: Selection = EVERYTHING

    @property
    def kind(self) -> SourceKind:
        return IMAGES

    @property
    def uri(self) -> str:
        return self.store.uri

    def describe(self) -> str:
        return self.store.describe()

    def check(self, destination: Store) -> None:
        self.selection.check()
        inside = place_in(self.store, destination)
        never_listed = bool(self.selection.named or (inside and not self.selection.enters(inside)))
        check_apart(self.store, destination, never_listed=never_listed)
        check_source(self.store)

    def list(self, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
        """Return batches of LISTED, with rows for what the selection leaves out (`Selection.divide`)."""
        for batch, is_there in self._found():
            taken, left_out = self.selection.divide(batch)
            rows = classify(taken, SUFFIXES, local_destination=local_destination)
            yield rows if is_there else self._as_absent(rows)
            if left_out.num_rows:
                yield left_out

    def _found(self) -> Iterator[Found]:
        """Yield batches of INVENTORY, and whether there are such objects."""
        if self.selection.keys:
            yield from look_up(self.store, self.selection.keys)
        elif self.selection.named:
            named = pa.array([self.selection.named])
            yield from ((batch, True) for batch, is_there in one_by_one(self.store, named) if is_there)
        else:
            yield from ((batch, True) for batch in inventory(self.store, self.selection))

    def _as_absent(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return LISTED rows of images as failed ones: their keys are in a list and not in the source."""
        columns = {name: rows.column(name) for name in LISTED.names}
        absent = pc.equal(columns["status"], "")
        root = as_text(self.describe())
        message = (
            f"--keys names it, and there is no such file in {root}: correct the list, whose keys are relative to the "
            "source"
        )
        for name, value in (("status", FAILED), ("reason", NOT_FOUND), ("message", message)):
            columns[name] = pc.if_else(absent, value, columns[name])
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=LISTED)

    def read(self, item: str, version: str) -> bytes:
        return self.store.read(item, version=version)

    def download(self, item: str, path: str, version: str) -> None:
        self.store.download(item, path, version=version)

    def why_nothing(self, listed: int) -> str:
        what = f"holds no image among {listed} files" if listed else "is empty"
        if self.selection.named:
            place = f"{as_text(self.store.uri).rstrip('/')}/{self.selection.named}"
            if not listed:
                return f"there is no file {place} any more: give a file that is there"
            return f"{place} is not an image by its name: give one that is named {' '.join(SUFFIXES)}"
        if not self.selection.is_default:
            return (
                f"the source {self.describe()} has no image that {self.selection.describe()}; globs and keys are "
                "relative to the source, and case counts: correct them"
            )
        return (
            f"the source {self.describe()} {what}: give a folder or prefix that holds images, named "
            f"{' '.join(SUFFIXES)}"
        )


def open_images(uri: str, endpoint_url: str | None) -> ImageFolder:
    """Open a folder or bucket."""
    return ImageFolder(open_store(uri, endpoint_url=endpoint_url))


def locate(uri: str, endpoint_url: str | None) -> tuple[str, str]:
    """Return root and glob of what a user names: a folder or prefix, a file, or a glob.

    The glob is "" for a folder. An object whose name looks like a glob is taken for that object. Raises UsageError for
    a local path where there is nothing.
    """
    store = open_store(uri, endpoint_url=endpoint_url)
    root, _, name = store.uri.rstrip("/").rpartition("/")
    if store.is_local:
        if os.path.isdir(store.uri):
            return store.uri, ""
        if os.path.exists(store.uri):
            return root or "/", escaped(as_text(name))
        if not is_glob(store.uri):
            raise UsageError(
                f"the source cannot be read: there is no file or folder {store.uri}; check the path"
            )
        return _split_at_wildcard(store.uri, 1)
    place = store.uri.partition("://")[2].rstrip("/")
    looks_like_one = "/" in place and not uri.endswith("/") and ("." in name or is_glob(name))
    if looks_like_one and _is_there(open_store(root, endpoint_url=endpoint_url), name):
        return f"{root}/", escaped(name)
    if not is_glob(place.partition("/")[2]):
        return store.uri, ""
    # The scheme, nothing, and the bucket are no part of the glob.
    return _split_at_wildcard(store.uri.rstrip("/"), 3)


def _is_there(store: Store, name: str) -> bool:
    try:
        return replace(store, retry=FAIL_FAST).stat(name) is not None
    except StorageError:
        # Said again, in full, when the source is checked.
        return False


def _split_at_wildcard(uri: str, first: int) -> tuple[str, str]:
    """Return what precedes the first part with a wildcard, and the rest; the first `first` parts are taken as plain."""
    parts = uri.split("/")
    place = next(number for number, part in enumerate(parts) if number >= first and is_glob(part))
    root = [*parts[:first], *(plain_start(part)[0] for part in parts[first:place])]
    return "/".join(root) or "/", "/".join(parts[place:])


def _select(source: Source, selection: Selection) -> ImageFolder:
    return ImageFolder(source.store, selection)


IMAGES = SourceKind("images", recognises=lambda uri: True, open=open_images, locate=locate, select=_select)


def inventory(store: Store, selection: Selection = EVERYTHING) -> Iterator[pa.RecordBatch]:
    """Yield every object under `store`, in batches of INVENTORY with about ROWS rows, in no particular order.

    Folders that the selection does not enter may be left out: `Selection.divide` finds the rest of what it does not
    take. Raises StorageError if the listing cannot be read to its end.
    """
    pages: list[pa.RecordBatch] = []
    rows = 0
    for page in store.list(selection.beginning, enters=selection.enters):
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
    reason = pc.case_when(pc.make_struct(pc.invert(is_image), is_unsafe), SUFFIX, UNSAFE_KEY, "")
    message = pc.if_else(is_unsafe, complaint, "")
    none = blanks(LISTED, ("item", "inputs", "conditions"), len(key))
    return pa.RecordBatch.from_arrays([*batch.columns, *none, status, reason, message], schema=LISTED)


def images(store: Store, suffixes: Collection[str], *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `inventory` that `classify` neither skips nor fails, in batches of INVENTORY.

    None of them is hidden.
    """
    for batch in inventory(store):
        taken, _ = EVERYTHING.divide(batch)
        named = classify(taken, suffixes, local_destination=local_destination)
        yield named.filter(pc.equal(named.column("status"), "")).select(INVENTORY.names)


def image_versions(store: Store) -> pa.Table:
    """Return key and version of every image under `store`, in memory."""
    schema = pa.schema([("key", pa.string()), ("version", pa.string())])
    batches = [batch.select(schema.names) for batch in images(store, SUFFIXES, local_destination=False)]
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _one(pages: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(pages, schema=INVENTORY).combine_chunks().to_batches()[0]


def _suffix_pattern(suffixes: Collection[str]) -> str:
    # Copies between systems leave spaces and dots behind names.
    return "(" + "|".join(re.escape(suffix) for suffix in suffixes) + ")[ .]*$"
