"""Repeat requests that failed for a moment: the back-off that all back ends share."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from imgtx.errors import StorageError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to repeat a request; all times are in seconds.

    The defaults outlast a network outage of 30 s: their pauses add up to 38 s on average.

    connect, read: the timeouts of one attempt.
    """

    attempts: int = 8
    first_pause: float = 0.5
    longest_pause: float = 20.0
    connect: float = 10.0
    read: float = 60.0

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after failed attempt `attempt` (from 1): doubling, half of it jitter."""
        longest = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
        return random.uniform(longest / 2, longest)


DEFAULT_RETRY = RetryPolicy()
FAIL_FAST = RetryPolicy(attempts=2, first_pause=0.2, connect=3.0, read=10.0)


def retried(
    call: Callable[[], Answer],
    explain: Callable[[Exception], StorageError | None],
    retry: RetryPolicy,
) -> Answer:
    """Return the answer of `call`, repeated while `explain` makes a transient StorageError of its exception.

    Raises the StorageError of the last attempt. An exception that `explain` answers with None is a bug and passes
    unchanged.
    """
    for attempt in range(1, retry.attempts + 1):
        try:
            return call()
        except Exception as error:
            failure = explain(error)
            if failure is None:
                raise
            if not failure.transient or attempt == retry.attempts:
                raise failure from error
        time.sleep(retry.pause(attempt))
    raise ValueError(f"a retry policy of {retry.attempts} attempts; at least 1 is needed")
