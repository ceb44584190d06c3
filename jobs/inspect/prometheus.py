"""A destination as Prometheus reads it: what has to outlast the run that it is about.

A cluster's series end with its last process, and with them any memory of the last success; the destination has kept it.
"""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from imgtx.errors import StorageError, UsageError
from pipeline.cluster.metrics import STATUS_METRICS
from pipeline.ledger.ledger import Ledger
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import counts_of
from pipeline.tables.schemas import FAILED, PENDING, RUNS, SKIPPED, WRITTEN

MOST_RUNS = 200  # that are looked at for a success, newest first

Samples = dict[str, list[tuple[dict[str, str], float]]]


def exposition(destination: str, endpoint_url: str | None) -> str:
    """The text format 0.0.4 of STATUS_METRICS; UsageError where there never was a run. Needs no Ray."""
    store = open_store(destination, endpoint_url=endpoint_url)
    here = {"destination": store.uri}
    files = replace(store, retry=FAIL_FAST)
    runs = _runs(files)
    if not runs:
        raise UsageError(f"{store.describe()} holds no imgtx run: give the destination of an earlier run")
    status = _json(files, f"{RUNS}{runs[0]}/status.json") or {}
    success = _last_success(files, runs)
    by_status = Counter[str]()
    for rows in Ledger(store).current_in_pieces(["status"]):
        by_status.update(counts_of(rows["status"]))
    samples: Samples = {
        "imgtx_last_success_timestamp_seconds": [(here, success)] if success else [],
        "imgtx_last_run_timestamp_seconds": [(here, status["updated"])] if "updated" in status else [],
        "imgtx_ledger_images": [
            (here | {"status": name}, by_status[name]) for name in (WRITTEN, SKIPPED, FAILED, PENDING)
        ],
    }
    return "".join(
        f"# HELP {metric.name} {metric.meaning}\n# TYPE {metric.name} {metric.kind}\n"
        + "".join(f"{metric.name}{_labels(labels)} {value!r}\n" for labels, value in samples[metric.name])
        for metric in STATUS_METRICS
    )


def _labels(labels: dict[str, str]) -> str:
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def _runs(store: Store) -> list[str]:
    """The ids of all runs, the newest first: they begin with the time."""
    ids = {key.split("/")[1] for batch in store.list(RUNS) for key in batch.column("key").to_pylist()}
    return sorted(ids, reverse=True)


def _last_success(store: Store, runs: list[str]) -> float:
    """When the newest run that was done and accounted for ended, in seconds since the epoch; 0 where none is known."""
    for run in runs[:MOST_RUNS]:
        summary = _json(store, f"{RUNS}{run}/summary.json") or {}
        if summary.get("state") == "done" and summary.get("accounted"):
            started = datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            return started.timestamp() + summary["seconds_total"]
    return 0.0


def _json(store: Store, key: str) -> dict[str, Any] | None:
    """None where there is no such object, as of a run that was killed."""
    try:
        return json.loads(store.read(key))
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return None
    except ValueError as error:
        raise UsageError(f"{store.uri}{key} is damaged ({error}): remove it") from error
