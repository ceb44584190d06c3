"""How often a training on Ray may restart: as often as it makes progress, but not forever from one checkpoint."""

import logging

from imgtx.errors import RunInterruptedError
from pipeline.storage.store import Store

log = logging.getLogger("imgtx.train")

# Restarts of all workers from the same checkpoint.
RESTARTS = 3


class Restarts:
    """Counts how often all workers started from the same checkpoint.

    Nodes may come and go for days; a fault that stays may not. Ray Train itself counts over the whole training, and
    names its workers' errors only when it gives up. `failure` is the last error that a worker reported.
    """

    def __init__(self, root: Store) -> None:
        self._root, self._checkpoint, self._started = root, "", 0
        self.failure = ""

    def count_start(self, checkpoint: str) -> None:
        """Count a start of the workers; RunInterruptedError if they started from this checkpoint too often."""
        self._started = self._started + 1 if checkpoint == self._checkpoint else 1
        self._checkpoint = checkpoint
        if self._started > 1 + RESTARTS:
            raise self.interruption(f"{RESTARTS} restarts reached no new checkpoint")

    def count_failure(self, error: Exception) -> None:
        """Count an attempt that Ray Train gave up; RunInterruptedError after too many from one checkpoint."""
        self._started += 1
        if self._started > 1 + RESTARTS:
            raise self.interruption(error) from error
        log.warning(
            "training ended (%s): continuing from its last checkpoint", last_line(error).partition(". ")[0]
        )

    def interruption(self, error: Exception | str) -> RunInterruptedError:
        """Return the error to raise, in one line: a worker's report, if there is one, and the last line of `error`."""
        failure = (
            " ".join(self.failure.split())[:300]
            or "no worker reported why: it was killed, or its node was lost"
        )
        kept = (
            f"its checkpoints are at {self._root.describe()}, the same command continues"
            if self._checkpoint
            else "it had reached no checkpoint, the same command starts again"
        )
        return RunInterruptedError(f"training stopped: {last_line(error)} ({failure}); {kept}")


def last_line(error: Exception | str) -> str:
    """Return the last line of a chain of errors, which names its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
