"""How many workers fit into the memory at hand, on either engine.

Measured with sr-x2 in a control group (v1), images of 640 x 480: the local engine took 738 MB with one worker, 1,207 MB
with two, and 261 MB with one on tiny images; Ray 2,162 MB with two actors. Pages of torch's files are not counted that
other processes held already.
"""

from imgtx.memory import Memory, memory_at_hand

# What a run takes beside its workers: driver and fork server; or Ray's daemons, its driver and objects too.
LOCAL_BASE, RAY_BASE = 300 << 20, 1000 << 20
# A worker with a model of the packaged size in the middle of a call. Large tiles and models take more.
PER_WORKER = 600 << 20
# Ray refuses less than 75 MiB.
OBJECT_STORE, MIN_OBJECT_STORE = 1 << 30, 100 << 20


def workers_that_fit(base: int, memory: Memory | None = None) -> int:
    """Return how many workers fit beside `base`, at least one; without a limit where the memory is not known.

    memory: what is at hand now, by default.
    """
    memory = memory or memory_at_hand()
    if memory is None:
        return 1 << 20
    return max(1, (memory.free - base) // PER_WORKER)


def needed(base: int) -> int:
    """Return the bytes that a run with one worker takes."""
    return base + PER_WORKER


def object_store_bytes() -> int:
    """Return the size of a private Ray's object store: room for the images in flight.

    Ray Data holds the stages back when it is full. On CPUs only rows travel through it.
    """
    memory = memory_at_hand()
    return max(MIN_OBJECT_STORE, min(OBJECT_STORE, memory.free // 8 if memory else OBJECT_STORE))
