"""Read a table of prompts: one work row an image, of which a table's row may ask for several.

The rules for rows are in `pipeline.sources.prompt_rows`, those for files in `pipeline.sources.tabular`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from imgtx.errors import UsageError
from pipeline.sources.base import SourceKind
from pipeline.sources.prompt_rows import PROMPT, Pictures, Reading, listed, wanted_columns
from pipeline.sources.tabular import CSV, JSON_LINES, PARQUET, Columns, Line, TableFormat, Types, text_format
from pipeline.storage.store import Store, open_store

FORMATS = (PARQUET, CSV, JSON_LINES, text_format(PROMPT))
SUFFIXES = tuple(suffix for table in FORMATS for suffix in table.suffixes)


@dataclass(frozen=True)
class PromptTable:
    """A `Source` of one table: `store` is its folder, `name` the file in it."""

    store: Store
    name: str

    @property
    def kind(self) -> SourceKind:
        return PROMPTS

    @property
    def uri(self) -> str:
        return f"{self.store.uri.rstrip('/')}/{self.name}"

    def describe(self) -> str:
        return f"{self.uri} at {self.store.endpoint_url}" if self.store.endpoint_url else self.uri

    @property
    def format(self) -> TableFormat:
        """Return how its file is read; UsageError for one without a table's suffix."""
        suffix = PurePosixPath(self.name).suffix.lower()
        for table in FORMATS:
            if suffix in table.suffixes:
                return table
        raise UsageError(
            f"the table of prompts {self.describe()} must be one of {' '.join(SUFFIXES)}: give such a file, or prompts "
            "by -p"
        )

    def check(self, destination: Store) -> None:
        _ = self.format
        if self.store.stat(self.name) is None:
            raise UsageError(
                f"there is no table of prompts at {self.describe()}: check the path, or give prompts by -p"
            )

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Give the table as a local file: its own, or a copy that goes with the block."""
        if self.store.is_local:
            yield Path(self.uri)
            return
        with tempfile.TemporaryDirectory(prefix="imgtx-table-") as folder:
            path = Path(folder) / PurePosixPath(self.name).name
            self.store.download(self.name, str(path))
            yield path

    def columns(self, path: Path) -> Types | None:
        """Return its columns with their types, None where each row names its own; `path` is what `file` gives."""
        return self.format.columns(path)

    def check_columns(self, reading: Reading) -> None:
        """Raise UsageError for a table that lacks the columns of `reading`, or has them of other types."""
        with self.file() as path:
            wanted_columns(self.columns(path), reading, self.describe())

    def rows(self, path: Path, columns: Columns) -> Iterator[Line]:
        """Yield its rows from top to bottom; `path` is what `file` gives."""
        return self.format.rows(path, columns)

    def list(self, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
        return self.list_as(Reading(), local_destination=local_destination)

    def list_as(
        self, reading: Reading, *, local_destination: bool, images: Pictures | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Return batches of LISTED by the options of `reading`; images: the start pictures that rows may name."""
        with self.file() as path:
            columns = wanted_columns(self.columns(path), reading, self.describe())
            yield from listed(
                self.rows(path, columns), reading, images=images, local_destination=local_destination
            )

    def read(self, item: str, version: str) -> bytes:
        """Return nothing: a row has no file of its own."""
        return b""

    def download(self, item: str, path: str, version: str) -> None:
        """Write nothing: a row has no file of its own."""

    def why_nothing(self, listed: int) -> str:
        what = "has only rows that repeat others" if listed else "has no row"
        return f"the table of prompts {self.describe()} {what}: give one with a prompt a row"


def open_prompts(uri: str, endpoint_url: str | None) -> PromptTable:
    """Open the table at `uri`."""
    folder, slash, name = uri.rstrip("/").rpartition("/")
    store = open_store(folder or ("/" if slash else "."), endpoint_url=endpoint_url)
    return PromptTable(store, name)


def is_table(uri: str) -> bool:
    return PurePosixPath(uri).suffix.lower() in SUFFIXES


PROMPTS = SourceKind("prompts", recognises=is_table, open=open_prompts, single_file=True)
