"""Check this machine, without torch and without starting Ray."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from imgtx.errors import ClusterError, UsageError
from imgtx.inference.cores import usable_cores
from imgtx.memory import CONTAINER, Memory, memory_at_hand
from jobs.doctor.findings import OK, PROBLEM, WARNING, Finding
from pipeline.cluster.address import address_of, check_address
from pipeline.cluster.machine import (
    MIN_THREADS,
    SHARED_MEMORY,
    check_loopback,
    check_open_files,
    check_processes,
    find_folder,
    processes_left,
)
from pipeline.cluster.memory import LOCAL_BASE, RAY_BASE, needed, object_store_bytes, workers_that_fit
from pipeline.engines.base import LOCAL, RAY
from pipeline.engines.choice import ON_LINUX, gpu_in_sight
from pipeline.models.cache import cache_folder

LIBRARIES = ("torch", "ray", "pyarrow", "pyvips")
# For outputs that go through the disk, in bytes a pixel of the input: the input, and an output four times its size.
SPOOLED_BYTES = 3 + 16 * 3
# Room for an image of 40 megapixels that is enlarged x4.
SPOOL_BYTES = 2 << 30


@dataclass(frozen=True)
class Where:
    """Where runs are to be processed: the options --engine and --address."""

    engine: str
    address: str | None = None


def check_machine(where: Where, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield what is found about this machine for runs there."""
    engine = where.engine
    yield _platform(engine)
    yield from _surroundings(environment)
    yield Finding("cores", OK, _cores())
    yield from _memory(engine, memory_at_hand())
    yield _temporary_folder()
    yield _model_cache()
    if address := address_of(where):
        yield _cluster(where, address)
    elif engine != LOCAL:
        # Small runs do without Ray.
        yield from _for_ray(PROBLEM if engine == RAY else WARNING)


def _platform(engine: str) -> Finding:
    known = {}
    for library in LIBRARIES:
        try:
            known[library] = version(library)
        except PackageNotFoundError:
            return Finding(
                "platform", PROBLEM, f"{library} is not installed", "install imgtx with its dependencies"
            )
    text = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {number}" for name, number in known.items()
    )
    if ON_LINUX:
        return Finding("platform", OK, text)
    level = PROBLEM if engine == LOCAL else WARNING
    return Finding("platform", level, f"{text}; --engine local needs Linux", "take --engine ray, or Linux")


def _surroundings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield in what this process runs: a container, Kubernetes, a Slurm job."""
    found = []
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or environment.get("container"):
        found.append("a container")
    if "KUBERNETES_SERVICE_HOST" in environment:
        found.append("a pod of Kubernetes")
    if job := environment.get("SLURM_JOB_ID"):
        found.append(f"the Slurm job {job}")
    if found:
        yield Finding("surroundings", OK, f"this is {' in '.join(found)}")
    given = _number(environment.get("SLURM_CPUS_PER_TASK"))
    if given and given < usable_cores():
        yield Finding(
            "slurm",
            WARNING,
            f"Slurm gave {given} cores a task, and this process may run on {usable_cores()}",
            f"give --workers {given}, or have Slurm bind tasks to their cores",
        )
    if (tasks := _number(environment.get("SLURM_STEP_NUM_TASKS"))) and tasks > 1:
        yield Finding(
            "slurm",
            WARNING,
            f"srun starts this command {tasks} times, and one run at a time writes to a destination",
            "start it with --ntasks=1 --cpus-per-task=N",
        )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _cores() -> str:
    cores, there = usable_cores(), os.cpu_count() or 1
    text = f"{cores} core{'s' * (cores > 1)}" + (f" of {there}" if there > cores else "")
    return f"{text}, and a GPU" if gpu_in_sight() else f"{text}; no GPU is visible"


def _memory(engine: str, memory: Memory | None) -> Iterator[Finding]:
    if memory is None:
        return
    text, base = memory.describe(), RAY_BASE if engine == RAY else LOCAL_BASE
    give = "give the container more" if memory.whose == CONTAINER else "end other programs"
    if memory.free < needed(base):
        short = f"{text}; a run needs about {needed(base) >> 20:,} MB"
        yield Finding("memory", PROBLEM, short, f"{give}, or take a machine with more")
    elif engine != LOCAL and memory.free < needed(RAY_BASE):
        short = f"{text}; Ray needs about {needed(RAY_BASE) >> 20:,} MB"
        yield Finding("memory", WARNING, short, f"take --engine local; for Ray {give}")
    elif (fit := workers_that_fit(base, memory)) < usable_cores() and not gpu_in_sight():
        short = f"{text}: room for {fit} worker{'s' * (fit > 1)} on {usable_cores()} cores"
        yield Finding("memory", WARNING, short, f"{give}, for all cores to work")
    else:
        yield Finding("memory", OK, text)
    if limit := _address_space():
        yield Finding(
            "address space",
            WARNING,
            f"a process may have {limit >> 20:,} MB of addresses (ulimit -v), which torch takes without using them",
            "ulimit -v unlimited",
        )


def _address_space() -> int:
    """Return the limit of a process's addresses in bytes; 0 for none, or one that is far off."""
    if os.name != "posix":
        return 0
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 0 if soft == resource.RLIM_INFINITY or soft > 64 << 30 else soft


def _temporary_folder() -> Finding:
    name = "temporary folder"
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            name, PROBLEM, f"there is none to write to ({error})", "set TMPDIR to a folder with room"
        )
    largest = free / SPOOLED_BYTES / 1e6
    text = f"{free >> 20:,} MB free in {folder}, for images too large for memory: one of {largest:,.0f} MP x4 at a time"
    if free < SPOOL_BYTES:
        return Finding(name, WARNING, text, "set TMPDIR to a folder with more room, on every machine")
    return Finding(name, OK, text)


def _model_cache() -> Finding:
    name, folder = "model cache", cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(nearest, os.W_OK | os.X_OK) and nearest.is_dir():
        return Finding(name, OK, str(folder))
    text = f"{folder} cannot be written: models from storage cannot be fetched"
    return Finding(name, WARNING, text, "set XDG_CACHE_HOME to a folder that can")


def _for_ray(level: str) -> Iterator[Finding]:
    yield _tried("loopback", level, check_loopback, lambda: "127.0.0.1 answers on any port")
    yield _tried("ray folder", level, find_folder, lambda: f"{find_folder()} for sockets and logs")
    yield _shared_memory()
    if os.name == "posix":
        yield _tried("open files", level, check_open_files, _open_files)
        yield _tried("processes", level, check_processes, _processes)


def _cluster(where: Where, address: str) -> Finding:
    try:
        check_address(where)
    except (ClusterError, UsageError) as error:
        return Finding("cluster", PROBLEM, str(error))
    return Finding("cluster", OK, f"{address} answers" if ":" in address else f"the address is {address}")


def _tried(name: str, level: str, check: Callable[[], object], good: Callable[[], str]) -> Finding:
    """Return what a check of Ray's needs says; its messages hold the remedy."""
    try:
        check()
    except ClusterError as error:
        text, _, remedy = str(error).rpartition(": ")
        return Finding(name, level, text, remedy)
    return Finding(name, OK, good())


def _shared_memory() -> Finding:
    name, wanted = "shared memory", object_store_bytes()
    if not SHARED_MEMORY.is_dir():
        return Finding(name, OK, f"there is no {SHARED_MEMORY}: Ray keeps its objects in its folder")
    if not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        text = f"{SHARED_MEMORY} cannot be written: Ray keeps its objects on disk, more slowly"
        return Finding(name, WARNING, text, f"chmod 1777 {SHARED_MEMORY}")
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < wanted:
        short = f"{free >> 20:,} MB free in {SHARED_MEMORY}, and Ray takes {wanted >> 20:,}"
        text = f"{short}: objects that find no room go to disk, more slowly"
        return Finding(name, WARNING, text, "give the container more, such as docker run --shm-size 1g")
    return Finding(name, OK, f"{free >> 20:,} MB free in {SHARED_MEMORY}")


def _open_files() -> str:
    import resource

    return f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} a process (ulimit -n)"


def _processes() -> str:
    left = processes_left()
    return (
        f"room for {left:,} more, of which Ray takes up to {MIN_THREADS}" if left is not None else "no limit"
    )
