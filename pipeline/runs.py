"""Read the specs and results of earlier runs from `runs/` of a destination."""

import json
from dataclasses import replace
from typing import Any

from imgtx.errors import StorageError, UsageError
from imgtx.models.references import with_files
from pipeline.spec import RunSpec
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import COPIES, RUNS
from pipeline.tasks import TASKS


def run_ids(store: Store) -> list[str]:
    """Return the ids of the runs on a destination, newest first; UsageError if there are none."""
    ids: set[str] = set()
    for batch in replace(store, retry=FAIL_FAST).list(RUNS):
        ids.update(key.split("/")[1] for key in batch.column("key").to_pylist() if key.endswith("/spec.json"))
    if not ids:
        raise UsageError(f"{store.describe()} has no imgtx run: give the destination of an earlier run")
    # Ids begin with the time.
    return sorted(ids, reverse=True)


def last_run(store: Store) -> str:
    """Return the id of the newest run on a destination; UsageError if there is none."""
    return run_ids(store)[0]


def last_spec(destination: str, endpoint_url: str | None) -> RunSpec:
    """Return the spec of the newest run, with the destination and endpoint given now instead of those recorded.

    Its cluster address is left out, because that cluster may be gone.
    """
    store = open_store(destination, endpoint_url=endpoint_url)
    values = read_json(store, f"{RUNS}{last_run(store)}/spec.json")
    values.pop("recipe", None)
    # Runs before 0.1.0 recorded it under this name.
    if "fewest_workers" in values:
        values["min_workers"] = values.pop("fewest_workers")
    now = {"destination": destination, "limit": None, "address": None}
    # Copies of inputs are wherever the destination is now.
    before = f"{str(values.get('destination')).rstrip('/')}/{COPIES}"

    def moved(value: str) -> str:
        here = f"{store.uri.rstrip('/')}/{COPIES}"
        return here + value.removeprefix(before) if value.startswith(before) else value

    for name, value in values.items():
        if isinstance(value, str) and value.startswith(before):
            now[name] = moved(value)
    if values.get("model"):
        now["model"] = with_files(str(values["model"]), moved)
    if endpoint_url is not None:
        now["endpoint_url"] = endpoint_url
    try:
        spec = RunSpec.from_dict(values | now)
        task = TASKS[spec.task]
    except (TypeError, KeyError) as error:
        raise _of_another_version(error) from error
    # Runs before 0.1.0 recorded the options of every task.
    known = {option.name for any_task in TASKS.values() for option in any_task.options}
    if unknown := sorted(spec.settings.keys() - known):
        raise _of_another_version(f"unknown fields {', '.join(unknown)}")
    mine = {option.name for option in task.options}
    return replace(spec, settings={name: spec.settings[name] for name in spec.settings if name in mine})


def _of_another_version(why: object) -> UsageError:
    return UsageError(f"the last run's spec was written by another version of imgtx ({why}): start a new run")


def read_json(store: Store, key: str) -> dict[str, Any]:
    """Return a JSON object of a destination; UsageError if it cannot be read."""
    try:
        return json.loads(store.read(key))
    except (StorageError, ValueError) as error:
        raise UsageError(f"{store.describe()}: cannot read {key} ({error})") from error


def find_json(store: Store, key: str) -> dict[str, Any]:
    """Return a JSON object of a destination, {} if it does not exist, as after a killed run.

    Raises UsageError if it is damaged.
    """
    try:
        return json.loads(store.read(key))
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return {}
    except ValueError as error:
        raise UsageError(f"{store.uri}{key} is damaged ({error}): remove it") from error
