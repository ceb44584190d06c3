"""Read what earlier runs left under `runs/` of a destination."""

import json
from dataclasses import replace
from typing import Any

from imgtx.errors import StorageError, UsageError
from pipeline.spec import RunSpec
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import RUNS
from pipeline.tasks import TASKS, options_of


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
    # as runs before 0.1.0 recorded it
    if "fewest_workers" in values:
        values["min_workers"] = values.pop("fewest_workers")
    now = {"destination": destination, "limit": None, "address": None}
    if endpoint_url is not None:
        now["endpoint_url"] = endpoint_url
    try:
        spec = RunSpec.from_dict(values | now)
        task = TASKS[spec.task]
    except (TypeError, KeyError) as error:
        raise _of_another_version(error) from error
    known = {option.name for option in options_of(task.command)}
    if unknown := sorted(spec.settings.keys() - known):
        raise _of_another_version(f"unknown fields {', '.join(unknown)}")
    mine = {option.name for option in task.options}
    return replace(spec, settings={name: spec.settings[name] for name in spec.settings if name in mine})


def _of_another_version(why: object) -> UsageError:
    return UsageError(f"the last run's spec was written by another version of imgtx ({why}): start a new run")


def read_json(store: Store, key: str) -> dict[str, Any]:
    """A JSON object under a destination; UsageError where it cannot be read."""
    try:
        return json.loads(store.read(key))
    except (StorageError, ValueError) as error:
        raise UsageError(f"{store.describe()}: {key} cannot be read ({error})") from error
