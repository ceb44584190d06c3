"""A lease keeps every destination to one run at a time.

    with Lease(store, run_id) as lease:
        while work and not lease.lost:
            ...

A lease is a chain of generations, `lease/000001.json`, `lease/000002.json`, ...: the highest is the holder's.
A run takes the lease by creating the next generation once the holder has released it or is dead. The creation is
conditional, so that exactly one of any number of competing runs succeeds. Old generations are removed, but never the
highest: a run that creates a generation late, from an old listing, finds a higher one beside it and withdraws.

Liveness never compares clocks across hosts. A holder rewrites its file every ttl / 4. If the file does not change
while another run watches it for ttl seconds of its own clock, the holder is dead. A holder that could not rewrite its
file for that long considers the lease lost, no later than a watcher takes it. On the holder's own machine its process
id and start time decide at once.
"""

import contextlib
import json
import logging
import math
import os
import re
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta

from imgtx.errors import LeaseHeldError, StorageError
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store
from pipeline.tables.schemas import LEASES
from pipeline.user import user_name

HELD, RELEASED = "held", "released"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The content of a lease file.

    machine: one boot of one host, so that process ids can be compared.
    started: the process's start time in the kernel's own format, because process ids are used again.
    since: UTC, for display only; never compared.
    token: unique for each acquisition.
    """

    run: str
    host: str
    machine: str
    pid: int
    started: str
    user: str
    since: str
    token: str
    state: str = HELD
    beat: int = 0

    def describe(self) -> str:
        return f"run {self.run} (user {self.user}, host {self.host}, process {self.pid}, since {self.since})"


# A holder that shows no sign of life for so long, by the clock of the process that watches it, is dead.
DEAD_SECONDS = 60.0


class Lease:
    """The right of one run to write to `store`, as a context manager.

    ttl: a holder is dead after so many seconds without a heartbeat; it beats every ttl / 4.
    force_unlock: take the lease from a live holder, which notices within ttl / 4.

    Entering raises LeaseHeldError, with the holder's name, when another run holds it: at once for a run on
    this machine, after watching it for up to ttl / 4 for one elsewhere. It raises StorageError where the storage fails.
    A process that ends without releasing the lease (SIGKILL) holds it until it is found dead.
    """

    def __init__(self, store: Store, run_id: str, *, ttl: float = DEAD_SECONDS, force_unlock: bool = False):
        self._store = store
        # A heartbeat that is retried for longer than the ttl would come too late.
        self._fail_fast = replace(store, retry=FAIL_FAST)
        self._ttl = ttl
        self._force_unlock = force_unlock
        self._holder = _this_process(run_id)
        self._generation = 0
        # A lease that is not held yet cannot be lost.
        self._last_beat = math.inf
        # Why, once it is.
        self._lost = ""
        # One thread at a time asks the storage.
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="imgtx-lease", daemon=True)

    @property
    def lost(self) -> bool:
        """True once another run may hold the lease, and from then on: stop, and write nothing more.

        A lease that could not be renewed in time, as on a machine without a moment to spare, is taken again if nobody
        else has taken it: then the storage is asked here.
        """
        if self._overdue() and not self._lost:
            with self._turn:
                if self._overdue() and not self._lost:
                    self._lost = self._take_again()
        return bool(self._lost)

    @property
    def why_lost(self) -> str:
        """Why the lease is lost, in words; "" while it is held."""
        return self._lost

    @property
    def removed(self) -> bool:
        """Whether the lease is lost because no lease file is there any more, of any run."""
        try:
            return bool(self._lost) and not _generations(self._fail_fast)
        except StorageError as error:
            return error.reason == "not_found"

    def __enter__(self) -> "Lease":
        self._acquire()
        self._remove_generations_below(self._generation)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        # A release that fails is harmless: this process will soon be found dead.
        with contextlib.suppress(StorageError):
            if not self.lost and not self._newer_exists():
                self._fail_fast.write(_key(self._generation), _encode(replace(self._holder, state=RELEASED)))

    def _acquire(self) -> None:
        force = self._force_unlock
        while True:
            highest = max(_generations(self._store), default=0)
            if highest and not force:
                self._wait_until_free(highest)
            # Only from the holder that was found first, not from a competing run that was faster.
            force = False
            self._generation = highest + 1
            asked = time.monotonic()
            if not self._store.create(_key(self._generation), _encode(self._holder)):
                continue
            if max(_generations(self._store), default=0) == self._generation:
                self._last_beat = asked
                return
            self._store.delete(_key(self._generation))

    def _wait_until_free(self, generation: int) -> None:
        """Return once this generation is released, dead or gone; raises LeaseHeldError if its holder is alive."""
        first = self._read(generation)
        begin = time.monotonic()
        if first is None:
            return
        holder = _decode(first)
        if holder is not None:
            runs = _runs_here(holder)
            if holder.state == RELEASED or runs is False:
                return
            if runs:
                raise held_by(self._store, holder)
        until = datetime.now().astimezone() + timedelta(seconds=self._ttl)
        who = holder.describe() if holder else "a run whose lease file is not readable"
        _log.warning(
            "waiting for the lease of %s until %s, in case it is dead; --force-unlock takes it now",
            who,
            until.strftime("%H:%M:%S"),
        )
        while True:
            time.sleep(self._ttl / 16)
            asked = time.monotonic()
            content = self._read(generation)
            if content is None:
                return
            if content != first:
                holder = _decode(content)
                if holder is not None and holder.state == RELEASED:
                    return
                raise held_by(self._store, holder)
            if asked - begin > self._ttl:
                return

    def _read(self, generation: int) -> bytes | None:
        try:
            return self._store.read(_key(generation))
        except StorageError as error:
            if error.reason == "not_found":
                return None
            raise

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(self._ttl / 4) and not self.lost:
            try:
                with self._turn:
                    if self._lost:
                        return
                    if self._newer_exists() or not self._is_ours():
                        self._lost = self._taken_over()
                        return
                    asked = time.monotonic()
                    self._holder = replace(self._holder, beat=self._holder.beat + 1)
                    self._fail_fast.write(_key(self._generation), _encode(self._holder))
                    self._last_beat = asked
            except StorageError as error:
                _log.warning("the lease could not be renewed, and will be tried again: %s", error)

    def _overdue(self) -> bool:
        return time.monotonic() - self._last_beat > self._ttl

    def _take_again(self) -> str:
        """Take an overdue lease again, as a new generation; return "", or why it is lost.

        Not by a heartbeat: a run that has found this one dead may be about to create the next generation, and exactly
        one of the two must succeed.
        """
        try:
            if self._newer_exists() or not self._is_ours():
                return self._taken_over()
            old, asked = self._generation, time.monotonic()
            if not self._fail_fast.create(_key(old + 1), _encode(self._holder)):
                return self._taken_over()
            self._generation = old + 1
            if self._newer_exists():
                self._fail_fast.delete(_key(self._generation))
                return self._taken_over()
            self._last_beat = asked
            self._fail_fast.delete(_key(old))
        except StorageError as error:
            return f"the lease could not be renewed for {self._ttl:g} s ({error})"
        _log.warning("the lease was not renewed for %g s; nobody took it, and the run continues", self._ttl)
        return ""

    def _taken_over(self) -> str:
        """Return who holds the lease now, in words."""
        # The holder is only named.
        with contextlib.suppress(StorageError):
            holder = living_holder(self._fail_fast)
            if holder and holder.token != self._holder.token:
                return f"another run took the lease over: {holder.describe()}"
        return "another run took the lease over"

    def _newer_exists(self) -> bool:
        return max(_generations(self._fail_fast), default=0) > self._generation

    def _is_ours(self) -> bool:
        """Return whether the file is still this run's; a user may have removed it, and another run may have started."""
        content = self._read(self._generation)
        holder = None if content is None else _decode(content)
        return holder is not None and holder.token == self._holder.token

    def _remove_generations_below(self, generation: int) -> None:
        for old in _generations(self._store):
            if old < generation:
                self._store.delete(_key(old))


def held_by(store: Store, holder: Holder | None) -> LeaseHeldError:
    """Return the error to raise where another run holds the store's lease."""
    who = holder.describe() if holder is not None else "a run whose lease file is not readable"
    return LeaseHeldError(
        f"the destination {store.describe()} is held by {who}; one run at a time writes to a "
        "destination: wait for its end, or take its lease with --force-unlock if you know that it is dead"
    )


def check_free(store: Store) -> None:
    """Raise LeaseHeldError where a living process of this machine holds the store's lease; write nothing."""
    holder = living_holder(store)
    if holder is not None and _runs_here(holder):
        raise held_by(store, holder)


def living_holder(store: Store) -> Holder | None:
    """Return the holder of the store's lease, as far as is known without watching it; None where there is none."""
    highest = max(_generations(store), default=0)
    try:
        holder = _decode(store.read(_key(highest))) if highest else None
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return None
    if holder is None or holder.state == RELEASED or _runs_here(holder) is False:
        return None
    return holder


def _this_process(run_id: str) -> Holder:
    return Holder(
        run=run_id,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()) or "",
        user=user_name(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        token=uuid.uuid4().hex,
    )


def _machine() -> str:
    """Return an id of this boot and process-id namespace; "", which equals no other, where it is unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process began, in clock ticks since boot; "ended" for a zombie, None if it is not visible."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if state in "ZX" else rest[18]


def _runs_here(holder: Holder) -> bool | None:
    """Return whether the holder's process runs on this machine; None if it is on another, or not visible."""
    if not holder.machine or holder.machine != _machine():
        return None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The process of another user, which /proc may hide.
        pass
    started = _started(holder.pid)
    return None if started is None else started == holder.started


def _key(generation: int) -> str:
    return f"{LEASES}{generation:06d}.json"


def _generations(store: Store) -> list[int]:
    keys = [key for batch in store.list(LEASES) for key in batch.column("key").to_pylist()]
    return [int(match[1]) for key in keys if (match := re.fullmatch(rf"{LEASES}(\d+)\.json", key))]


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _decode(content: bytes) -> Holder | None:
    """Return the holder, or None for content that imgtx did not write."""
    try:
        values = json.loads(content)
        return Holder(**{field.name: values[field.name] for field in fields(Holder)})
    except (ValueError, KeyError, TypeError):
        return None
