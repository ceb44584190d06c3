"""What workers have done of images that are not finished, for the progress of a run."""

import threading
from collections.abc import Callable, Hashable, Iterable

import pyarrow as pa

from pipeline.stages.part_done import PartDone


class InHand:
    """The parts of unfinished images, by key. Each stays until its image is finished or its worker has ended.

    changed: called after new parts came, in the thread that noted them.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._parts: dict[str, tuple[Hashable, PartDone]] = {}
        self._lock = threading.Lock()
        # Keys of images that were finished during `look`.
        self._finished: set[str] | None = None

    @property
    def parts(self) -> list[PartDone]:
        with self._lock:
            return [part for _, part in self._parts.values()]

    @property
    def images(self) -> float:
        """How many images the parts are together."""
        return sum(part.share for part in self.parts)

    @property
    def megapixels(self) -> float:
        return sum(part.share * part.megapixels for part in self.parts)

    @property
    def size(self) -> float:
        """The bytes of their sources, each in proportion to its part."""
        return sum(part.share * part.size for part in self.parts)

    def note(self, worker: Hashable, part: PartDone) -> None:
        """Note a worker's report."""
        with self._lock:
            self._parts[part.key] = (worker, part)
        self.changed()

    def look(self, read: Callable[[], Iterable[PartDone]]) -> None:
        """Note the newest reports of all workers, which `read` returns.

        An image that is finished while they are read is no longer in hand. Of an image that two of them name, one of
        which is gone, the smaller part counts.
        """
        with self._lock:
            self._finished = set()
        found = sorted(read(), key=lambda part: part.share, reverse=True)
        with self._lock:
            new = {part.key: (None, part) for part in found if part.key not in self._finished}
            self._finished = None
            self._parts |= new
        if new:
            self.changed()

    def lose(self, worker: Hashable) -> None:
        """Forget the parts of a worker that has ended: its images begin anew."""
        with self._lock:
            self._parts = {key: (by, part) for key, (by, part) in self._parts.items() if by != worker}

    def finish(self, keys: pa.ChunkedArray) -> None:
        """Forget the parts of images that are finished, which count as whole images from now on."""
        with self._lock:
            if not self._parts and self._finished is None:
                return
            for key in keys.to_pylist():
                self._parts.pop(key, None)
                if self._finished is not None:
                    self._finished.add(key)

    def clear(self) -> None:
        """Forget all parts, as at the end of a pass."""
        with self._lock:
            self._parts.clear()
