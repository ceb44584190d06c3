"""Read what earlier runs left under `runs/` of a destination."""

import json
from dataclasses import replace
from typing import Any

from imgtx.errors import StorageError, UsageError
from pipeline.spec import RunSpec
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import RUNS


def last_run(store: Store) -> str:
    """The id of the newest run under a destination; UsageError where there never was one."""
    runs: set[str] = set()
    for batch in replace(store, retry=FAIL_FAST).list(RUNS):
        runs.update(
            key.split("/")[1] for key in batch.column("key").to_pylist() if key.endswith("/spec.json")
        )
    if not runs:
        raise UsageError(
            f"{store.describe()} holds no imgtx run: give the destination of an earlier `imgtx upscale`"
        )
    return max(runs)


def last_spec(destination: str, endpoint_url: str | None) -> RunSpec:
    """The spec of the newest run; the destination and endpoint given now win over those recorded then.

    Where it ran is not asked again: its cluster may be gone.
    """
    store = open_store(destination, endpoint_url=endpoint_url)
    values = read_json(store, f"{RUNS}{last_run(store)}/spec.json")
    values.pop("recipe", None)
    if "fewest_workers" in values:  # as runs before 0.1.0 recorded it
        values["min_workers"] = values.pop("fewest_workers")
    try:
        spec = RunSpec(**values | {"destination": destination, "limit": None, "address": None})
    except TypeError as error:
        raise UsageError(
            f"the last run's spec is of another imgtx version ({error}): run imgtx upscale anew"
        ) from error
    return spec if endpoint_url is None else RunSpec(**spec.to_dict() | {"endpoint_url": endpoint_url})


def read_json(store: Store, key: str) -> dict[str, Any]:
    """A JSON object under a destination; UsageError where it cannot be read."""
    try:
        return json.loads(store.read(key))
    except (StorageError, ValueError) as error:
        raise UsageError(f"{store.describe()}: {key} cannot be read ({error})") from error
