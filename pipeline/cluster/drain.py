"""Leave a machine that is about to go: a model without work on a node that drains ends, and is made elsewhere.

A node drains from when its `ray start --block` gets SIGTERM, or somebody tells Ray of a preemption
(`ray drain-node`). Ray then gives it nothing new, and Ray Data no batch to its actors; but actors hold their node, so
that it would stand idle until its limit, and its models with it.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("imgtx.pipeline")

LOOK_SECONDS = 2.0
IDLE_SECONDS = (
    5.0  # Ray Data sees within a second or two that the node drains; what it sent before has come by then
)


class Departure:
    """Watches over one actor's process, in a thread of its own."""

    def __init__(self) -> None:
        self.idle_since: float | None = time.monotonic()
        threading.Thread(target=self._watch, daemon=True, name="imgtx-departure").start()

    @contextmanager
    def working(self) -> Iterator[None]:
        """A batch is in hand."""
        self.idle_since = None
        try:
            yield
        finally:
            self.idle_since = time.monotonic()

    @property
    def idle(self) -> float:
        """Seconds without a batch."""
        since = self.idle_since
        return 0.0 if since is None else time.monotonic() - since

    def _watch(self) -> None:
        while not (node_drains() and self.idle >= IDLE_SECONDS):
            time.sleep(LOOK_SECONDS)
        log.warning("this machine drains: its model goes elsewhere")
        leave()


def node_drains() -> bool:
    """Whether Ray has been told that this node goes. Without a public door: Ray Data asks in the same way."""
    import ray

    try:
        draining = ray._private.state.state.get_draining_nodes()
        return ray.get_runtime_context().get_node_id() in draining
    except Exception as error:  # no head to ask: whatever comes next, it is not this thread that decides it
        log.debug("cannot ask whether this node drains: %s", error)
        return False


def leave() -> None:
    """End this actor, so that Ray makes it again where there is room; exit_actor() would end it for good."""
    import ray

    ray.kill(ray.get_runtime_context().current_actor, no_restart=False)


def departure() -> Departure | None:
    """For an actor of Ray's; None in any other process."""
    if "ray" not in sys.modules:  # nothing has started it
        return None
    import ray

    return Departure() if ray.is_initialized() and ray.get_runtime_context().get_actor_id() else None
