"""Check a destination: whether it can be written, keeps what a run needs of storage, and has room."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from imgtx.errors import ImgtxError
from jobs.doctor.findings import OK, PROBLEM, WARNING, Finding
from pipeline.ledger.lease import living_holder
from pipeline.storage.backends import open_backend
from pipeline.storage.checks import check_shared
from pipeline.storage.promises import PREFIX, broken_promises
from pipeline.storage.retry import RetryPolicy
from pipeline.storage.store import Store, open_store

# One attempt, so that storage that does not answer is known within seconds.
ONCE = RetryPolicy(attempts=1, connect=2.0, read=4.0)
ANSWER_SECONDS = 10.0
# Less is likely to end a run; few files are left where many small ones were written.
FREE_BYTES, FREE_FILES = 1 << 30, 10_000
# File systems whose files do not stay, or do not keep to their own rules.
FLEETING = {
    "tmpfs": "is memory, gone when the machine starts again",
    "ramfs": "is memory, gone when the machine starts again",
    "overlay": "is the container's own layer, gone with the container",
}
REMEDY = (
    "take other storage (docs/explanation/storage.md), or make sure that only one run at a time writes there"
)
MOUNTS = Path("/proc/self/mountinfo")


def check_destination(
    uri: str, endpoint_url: str | None, *, shared: bool, seconds: float = ANSWER_SECONDS
) -> Iterator[Finding]:
    """Yield what is found about a destination; at the end nothing is there that was not there before.

    shared: whether several machines are to write there. seconds: for the storage to answer.
    """
    store = replace(open_store(uri, endpoint_url=endpoint_url), retry=ONCE)
    check_shared(store)
    # It may import a library for seconds, which is not the storage's fault.
    open_backend(store.uri, store.endpoint_url, store.retry)
    yield from _within(seconds, store, lambda: [*_storage(store)])
    if store.is_local:
        yield from _disk(store.uri, shared=shared)


def _within(seconds: float, store: Store, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of a check; a problem where it does not end in time, or fails."""
    found: list[Finding] = []
    bugs: list[Exception] = []

    def run() -> None:
        try:
            found.extend(check())
        except ImgtxError as error:
            found.append(Finding("destination", PROBLEM, str(error)))
        except Exception as error:
            bugs.append(error)

    thread = threading.Thread(target=run, daemon=True, name="imgtx-doctor")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        text = f"{store.describe()} has not answered all requests within {seconds:g} s"
        remedy = f"check its address, mount and network; an object {PREFIX}* may be left there"
        return [Finding("destination", PROBLEM, text, remedy)]
    if bugs:
        raise bugs[0]
    return found


def _storage(store: Store) -> Iterator[Finding]:
    began = time.monotonic()
    broken = broken_promises(store)
    took = time.monotonic() - began
    yield Finding(
        "destination",
        OK,
        f"{store.describe()} can be written, listed, read and deleted ({took:.1f} s for all)",
    )
    for promise in broken:
        yield Finding("storage", PROBLEM, f"it does not hold that {promise}", REMEDY)
    if not broken:
        text = (
            "keeps what a run needs: whole objects, listed and read at once, each created by one writer only"
        )
        yield Finding("storage", OK, text)
    if holder := living_holder(store):
        yield Finding("lease", WARNING, f"{holder.describe()} holds the destination", "wait for its end")


def _disk(folder: str, *, shared: bool) -> Iterator[Finding]:
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    free, facts = shutil.disk_usage(there).free, os.statvfs(there)
    text = f"{free >> 20:,} MB free"
    if free < FREE_BYTES:
        yield Finding(
            "room", WARNING, text, "free some, or take another disk: outputs are larger than their sources"
        )
    elif facts.f_files and facts.f_favail < FREE_FILES:
        yield Finding(
            "room", WARNING, f"room for {facts.f_favail:,} more files", "remove files, or take another disk"
        )
    else:
        yield Finding("room", OK, text)
    kind = file_system(there)
    if kind in FLEETING:
        yield Finding(
            "file system", WARNING, f"{kind} {FLEETING[kind]}", "take a folder on a disk, or a mounted volume"
        )
    elif kind.startswith("fuse"):
        text = f"{kind} is a program: whether files stay whole when it ends is up to it"
        yield Finding("file system", WARNING, text, "for a bucket give its s3:// URI")
    elif kind:
        yield Finding("file system", OK, kind)
    if shared:
        text = f"every machine of the cluster must have {folder}, from one file server"
        yield Finding("shared storage", WARNING, text, "check it, or take s3://bucket/prefix")


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that holds `path`; "" where the system does not tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    best, kind, real = -1, "", os.path.realpath(path)
    for line in lines:
        before, _, after = line.partition(" - ")
        # Spaces and the like are in octal.
        point = before.split()[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(f"{point.rstrip('/')}/")
        # Of several mounts at one place the last is the one that is seen.
        if inside and len(point) >= best:
            best, kind = len(point), after.split()[0]
    return kind
