"""Which of a TIFF's directories is the picture: files hold thumbnails, pyramids, masks and pages beside it.

TIFF 6.0 with Adobe's technical note 1 (SubIFDs). Tag 254 says whether a directory is a reduced copy (1), a page of
several (2) or a mask (4); tag 255 says the same in older files. A directory can have others below it (tag 330).
"""

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from imgtx.codecs.picture import METADATA_LIMIT
from imgtx.errors import ImageError

_REDUCED, _MASK = 1, 4
# More directories than any pyramid has; a longer chain is judged by its first ones.
_MAX_DIRECTORIES = 64
# Entries of a directory at most, and the bytes of a value by its type: byte, text, 32-bit number, signed, undefined.
_MAX_ENTRIES = 65_536
_SIZES = {1: 1, 2: 1, 4: 4, 6: 1, 7: 1}


@dataclass(frozen=True)
class Directory:
    """A directory: its tags, its number in the file's chain, and in `sub` its number below that one, or -1.

    `bigger` says whether the file's offsets have 64 bits, `offset` where the directory is in the file, in bytes.
    """

    tags: Any
    offset: int
    bigger: bool
    page: int
    sub: int = -1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, 0 where the tags are absent."""
        return self.tags.get(256, 0), self.tags.get(257, 0)

    @property
    def pixels(self) -> int:
        width, height = self.size
        return width * height

    @property
    def is_reduced(self) -> bool:
        return bool(self.tags.get(254, 0) & _REDUCED) or self.tags.get(255) == 2

    @property
    def is_mask(self) -> bool:
        return bool(self.tags.get(254, 0) & _MASK)


@dataclass(frozen=True)
class Pages:
    """What a TIFF holds: its `first` directory, the `picture`, and how many `pages` there are, up to two."""

    first: Directory
    picture: Directory
    pages: int


def parts_of(tags) -> list[tuple[int, int]]:
    """Return (offset, length) in bytes of each strip or tile, as far as both are stated."""
    offsets, lengths = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    return [*zip(offsets, lengths, strict=False)]


def read_pages(file: BinaryIO) -> Pages:
    """Find the full-size picture. Raises `ImageError` (which_picture) where the file does not tell it."""
    chain: list[Directory] = []
    below: list[Directory] = []
    for directory in _chain(file):
        chain.append(directory)
        below += _below(file, directory)
        if sum(bool(d.pixels) and not d.is_reduced and not d.is_mask for d in chain) == 2:
            # Two pages are refused, whatever follows.
            return Pages(chain[0], chain[0], 2)
    return Pages(chain[0], _picture(chain, below), 1)


def tag_bytes(file: BinaryIO, directories: Iterable[Directory], tag: int) -> bytes | None:
    """Return the bytes of a tag as they are in the file, from the first directory that has it; None where none has.

    Returns b"" for one that is damaged, of more than METADATA_LIMIT bytes, or of a type that is not bytes, text or
    32-bit numbers. Not by Pillow, which keeps one number where it expects no more.
    """
    file.seek(0)
    order = ">" if file.read(2) == b"MM" else "<"
    for directory in directories:
        count, entry = (order + "Q", order + "HHQ8s") if directory.bigger else (order + "H", order + "HHI4s")
        file.seek(directory.offset)
        (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
        step = struct.calcsize(entry)
        listed = file.read(min(entries, _MAX_ENTRIES) * step)
        for at in range(0, len(listed) - step + 1, step):
            number, kind, values, inline = struct.unpack_from(entry, listed, at)
            if number == tag:
                length = values * _SIZES.get(kind, 0)
                if length > len(inline):
                    file.seek(struct.unpack(order + ("Q" if directory.bigger else "I"), inline)[0])
                    inline = file.read(length) if length <= METADATA_LIMIT else b""
                return inline[:length] if length <= len(inline) else b""
    return None


def _picture(chain: list[Directory], below: list[Directory]) -> Directory:
    everything = [d for d in (*chain, *below) if not d.is_mask and d.pixels] or chain[:1]
    full = [d for d in everything if not d.is_reduced]
    largest = _largest(full or everything)
    if full:
        # A copy that is called reduced and is larger contradicts itself; a page is not taken for its equal below it.
        told = [d for d in largest if d.sub < 0] or largest
        if len(told) == 1 and all(d.pixels <= told[0].pixels for d in everything):
            return told[0]
    elif len(largest) == 1 and all(_same_shape(d, largest[0]) for d in everything):
        # Each calls itself a reduced copy: of them all, the largest is what there is.
        return largest[0]
    sizes = ", ".join(f"{d.size[0]} x {d.size[1]}" for d in everything[:4])
    raise ImageError(
        "which_picture",
        f"a TIFF that holds pictures of {sizes} pixels and does not say which of them is the full-size one: save the "
        "one you want as a file of its own",
    )


def _largest(directories: list[Directory]) -> list[Directory]:
    most = max(directory.pixels for directory in directories)
    return [directory for directory in directories if directory.pixels == most]


def _same_shape(small: Directory, large: Directory) -> bool:
    """Return whether both have the same proportions, as copies have, up to a rounded pixel of the smaller."""
    (width, height), (full_width, full_height) = small.size, large.size
    return abs(width * full_height - height * full_width) <= max(full_width, full_height)


def _chain(file: BinaryIO) -> Iterator[Directory]:
    """Yield the directories that the file links one after the other; only the first must be readable."""
    empty, bigger = _empty(file)
    at, seen = empty.next, set[int]()
    _check_whole(file, at, bigger)
    while len(seen) < _MAX_DIRECTORIES and (not seen or (at and at not in seen)):
        seen.add(at)
        tags = _read(file, at)
        yield Directory(tags, at, bigger, len(seen) - 1)
        at = tags.next


def _check_whole(file: BinaryIO, at: int, bigger: bool) -> None:
    """Raise EOFError if the directory at `at` ends behind the file's end: Pillow reads what is there of it."""
    file.seek(0)
    order = ">" if file.read(2) == b"MM" else "<"
    count, entry_bytes = (order + "Q", 20) if bigger else (order + "H", 12)
    size = file.seek(0, os.SEEK_END)
    file.seek(at)
    head = file.read(struct.calcsize(count))
    if (
        len(head) < struct.calcsize(count)
        or at + len(head) + entry_bytes * struct.unpack(count, head)[0] > size
    ):
        raise EOFError("its directory is behind its end")


def _below(file: BinaryIO, parent: Directory) -> Iterator[Directory]:
    offsets = parent.tags.get(330, ())
    for number, at in enumerate(offsets if isinstance(offsets, tuple | list) else (offsets,)):
        if isinstance(at, int) and at and number < _MAX_DIRECTORIES:
            yield Directory(_read(file, at), at, parent.bigger, parent.page, number)


def _read(file: BinaryIO, at: int):
    tags, _ = _empty(file)
    file.seek(at)
    tags.load(file)
    return tags


def _empty(file: BinaryIO):
    """Return a directory to be loaded from the offset in its `next`, and whether offsets have 64 bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file.seek(0)
    start = file.read(16)
    bigger = start[2:4] in (b"\0+", b"+\0")
    if bigger:
        # Pillow recognises this form by the third byte alone, but not when the file is big-endian.
        return ImageFileDirectory_v2(b"II+\0" + start[4:], prefix=start[:2]), True
    return ImageFileDirectory_v2(start[:8]), False
