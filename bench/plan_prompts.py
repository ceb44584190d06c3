"""Measure planning of a table of prompts: 1,000,000 rows as Parquet, CSV and JSON lines, against an empty ledger.

    python -m bench.plan_prompts [--rows 1000000]

Each table is planned in a process of its own, so that the peak of its resident memory is its own.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.report import save
from pipeline.ledger.ledger import Ledger
from pipeline.planning.plan import make_plan
from pipeline.sources.prompt_rows import Reading
from pipeline.sources.prompts import open_prompts
from pipeline.storage.store import open_store

LIMITS = {"seconds": 60.0, "megabytes": 2000.0}
NOTHING = "start-up alone"
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "grey", "white")
SHAPES = ("circle", "square", "star", "triangle", "ring", "cross", "hexagon", "heart")
PLACES = ("above", "below", "left of", "right of", "inside", "behind")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--table", help=argparse.SUPPRESS)
    arguments.add_argument("--write", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.table:
        print(json.dumps(measure(options.table)))
        return
    if options.write:
        write_table(Path(options.write), options.rows)
        return
    with tempfile.TemporaryDirectory(prefix="imgtx-bench-") as folder:
        rows = []
        for suffix in (None, "parquet", "csv", "jsonl"):
            table = f"{folder}/prompts.{suffix}" if suffix else NOTHING
            # In processes of their own: what one writes must not count for another's memory.
            if suffix:
                in_own_process("--write", table, "--rows", str(options.rows))
            rows.append(json.loads(in_own_process("--table", table)))
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    command = f"python -m bench.plan_prompts --rows {options.rows}"
    save("plan_prompts", {"command": command, "table_rows": options.rows, "limits": LIMITS, "rows": rows})


def in_own_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench.plan_prompts", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_table(path: Path, count: int) -> None:
    """Write rows of a prompt, a seed and a column that is only kept."""
    if path.suffix == ".parquet":
        columns = [list(column) for column in zip(*made(count), strict=True)]
        pq.write_table(pa.table(dict(zip(("prompt", "seed", "id"), columns, strict=True))), path)
        return
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerows([("prompt", "seed", "id"), *made(count)])
            return
        for prompt, seed, name in made(count):
            file.write(json.dumps({"prompt": prompt, "seed": seed, "id": name}) + "\n")


def made(count: int) -> Iterator[tuple[str, int, str]]:
    for n in range(count):
        first, second = COLOURS[n % 8], COLOURS[n // 8 % 8]
        shapes, place = (SHAPES[n // 64 % 8], SHAPES[n // 512 % 8]), PLACES[n // 4096 % 6]
        yield f"a {first} {shapes[0]} {place} a {second} {shapes[1]}, number {n}", n % 100, f"{n:08d}"


def measure(table: str) -> dict:
    """Return wall and CPU seconds of a plan, and the peak of the process's memory."""
    started, cpu, counts = time.perf_counter(), time.process_time(), {}
    if table != NOTHING:
        listing = open_prompts(table, None).list_as(Reading(), local_destination=True)
        ledger = Ledger(open_store(f"{Path(table).parent}/nothing"))
        plan = make_plan(listing, ledger, recipe="0123456789abcdef", requested_format="png")
        counts = {name: number for name, number in plan.counts.items() if number}
    return {
        "table": table if table == NOTHING else Path(table).suffix[1:],
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "counts": counts,
    }


if __name__ == "__main__":
    main()
