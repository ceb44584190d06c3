"""A made-up kind of source: a CSV table of names and colours, three outputs per line, each with its own key."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from imgtx.errors import UsageError
from pipeline.sources.base import SourceKind
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import LISTED

PICTURES = 3


@dataclass(frozen=True)
class ColourTable:
    """The `Source` of one table: `store` is its folder, `name` the file in it."""

    store: Store
    name: str

    @property
    def kind(self) -> SourceKind:
        return COLOUR_TABLE

    @property
    def uri(self) -> str:
        return f"{self.store.uri.rstrip('/')}/{self.name}"

    def describe(self) -> str:
        return self.uri

    def check(self, destination: Store) -> None:
        if self.store.stat(self.name) is None:
            raise UsageError(f"no table at {self.uri}: give a CSV file of name,red,green,blue")

    def list(self, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
        text = self.store.read(self.name).decode()
        rows = [
            row
            for line in csv.reader(io.StringIO(text))
            for row in outputs_of(line[0], [int(level) for level in line[1:]])
        ]
        yield from to_table(rows, LISTED).combine_chunks().to_batches()

    def read(self, item: str, version: str) -> bytes:
        return b""

    def download(self, item: str, path: str, version: str) -> None:
        """Write nothing: a line has no file to fetch."""

    def why_nothing(self, listed: int) -> str:
        return f"the table {self.uri} has no line"


def outputs_of(name: str, colour: list[int]) -> list[dict]:
    """Return the LISTED rows of a line: their version is a hash of the line, so that an edited one runs again."""
    version = hashlib.sha256(json.dumps([name, colour]).encode()).hexdigest()[:12]
    line = {"role": "line", "key": name, "version": version}
    return [
        {"key": f"{name}-{number}", "item": name, "version": version, "inputs": [line]}
        | {"conditions": json.dumps({"name": name, "colour": colour, "number": number})}
        for number in range(PICTURES)
    ]


def open_table(uri: str, endpoint_url: str | None) -> ColourTable:
    folder, _, name = uri.rpartition("/")
    return ColourTable(open_store(folder or ".", endpoint_url=endpoint_url), name)


COLOUR_TABLE = SourceKind(
    "colour_table", recognises=lambda uri: uri.endswith(".csv"), open=open_table, single_file=True
)
