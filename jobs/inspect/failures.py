"""List the failed images of a destination: all of them, or those of one reason."""

import csv
import json
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import UsageError
from imgtx.printable import printable
from pipeline.ledger.ledger import Ledger
from pipeline.runs import last_run
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import FAILED, REASONS

COLUMNS = ("key", "reason", "stage", "message")


def read_failures(
    destination: str, endpoint_url: str | None, reasons: frozenset[str] = frozenset()
) -> Iterator[pa.Table]:
    """Return the failed images, in pieces of the ledger, sorted by key within each: columns COLUMNS.

    reasons: only those that failed for one of them; empty for all. Takes bounded memory. Raises UsageError for a reason
    that does not exist, and where no run has been.
    """
    if unknown := sorted(reasons - REASONS.keys()):
        raise UsageError(f"--reason {unknown[0]}: must be one of {', '.join(REASONS)}")
    store = open_store(destination, endpoint_url=endpoint_url)
    last_run(store)
    return _pieces(store, reasons)


def _pieces(store: Store, reasons: frozenset[str]) -> Iterator[pa.Table]:
    for rows in Ledger(store).current_in_pieces(["status", *COLUMNS]):
        failed = rows.filter(pc.equal(rows["status"], FAILED)).select(COLUMNS)
        if reasons:
            failed = failed.filter(pc.is_in(failed["reason"], pa.array(sorted(reasons))))
        if failed.num_rows:
            yield failed.sort_by("key")


def write_lines(pieces: Iterator[pa.Table], file: IO[str]) -> int:
    """Write a line an image; return how many there are."""
    count = 0
    for piece in pieces:
        count += piece.num_rows
        for row in piece.to_pylist():
            file.write(f"{printable(row['key'])}: {row['reason']}: {printable(row['message'])}\n")
    return count


def write_json(pieces: Iterator[pa.Table], file: IO[str]) -> None:
    """Write a JSON document a line."""
    for piece in pieces:
        for row in piece.to_pylist():
            file.write(json.dumps(row) + "\n")


def write_csv(pieces: Iterator[pa.Table], file: IO[str]) -> None:
    """Write CSV with a header; names are escaped on a terminal only, so that a file holds them as they are."""
    shown = printable if file.isatty() else str
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for piece in pieces:
        writer.writerows([shown(row[name]) for name in COLUMNS] for row in piece.to_pylist())
