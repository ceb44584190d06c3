"""Measure what pacing gains where S3 answers SlowDown: reads from a server that allows 40 requests a second.

    python -m bench.slow_down [--rate 40] [--reads 400]

Retries as in a run: with jitter alone, then with botocore's adaptive mode too. First three processes that read one
object after the other, as decode tasks do, then one process that reads 32 at once, as a listing does.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

from bench.report import save
from bench.slow_s3 import slow_s3
from imgtx.errors import StorageError
from pipeline.storage import s3 as storage_s3
from pipeline.storage.store import open_store

MODES = {"retries alone": "standard", "paced": "adaptive"}
# Processes, and reads at once in each.
SHAPES = ((3, 1), (1, 32))
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rate", type=float, default=40)
    arguments.add_argument("--reads", type=int, default=400, help="of all processes together")
    arguments.add_argument(
        "--reader", nargs=4, metavar=("URL", "MODE", "READS", "AT_ONCE"), help=argparse.SUPPRESS
    )
    options = arguments.parse_args()
    if options.reader:
        url, mode, reads, at_once = options.reader
        print(json.dumps(read(url, mode, int(reads), int(at_once))))
        return
    rows = []
    for processes, at_once in SHAPES:
        for name in MODES:
            rows.append({"pacing": name} | measure(options.rate, name, options.reads, processes, at_once))
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    save("slow_down", {"command": "python -m bench.slow_down", "rate": options.rate, "rows": rows})


def measure(rate: float, name: str, reads: int, processes: int, at_once: int) -> dict[str, float]:
    """Read by several processes from one server. seconds: from the start of the first read to the end of the last."""
    with slow_s3(rate) as server:
        reader = ["--reader", server.url, MODES[name], str(reads // processes), str(at_once)]
        command = [sys.executable, "-m", "bench.slow_down", *reader]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        reports = [json.loads(process.communicate()[0]) for process in running]
        served, refused = server.counts()
    return {
        "processes": processes,
        "at_once": at_once,
        "seconds": round(max(r["ended"] for r in reports) - min(r["began"] for r in reports), 1),
        "served": served,
        "refused": refused,
        "failed": sum(r["failed"] for r in reports),
        "longest_wait": round(max(r["longest"] for r in reports), 1),
    }


def read(url: str, mode: str, reads: int, at_once: int) -> dict[str, float]:
    """Read `reads` objects; return how many failed, the longest read in seconds, and when all began and ended."""
    with patch.object(storage_s3, "PACING", mode), patch.dict(os.environ, ENVIRONMENT):
        store = open_store("s3://bucket/archive", endpoint_url=url)

        def seconds(number: int) -> float | None:
            started = time.monotonic()
            try:
                store.read(f"{number}")
            except StorageError:
                return None
            return time.monotonic() - started

        began = time.time()
        with ThreadPoolExecutor(at_once) as pool:
            waits = list(pool.map(seconds, range(reads)))
    done = [wait for wait in waits if wait is not None]
    return {
        "failed": reads - len(done),
        "longest": max(done, default=0.0),
        "began": began,
        "ended": time.time(),
    }


if __name__ == "__main__":
    main()
