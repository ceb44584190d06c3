"""Save and read the results of benchmarks, each with what its numbers depend on: machine, load, commit, rounds."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imgtx.inference.processor import this_processor

FOLDER = Path(__file__).parent
# Quick runs are saved elsewhere: bench/results/ has the numbers of docs/benchmarks.md.
RESULTS = Path(os.environ.get("IMGTX_BENCH_RESULTS", FOLDER / "results"))
# What no number depends on.
NOT_MEASURED = (":/", ":!/bench/results", ":!/docs", ":!/tests", ":!*.md")
# Of docs/benchmarks.md; the tables name any other.
PROCESSOR = "AMD EPYC"
# A line of a table, cell by cell.
Line = tuple[str, ...]


def machine() -> str:
    """Describe in one line what the numbers depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray"))
    python = f"Python {platform.python_version()}"
    return f"{this_processor()}, {os.cpu_count()} CPUs; {python}, {packages}; commit {commit()}"


def commit() -> str:
    """Return the measured commit, with `-dirty` if a tracked file differs from it.

    Results do not count: otherwise the first one that is saved would make all later ones of the same run dirty.
    """
    name = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/bench/results")
    return (name or "unknown") + ("-dirty" if changed else "")


def is_current(path: Path, depends: Sequence[str] = NOT_MEASURED) -> bool:
    """Return whether a result was measured with the code that is here: nothing changed since of what it depends on.

    `depends` are pathspecs of git; without them only pages, tests and results may have changed.
    """
    try:
        found = json.loads(path.read_text()).get("commit", "")
    except (OSError, ValueError):
        return False
    if not found or found.endswith("-dirty"):
        return False
    done = subprocess.run(["git", "diff", "--quiet", found, "--", *depends], check=False, cwd=FOLDER)
    return done.returncode == 0


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=FOLDER)
    return done.stdout.strip()


def save(name: str, values: dict[str, Any]) -> None:
    """Write `<name>.json` under RESULTS, with the command, the machine, its load, the commit, the date and the rounds.

    `values` has the rounds where there are several: the numbers are medians of as many measurements.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    stamp = {
        "command": f"python -m bench.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip(),
        "machine": machine(),
        "processor": this_processor().name,
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z",
        "rounds": 1,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(stamp | values, indent=1) + "\n")


def read(folder: Path, names: Iterable[str]) -> Iterator[dict]:
    """Yield those of the results that there are."""
    for name in names:
        if (path := folder / f"{name}.json").exists():
            yield json.loads(path.read_text())


def read_all(folder: Path, names: Sequence[str]) -> dict[str, dict]:
    """Return the results by name; none where one is missing."""
    found = {name: result for name in names for result in read(folder, (name,))}
    return found if len(found) == len(names) else {}


def stamp(found: dict) -> str:
    """Return what a number depends on: commit, processor where it is not PROCESSOR, load average, rounds."""
    rounds = found.get("rounds", 1)
    rounds = rounds if isinstance(rounds, int) else len(rounds)
    load = f", load {found['load']:.0f}" if "load" in found else ""
    return f"{origin(found)}{load}, {rounds} round{'s' if rounds > 1 else ''}"


def origin(found: dict) -> str:
    """Return what a number depends on that is the same every time: commit, and processor where it is not PROCESSOR."""
    commit = found.get("commit") or found["machine"].rpartition("commit ")[2]
    processor = found["machine"].partition(",")[0].partition(" (")[0]
    return commit + ("" if processor == PROCESSOR else f", {processor}")
