"""What a local output takes over of its source's file: when that was modified, and who may read it."""

import os
import stat as modes
import time
from collections.abc import Iterator
from dataclasses import dataclass

# A time is kept to the millisecond. The rest tells contents apart: a file's version is its time and size, and another
# output of the same source must not have the same one.
_KEPT_NS = 10**6
_ACCESS_LIST = "system.posix_acl_access"


@dataclass(frozen=True)
class Attributes:
    """How a file is to be written.

    modified: its time of modification, in nanoseconds since 1970; None for the time of writing. shared: whether its
    `group`, a number, and everyone else may read it, where this user's umask lets them.
    """

    modified: int | None = None
    shared: tuple[bool, bool] = (True, True)
    group: int | None = None

    @property
    def mode(self) -> int:
        """The permissions that a new file is created with, before the umask."""
        group, others = self.shared
        return 0o600 | 0o060 * group | 0o006 * others


# Written now, and as open as this user's files are.
PLAIN = Attributes()
PRIVATE = Attributes(shared=(False, False))


def attributes_of(path: str, destination: str, *, times: bool) -> Attributes:
    """Return what an output in the folder `destination` takes over of the local file at `path`.

    No more people may read the output than can read the source, through the folders that it is in. Folders that it
    shares with the destination do not count: who cannot pass them does not reach the output either. A source that is
    gone leaves an output that only this user reads. times: whether the time is kept.
    """
    path = os.path.realpath(path)
    try:
        status = os.stat(path)
        group, others = bool(status.st_mode & 0o040), bool(status.st_mode & 0o004)
        for mode, owner in _folders(os.path.dirname(path), destination):
            passes = bool(mode & 0o001)
            others &= passes
            group &= bool(mode & 0o010) if owner == status.st_gid else passes
        if _has_access_list(path):
            # The mode then says what the list allows at most, to anyone in it.
            group &= others
    except OSError:
        return PRIVATE
    # A group that may not read what others may is among the others of a file of another group.
    return Attributes(status.st_mtime_ns if times else None, (group, others and group), status.st_gid)


def _folders(folder: str, destination: str) -> Iterator[tuple[int, int]]:
    """Yield mode and group of each folder from `folder` up to the one that the destination is in, too."""
    shared = os.path.commonpath([folder, os.path.realpath(destination)])
    while folder != shared and folder != os.path.dirname(folder):
        status = os.stat(folder)
        yield status.st_mode, status.st_gid
        folder = os.path.dirname(folder)


def _has_access_list(path: str) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(path)
    except (AttributeError, OSError):
        # Not Linux, or a file system without such lists.
        return False


def set_time(file: int, modified: int, digest: int) -> None:
    """Set the time of modification of an open file; digest: a number that stands for its content."""
    stamp = modified // _KEPT_NS * _KEPT_NS + digest % _KEPT_NS
    os.utime(file, ns=(time.time_ns(), stamp))


def restrict_group(file: int, attributes: Attributes) -> None:
    """Let a new, empty file belong to the group that may read it, or to nobody's if that cannot be."""
    status = os.fstat(file)
    if attributes.group in (None, status.st_gid) or not attributes.shared[0]:
        return
    os.fchmod(file, modes.S_IMODE(status.st_mode) & ~0o070)
    try:
        os.fchown(file, -1, attributes.group)
    except OSError:
        # This user is not in that group. Everyone may read it only if everyone else may, too.
        return
    os.fchmod(file, modes.S_IMODE(status.st_mode))
