"""The state of a destination in Prometheus' text format.

A cluster's series end with its last process, so the time of the last success comes from the destination.
"""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from pipeline.cluster.metrics import STATUS_METRICS
from pipeline.ledger.ledger import Ledger
from pipeline.runs import find_json, run_ids
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import counts_of
from pipeline.tables.schemas import FAILED, PENDING, RUNS, SKIPPED, WRITTEN

# How many runs, newest first, are searched for a success.
MAX_RUNS = 200

Samples = dict[str, list[tuple[dict[str, str], float]]]


def prometheus_text(destination: str, endpoint_url: str | None) -> str:
    """Return STATUS_METRICS in text format 0.0.4; UsageError if there was no run. Needs no Ray."""
    store = open_store(destination, endpoint_url=endpoint_url)
    here = {"destination": store.uri}
    files = replace(store, retry=FAIL_FAST)
    runs = run_ids(files)
    status = find_json(files, f"{RUNS}{runs[0]}/status.json")
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


def _last_success(store: Store, runs: list[str]) -> float:
    """Return when the newest complete run ended, in seconds since the epoch; 0 if none is known."""
    for run in runs[:MAX_RUNS]:
        summary = find_json(store, f"{RUNS}{run}/summary.json")
        if summary.get("state") == "done" and summary.get("accounted"):
            started = datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            return started.timestamp() + summary["seconds_total"]
    return 0.0
