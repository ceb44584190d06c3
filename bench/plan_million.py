"""Measure planning: 1,000,000 listed keys against a ledger of 900,000 rows on local disk, and against none.

    python -m bench.plan_million [--keys 1000000] [--name plan_million]

Each step runs in a separate process, so that the peak of its resident memory is its own. The listing is read from a
file batch by batch, as it would arrive. The ledger is first in parts of 5,000 rows, as a run appends it, then
compacted. In the last step everything is new, as in a first run, and all rows go through disk: its bytes on disk are
the ones to extrapolate from for larger archives.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from bench.report import save
from imgtx.codecs import SUFFIXES
from pipeline.ledger.ledger import Ledger
from pipeline.planning.plan import make_plan
from pipeline.sources.images import ROWS, classify
from pipeline.storage.store import open_store
from pipeline.tables import spill
from pipeline.tables.schemas import INVENTORY, OUTCOME

LIMITS = {"seconds": 60.0, "megabytes": 2000.0}
# Rows that a run appends at a time, in order of magnitude.
PART = 5_000
RECIPE = "0123456789abcdef"
ALL_NEW = "plan, all new, all on disk"
STEPS = ("start-up alone", "plan, as appended", "compact", "plan, compacted", ALL_NEW)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--keys", type=int, default=1_000_000)
    arguments.add_argument("--name", default="plan_million", help="of the JSON file under bench/results/")
    arguments.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments.add_argument("--folder", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as folder:
        write_listing(folder, options.keys)
        write_ledger(folder, options.keys * 9 // 10)
        rows = []
        for step in STEPS:
            rows.append(in_own_process(step, folder))
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    command = f"python -m bench.plan_million --keys {options.keys} --name {options.name}"
    save(options.name, {"command": command, "keys": options.keys, "limits": LIMITS, "rows": rows})


def in_own_process(step: str, folder: str) -> dict:
    command = [sys.executable, "-m", "bench.plan_million", "--step", step, "--folder", folder]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(step: str, folder: str) -> dict:
    """Return wall and CPU seconds, and megabytes of the process's peak, its temporary files and the ledger."""
    result = ""
    destination = open_store(f"{folder}/nothing" if step == ALL_NEW else folder)
    ledger = Ledger(destination)
    held = 1 << 20 if step == ALL_NEW else spill.HELD_BYTES
    started, cpu = time.perf_counter(), time.process_time()
    with temporary_files() as files, patch.object(spill, "HELD_BYTES", held):
        if step.startswith("plan"):
            plan = make_plan(listing(folder), ledger, recipe=RECIPE, requested_format="png")
            result = " ".join(f"{name} {count}" for name, count in plan.counts.items() if count)
        elif step == "compact":
            before = ledger.compact()
            result = f"{before} parts before {sum(len(batch) for batch in destination.list('ledger/'))} after"
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        written = sum(os.fstat(file).st_size for file in files)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parts = sum(sum(batch["size"].to_pylist()) for batch in destination.list("ledger/"))
    return {
        "step": step,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "megabytes": round(peak / 1e6),
        "temporary_megabytes": round(written / 1e6),
        "ledger_megabytes": round(parts / 1e6),
        "result": result,
    }


@contextmanager
def temporary_files() -> Iterator[list[int]]:
    """Collect descriptors of the temporary files that are made meanwhile, which have no names to ask for their size."""
    files: list[int] = []
    make = tempfile.TemporaryFile

    def kept(*arguments, **options):
        file = make(*arguments, **options)
        files.append(os.dup(file.fileno()))
        return file

    with patch.object(tempfile, "TemporaryFile", kept):
        yield files
    for file in files:
        os.close(file)


def listing(folder: str):
    """Yield the whole source as a run would list it."""
    with pa.OSFile(f"{folder}/listing.arrow") as file:
        for batch in pa.ipc.open_stream(file):
            yield classify(batch, SUFFIXES, local_destination=True)


def write_listing(folder: str, count: int) -> None:
    with pa.ipc.new_stream(f"{folder}/listing.arrow", INVENTORY) as file:
        for start in range(0, count, ROWS):
            numbers = np.arange(start, min(start + ROWS, count))
            columns = [keys_of(numbers), pa.array(numbers % 5_000_000), versions_of(numbers)]
            file.write_batch(pa.RecordBatch.from_arrays(columns, schema=INVENTORY))


def write_ledger(folder: str, count: int) -> None:
    """Write rows for the first `count` keys: 1 in 100 failed, 1 in 100 of another version."""
    ledger = Ledger(open_store(folder))
    random = np.random.default_rng(0)
    for start in range(0, count, PART):
        numbers = np.arange(start, min(start + PART, count))
        size = len(numbers)
        failed = pa.array(numbers % 100 == 0)
        known = {
            "key": keys_of(numbers),
            "version": versions_of(np.where(numbers % 100 == 1, -numbers, numbers)),
            "output": pa.array([f"{key[:-4]}.png" for key in keys_of(numbers).to_pylist()]),
            "status": pa.array(np.where(failed, "failed", "written")),
            "reason": pa.array(np.where(failed, "corrupt", "")),
            "out_sha256": pa.array([random.bytes(32).hex() for _ in range(size)]),
            "measures": one_measure(random.random(size)),
        }
        columns = []
        for field in OUTCOME:
            if field.name in known:
                columns.append(known[field.name])
            elif pa.types.is_string(field.type):
                columns.append(pa.repeat("", size))
            elif pa.types.is_list(field.type):
                columns.append(pa.array([[]] * size, field.type))
            else:
                columns.append(pa.array(random.integers(0, 5000, size)).cast(field.type))
        ledger.append(pa.table(columns, schema=OUTCOME), recipe=RECIPE, run="20260101T000000-abcd")


def keys_of(numbers: np.ndarray) -> pa.Array:
    return pa.array([f"archive/2019/{n // 500:05d}/IMG_{n:08d}.jpg" for n in numbers.tolist()])


def one_measure(values: np.ndarray) -> pa.Array:
    """Return a column of `measures`, one number in each row, as a run writes it."""
    names = pa.repeat("noise_level", len(values))
    return pa.MapArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32), names, values)


def versions_of(numbers: np.ndarray) -> pa.Array:
    """Return a version as long as an etag."""
    return pa.array([f"{n * 2654435761 % 2**64:032x}" for n in numbers.tolist()])


if __name__ == "__main__":
    main()
