"""Ledger rows for tests: a FINISHED table from the columns that a test needs."""

from typing import Any

import pyarrow as pa

from pipeline.tables.rows import to_table
from pipeline.tables.schemas import FINISHED, WRITTEN


def outcome(key: str, **columns: Any) -> dict[str, Any]:
    """Return one finished row: written under the key's own name by default."""
    return {"key": key, "size": 10, "version": "v1", "output": key, "status": WRITTEN} | columns


def outcomes(*rows: dict[str, Any]) -> pa.Table:
    return to_table(rows, FINISHED)
