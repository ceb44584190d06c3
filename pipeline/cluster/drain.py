"""Vacate draining nodes: an idle model actor on a draining node exits so that Ray restarts it elsewhere.

A node drains from when its `ray start --block` gets SIGTERM, or when `ray drain-node` announces a preemption. Ray
then gives it no new work, and Ray Data sends its actors no batches; but actors hold their node, which would be idle
until its deadline, and its models with it.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cluster.private import draining_nodes

log = logging.getLogger("imgtx.pipeline")

LOOK_SECONDS = 2.0
# Ray Data sees within a second or two that the node drains; batches sent before that have arrived by then.
IDLE_SECONDS = 5.0


class DrainWatcher:
    """Watches one actor's node in a thread of its own, and restarts the actor elsewhere when the node drains."""

    def __init__(self) -> None:
        self.idle_since: float | None = time.monotonic()
        threading.Thread(target=self._watch, daemon=True, name="imgtx-drain").start()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark the actor as busy with a batch."""
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
        log.warning("this node drains: restarting its model elsewhere")
        restart_elsewhere()


def node_drains() -> bool:
    """Return whether Ray drains the node of this process; False where the head cannot be asked."""
    import ray

    try:
        return ray.get_runtime_context().get_node_id() in draining_nodes()
    except Exception as error:
        # Losing the head has consequences of its own, which are not decided in this thread.
        log.debug("cannot ask whether this node drains: %s", error)
        return False


def restart_elsewhere() -> None:
    """End this actor so that Ray restarts it where there is room; exit_actor() would end it permanently."""
    import ray

    ray.kill(ray.get_runtime_context().current_actor, no_restart=False)


def drain_watcher() -> DrainWatcher | None:
    """Return a watcher in a Ray actor, None in any other process."""
    if "ray" not in sys.modules:
        return None
    import ray

    in_actor = ray.is_initialized() and ray.get_runtime_context().get_actor_id()
    return DrainWatcher() if in_actor else None
