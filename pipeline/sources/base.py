"""Define what every kind of source provides."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.storage.store import Store


class Source(Protocol):
    """Where the items of a run are read from.

    `uri` is the same in every working directory. `store` is the storage that it is in, whose credentials a run watches.
    """

    @property
    def kind(self) -> "SourceKind": ...

    @property
    def uri(self) -> str: ...

    @property
    def store(self) -> Store: ...

    def describe(self) -> str:
        """Return its name for messages."""

    def check(self, destination: Store) -> None:
        """Raise UsageError if it cannot be read, or if outputs at `destination` would overwrite it."""

    def list(self, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
        """Return batches of LISTED: a row for each output, with its own key.

        local_destination: whether outputs are local files, whose names must follow a file system's rules. Raises
        StorageError if the source cannot be read to its end.
        """

    def read(self, item: str, version: str) -> bytes:
        """Return the bytes of an item; raises StorageError, also if it changed since it was listed."""

    def download(self, item: str, path: str, version: str) -> None:
        """Write an item that may be too large for memory to a local file."""

    def why_nothing(self, listed: int) -> str:
        """Return why none of the `listed` items can be processed, and what to give instead."""


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    single_file: whether a source is one file; a local one is copied to `inputs/` at the destination when a run starts.
    locate: returns the root of what a user names, and a glob of the keys in it that are meant, "" for all of them.
    select: returns a source that lists only the keys of a selection. Both are None where items are not files.
    """

    name: str
    recognises: Callable[[str], bool]
    open: Callable[[str, str | None], Source]
    single_file: bool = False
    locate: Callable[[str, str | None], tuple[str, str]] | None = None
    select: Callable[..., Source] | None = None
