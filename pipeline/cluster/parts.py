"""Send from a Ray actor what its model has done of an image."""

import logging
import sys
from collections.abc import Callable

from pipeline.cluster.private import store_part

log = logging.getLogger("imgtx.pipeline")


def part_sender() -> Callable[[bytes | None], None] | None:
    """Return what sends a report to the driver in a Ray actor, None in any other process."""
    if "ray" not in sys.modules:
        return None
    import ray

    if not (ray.is_initialized() and ray.get_runtime_context().get_actor_id()):
        return None
    # Of this actor before it was restarted.
    _send(None)
    return _send


def _send(part: bytes | None) -> None:
    try:
        store_part(part)
    except Exception as error:
        # Losing the head has consequences of its own, which are not decided here.
        log.debug("cannot report what is done of an image: %s", error)
