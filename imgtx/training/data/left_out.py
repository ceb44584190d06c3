"""Images that cannot be trained on: left out and counted, so that one bad file among thousands stops nothing."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from imgtx.errors import ImageError, UsageError, first_line

log = logging.getLogger("imgtx.train")

Item = TypeVar("Item")
Read = TypeVar("Read")


class LeftOut:
    """The images that a training leaves out, by name, and why. Each counts once, however often it is met.

    tell: is called with each new one.
    """

    def __init__(self, tell: Callable[[str, ImageError], None] | None = None) -> None:
        self._complaints: dict[str, ImageError] = {}
        self._tell = tell

    def __len__(self) -> int:
        return len(self._complaints)

    def __contains__(self, name: str) -> bool:
        return name in self._complaints

    def add(self, name: str, error: ImageError) -> None:
        if name not in self._complaints:
            self._complaints[name] = error
            if self._tell:
                self._tell(name, error)

    def add_all(self, others: "LeftOut") -> None:
        for name, error in others._complaints.items():
            self.add(name, error)

    def summary(self) -> str:
        """`2 truncated, 1 too small; a.png cannot be trained on (truncated: ...): remove it`"""
        reasons = Counter(error.reason.replace("_", " ") for error in self._complaints.values())
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first = next(iter(self._complaints.values()), "")
        return f"{counts}; {first}"


def usable(
    items: Iterable[tuple[str, Item]],
    read: Callable[[str, Item], Read],
    where: object,
    *,
    most: int | None = None,
    left_out: LeftOut | None = None,
) -> dict[str, Read]:
    """Return what `read` makes of named items, the first `most` that can be used.

    read: raises ImageError for an item to leave out. left_out: collects these, and a line of the log counts them.
    Raises UsageError if none can be used.
    """
    found: dict[str, Read] = {}
    bad = LeftOut()
    for name, item in items:
        if most is not None and len(found) >= most:
            break
        try:
            found[name] = read(name, item)
        except ImageError as error:
            bad.add(name, error)
    if bad and not found:
        raise UsageError(f"none of the {len(bad)} images of {where} can be trained on: {bad.summary()}")
    if bad and left_out is not None:
        log.warning(
            "left out %d of %d images of %s: %s", len(bad), len(bad) + len(found), where, bad.summary()
        )
        left_out.add_all(bad)
    return found


def file_bytes(path: Path) -> bytes:
    """Return the bytes of an image's file; ImageError where it is gone or may not be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = {FileNotFoundError: "not_found", PermissionError: "forbidden"}.get(type(error), "storage")
        raise ImageError(
            reason,
            f"{path} cannot be read ({error.strerror or first_line(error)}): remove it, or give access to it",
        ) from error
