"""Stop a run whose worker processes end again and again while no image is finished.

An image that ends its process is found by running it alone, and recorded: that is no reason to stop. Too little memory
is, because every image then ends its process, and so is what ends all of them before they have done anything.
"""

from imgtx.errors import WorkersEndedError
from imgtx.memory import killed_for_memory, memory_at_hand
from pipeline.cluster.memory import needed

# Deaths without a finished image in between: those of which the kernel says that they were for memory, beside one for
# each process of the pool; and others in a run that has not finished any image yet.
FEW, MANY = 3, 50


class Deaths:
    """Counts worker processes that ended since the last finished image.

    base: the bytes that a run of this engine takes beside its workers. workers: how many the pool has.
    """

    def __init__(self, base: int, workers: int):
        self.base, self.few = base, FEW + workers
        self.count, self.finished = 0, False
        self._killed = killed_for_memory()

    @property
    def for_memory(self) -> int:
        """How many processes the kernel has killed for memory since the last finished image."""
        return killed_for_memory() - self._killed

    def image_finished(self) -> None:
        """Note that the run can do something, and begin to count anew."""
        self.finished = True
        self.begin()

    def begin(self) -> None:
        """Begin to count anew, as at the start of a pass."""
        self.count, self._killed = 0, killed_for_memory()

    def check(self) -> None:
        """Raise WorkersEndedError where going on would only end more processes."""
        killed = self.for_memory
        if killed >= self.few:
            raise self.too_little_memory()
        if self.count >= MANY and not self.finished:
            raise WorkersEndedError(
                f"{self.count} worker processes ended, and no image was finished: find the cause, with one image in a "
                "folder of its own"
            )

    def too_little_memory(self) -> WorkersEndedError:
        """Return the error that names what was killed, the memory at hand and what is needed."""
        memory, killed = memory_at_hand(), self.for_memory
        at_hand = f" Now {memory.describe()}." if memory else ""
        return WorkersEndedError(
            f"too little memory: the kernel killed {killed} process{'es' * (killed > 1)} of this run, and no image was "
            f"finished in between.{at_hand} A run with one worker needs about {needed(self.base) >> 20:,} MB, and more "
            "with large models: give it that, take --engine local and --workers 1, or leave large images out with "
            "--set max_megapixels=N"
        )
