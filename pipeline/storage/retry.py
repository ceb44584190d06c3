"""When to ask again: the back-off that every back end of `pipeline.storage.store` shares."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from imgtx.errors import StorageError

Answer = TypeVar("Answer")

# Begins the last component of every name that is ours for a moment: never listed, swept after a crash.
TEMPORARY = ".imgtx-tmp-"


def is_hidden(key: str) -> bool:
    """Folder markers, and names that are ours for a moment."""
    return key.endswith("/") or key.rpartition("/")[2].startswith(TEMPORARY)


def check_version(where: str, found: str, wanted: str) -> None:
    """StorageError(changed) for an object that is not of the version that was listed; "" stands for unknown."""
    if wanted and found and found != wanted:
        raise StorageError(
            "changed", f"{where} changed after it was listed (version {found}, listed {wanted}): run again"
        )


@dataclass(frozen=True)
class Patience:
    """How long to go on asking; all times in seconds.

    The default outlasts a network cut of 30 s: its pauses add up to 38 s on average.
    """

    attempts: int = 8
    first_pause: float = 0.5
    longest_pause: float = 20.0
    connect: float = 10.0
    read: float = 60.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1): doubling, half of it jitter."""
        longest = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
        return random.uniform(longest / 2, longest)


PATIENT = Patience()
HASTY = Patience(attempts=2, first_pause=0.2, connect=3.0, read=10.0)


def retried(
    call: Callable[[], Answer],
    explain: Callable[[Exception], StorageError | None],
    patience: Patience,
) -> Answer:
    """The answer of `call`, asked again while `explain` finds its failure transient.

    Raises what `explain` makes of the last failure; what it answers None to is a bug and passes unchanged.
    """
    for attempt in range(1, patience.attempts + 1):
        try:
            return call()
        except Exception as error:
            failure = explain(error)
            if failure is None:
                raise
            if not failure.transient or attempt == patience.attempts:
                raise failure from error
        time.sleep(patience.pause(attempt))
    raise ValueError(f"patience of {patience.attempts} attempts; at least 1 is needed")
