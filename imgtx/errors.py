"""The exceptions that imgtx raises on purpose, and the exit codes of its commands.

    ImgtxError
    ├── UsageError      the user's mistake: wrong option, spec, model name, credentials. One line, exit code 2.
    ├── ImageError      one image cannot be processed: becomes one ledger row with a reason. Never stops a run.
    ├── ModelError      weights that are truncated, foreign, or do not fit their config.
    ├── StorageError    object storage did not do what was asked; says whether trying again can help.
    ├── LeaseHeldError  another run holds the destination.
    ├── ClusterError    Ray, or a cluster, could not be reached or started; nothing was done. Exit code 4.
    ├── WorkersEndedError  worker processes end again and again, and no image is finished. Exit code 3.
    └── RunInterruptedError  a run was stopped, its state is resumable. Exit code 130.

Anything else that escapes is a bug and carries the key of the image it met.
"""

DONE, BUG, USAGE, FAILURES, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

# In the order in which a user meets them.
EXIT_CODES = {
    DONE: "done",
    USAGE: "wrong usage, nothing was done",
    FAILURES: "finished with more failures or skipped files than the options allow, or did not finish",
    UNREACHABLE: "the cluster could not be reached or started, nothing was done",
    INTERRUPTED: "interrupted, the same command continues where it stopped",
    BUG: "a bug in imgtx",
}


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's message, at most `limit` characters; its type if it has no message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]


class ImgtxError(Exception):
    """Base of all; its message is a sentence: what was given, what is allowed, what to do next."""


class UsageError(ImgtxError):
    """A mistake that the user can correct; ends the command before any work starts."""


class ModelError(ImgtxError):
    """A weight file that cannot be trusted or used."""


class LeaseHeldError(ImgtxError):
    """Another live run writes to this destination."""


class ClusterError(ImgtxError):
    """Ray did not start here, or no cluster answers; nothing was done, and the same command may succeed later."""


class WorkersEndedError(ImgtxError):
    """Worker processes ended again and again, and no image was finished in between; what was done before is sound."""


class RunInterruptedError(ImgtxError):
    """The user stopped the run or it lost its lease; the same command continues where it stopped."""


class ImageError(ImgtxError):
    """One image that cannot be processed.

    `reason` is a word of the ledger's vocabulary (`pipeline.tables.schemas.REASONS`).
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.reason, str(self))


class StorageError(ImgtxError):
    """A request that object storage refused or did not answer.

    `reason` is a word of the ledger's vocabulary; `transient` says whether a later try can succeed.
    """

    def __init__(self, reason: str, message: str, *, transient: bool = False):
        super().__init__(message)
        self.reason = reason
        self.transient = transient

    def __reduce__(self):
        return _storage_error, (self.reason, str(self), self.transient)


def _storage_error(reason: str, message: str, transient: bool) -> StorageError:
    return StorageError(reason, message, transient=transient)
