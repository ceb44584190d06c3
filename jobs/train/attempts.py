"""Run Ray Train until a training is done: again after what it does not recover from by itself, but not forever."""

import threading
import time
from collections.abc import Callable
from typing import Any

from imgtx.errors import RunInterruptedError
from jobs.train.reports import Relay, ReportMailbox
from jobs.train.restarts import Restarts
from pipeline.ledger.lease import Lease

POLL_SECONDS = 0.5
# Of an attempt after the first, until its workers start; the first may wait for machines.
START_SECONDS = 1200.0


def fit(make: Callable[[Any], Any], relay: Relay, restarts: Restarts, lease: Lease) -> None:
    """Run the trainer that `make` returns for a mailbox, from its last checkpoint, until the training is done.

    Ray Train recovers by itself from a lost worker, but not while the workers form their group, nor from the loss of
    its controller. Raises RunInterruptedError if it makes no more progress or another process takes the lease.
    """
    patience = float("inf")
    while error := _attempt(make, relay, lease, patience):
        restarts.count_failure(error)
        _free_what_it_held()
        patience = START_SECONDS


def _attempt(make: Callable[[Any], Any], relay: Relay, lease: Lease, patience: float) -> Exception | None:
    """Run Ray Train once, in a thread, and pass on its reports; return the error that it ended with."""
    import ray
    from ray.exceptions import RayActorError

    mailbox = ray.remote(num_cpus=0)(ReportMailbox).remote()
    trainer = make(mailbox)
    ended: list[Exception | None] = []

    def run() -> None:
        try:
            trainer.fit()
            ended.append(None)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, name="imgtx-train", daemon=True)
    began, starts = time.monotonic(), relay.starts
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            relay(ray.get(mailbox.take.remote()))
            if lease.lost:
                raise RunInterruptedError(
                    "another process took over this training; the same command continues when that has ended"
                )
            if relay.starts == starts and time.monotonic() - began > patience:
                raise RunInterruptedError(
                    f"the workers did not start again within {patience / 60:.0f} minutes; the same command continues"
                )
        relay(ray.get(mailbox.take.remote()))
    except RayActorError as error:
        raise RunInterruptedError(
            "the process that collects the workers' reports was lost; the same command continues"
        ) from error
    return ended[0]


def _free_what_it_held() -> None:
    """Remove the placement groups that a lost controller leaves: its workers' CPUs would never be free again.

    Ray Train's own cleaner asks the dashboard whether the controller lives, and a private Ray has none. A placement
    group's id ends with that of its job.
    """
    import ray
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    job = ray.get_runtime_context().get_job_id()
    for number, group in placement_group_table().items():
        if number.endswith(job) and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(number))))
