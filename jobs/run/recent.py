"""The speed of a run over its last minute."""

from collections import deque
from typing import NamedTuple

WINDOW_SECONDS = 60.0
# Closer together, counts share one mark.
MARK_SECONDS = 1.0


class Mark(NamedTuple):
    """What was done at a moment, with the parts of images that are not finished. size: bytes of sources."""

    seconds: float
    images: float
    megapixels: float
    size: float = 0.0


class Speed(NamedTuple):
    """What is done in a second."""

    images: float
    megapixels: float
    size: float


class RecentSpeed:
    """Marks of the last minute, and the two before it: where images take minutes, the last minute may have none."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque()

    def add(self, mark: Mark) -> None:
        """Add a mark; the first is the moment when work began."""
        if len(self._marks) > 1 and mark.seconds - self._marks[-1].seconds < MARK_SECONDS:
            return
        self._marks.append(mark)
        while len(self._marks) > 2 and mark.seconds - self._marks[2].seconds >= WINDOW_SECONDS:
            self._marks.popleft()

    def speed(self, now: Mark) -> Speed:
        """Return the speed since the newest mark that is a minute old and has fewer images.

        Where a worker has ended, less may be done of the others than before it: that counts as nothing.
        """
        # A copy in one step: the thread that shows progress calls this while the driver adds marks.
        marks = list(self._marks)
        earlier = [mark for mark in marks if mark.images < now.images and mark.seconds < now.seconds]
        if not earlier:
            return Speed(0.0, 0.0, 0.0)
        old = [mark for mark in earlier if now.seconds - mark.seconds >= WINDOW_SECONDS]
        since = old[-1] if old else earlier[0]
        span = now.seconds - since.seconds
        done = (now[part] - since[part] for part in (1, 2, 3))
        return Speed(*(max(0.0, amount) / span for amount in done))
