"""PPM, PGM, PBM and PAM (netpbm): header and decoder. https://netpbm.sourceforge.net/doc/

Why by hand: Pillow cuts 16-bit colour to 8 bits, and libvips here is built without them. A file can hold several
pictures one after the other, which count as an animation.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from imgtx.codecs.format import Format
from imgtx.codecs.picture import Facts, Header
from imgtx.errors import ImageError

_SPACE = b" \t\r\n\v\f"
# By magic number: channels, and whether the samples are text.
_KINDS = {
    b"P1": (1, True),
    b"P2": (1, True),
    b"P3": (3, True),
    b"P4": (1, False),
    b"P5": (1, False),
    b"P6": (3, False),
}
_TUPLES = {
    "BLACKANDWHITE": 1,
    "GRAYSCALE": 1,
    "RGB": 3,
    "BLACKANDWHITE_ALPHA": 2,
    "GRAYSCALE_ALPHA": 2,
    "RGB_ALPHA": 4,
}
# Bytes in which a header must end; real ones have some fifty.
_HEADER_BYTES = 2**16
# Pixels of the rows that are decoded together.
_STRIP_PIXELS = 2**22


@dataclass(frozen=True)
class _Layout:
    """How the samples of the first picture are stored, from byte `start` on, `bands` a pixel up to level `top`."""

    kind: bytes
    width: int
    height: int
    bands: int
    top: int
    start: int

    @property
    def text(self) -> bool:
        return _KINDS.get(self.kind, (0, False))[1]

    @property
    def is_bits(self) -> bool:
        return self.kind in (b"P1", b"P4")

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row of binary samples."""
        if self.is_bits:
            return (self.width + 7) // 8
        return self.width * self.bands * (1 if self.top < 256 else 2)


def recognise(start: bytes) -> bool:
    return (start[:2] in _KINDS and start[2:3] in {*map(bytes, zip(_SPACE)), b"#"}) or start[:3] == b"P7\n"


def read_facts(file: BinaryIO) -> Facts:
    """Read the header. Raises `ImageError` (unsupported) for tuples of unknown meaning."""
    layout = _read_layout(file)
    size = file.seek(0, os.SEEK_END)
    end = 0 if layout.text else layout.start + layout.row_bytes * layout.height
    alpha = layout.bands in (2, 4)
    several = bool(end) and _magic_follows(file, end, size)
    header = Header(
        "ppm",
        layout.height,
        layout.width,
        channels=3 if layout.bands >= 3 else 1,
        depth=8 if layout.top < 256 else 16,
        alpha=alpha,
        frames=2 if several else 1,
        orientation=1,
        form="1bit" if layout.is_bits else "rgb" if layout.bands >= 3 else "grey",
    )
    notes = ("levels-scaled",) if layout.top not in (1, 255, 65535) else ()
    return Facts(header, notes=notes, end=end)


def _read_layout(file: BinaryIO) -> _Layout:
    file.seek(0)
    text = file.read(_HEADER_BYTES)
    kind = text[:2]
    if kind == b"P7":
        return _pam_layout(text)
    numbers, at = list[int](), 2
    wanted = 2 if kind in (b"P1", b"P4") else 3
    while len(numbers) < wanted:
        while text[at : at + 1] and text[at] in _SPACE:
            at += 1
        if text[at : at + 1] == b"#":
            at = text.index(b"\n", at) + 1
            continue
        first = at
        while text[at : at + 1].isdigit():
            at += 1
        if at == len(text):
            raise EOFError("no end of the numbers")
        numbers.append(int(text[first:at]))
    width, height, top = (*numbers, 1)[:3]
    if not 1 <= top <= 65535:
        raise ValueError(f"the highest level is {top}")
    # One white space ends the header.
    return _Layout(kind, width, height, _KINDS[kind][0], top, at + 1)


def _pam_layout(text: bytes) -> _Layout:
    end = text.find(b"ENDHDR\n")
    if end < 0:
        raise EOFError("no ENDHDR")
    lines = [line.split(None, 1) for line in text[2:end].decode("ascii").splitlines()]
    stated = {words[0]: words[1].strip() for words in lines if len(words) == 2 and words[0] != "#"}
    width, height, bands, top = (int(stated[name]) for name in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL"))
    meaning = stated.get("TUPLTYPE", {1: "GRAYSCALE", 3: "RGB"}.get(bands, ""))
    if _TUPLES.get(meaning) != bands:
        raise ImageError(
            "unsupported",
            f"a PAM of {bands} samples a pixel that are {meaning or 'of no stated kind'}; imgtx reads "
            f"{', '.join(_TUPLES)}: convert it",
        )
    if not 1 <= top <= 65535:
        raise ValueError(f"the highest level is {top}")
    return _Layout(b"P7", width, height, bands, top, end + len(b"ENDHDR\n"))


def _magic_follows(file: BinaryIO, end: int, size: int) -> bool:
    if end + 3 > size:
        return False
    file.seek(end)
    return recognise(file.read(3))


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode a whole file: (height, width, bands) uint8 or uint16, scaled to all levels."""
    layout = _read_layout(io.BytesIO(data))
    if layout.text:
        return _scaled(_from_text(data, layout), layout)
    return _from_bytes(data[layout.start :], layout, layout.height)


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a file from top to bottom, binary samples in bounded memory."""
    with path.open("rb") as file:
        layout = _read_layout(file)
        if layout.text:
            yield 0, samples(path.read_bytes(), header)
            return
        file.seek(layout.start)
        count = max(1, _STRIP_PIXELS // layout.width)
        for top in range(0, layout.height, count):
            rows = min(count, layout.height - top)
            yield top, _from_bytes(file.read(rows * layout.row_bytes), layout, rows)


def _from_bytes(data: bytes, layout: _Layout, rows: int) -> np.ndarray:
    if len(data) < rows * layout.row_bytes:
        raise EOFError(f"{len(data)} bytes of pixels where {rows * layout.row_bytes} belong")
    lines = np.frombuffer(data, np.uint8, rows * layout.row_bytes).reshape(rows, layout.row_bytes)
    if layout.is_bits:
        # 1 is black.
        stored = 1 - np.unpackbits(lines, axis=1, count=layout.width)
    else:
        stored = lines if layout.top < 256 else lines.view(">u2")
    return _scaled(stored.reshape(rows, layout.width, layout.bands), layout)


def _from_text(data: bytes, layout: _Layout) -> np.ndarray:
    body = data[layout.start :]
    if b"#" in body:
        body = b"\n".join(line.partition(b"#")[0] for line in body.split(b"\n"))
    count = layout.height * layout.width * layout.bands
    if layout.is_bits:
        digits = np.frombuffer(bytes(body.translate(None, _SPACE)), np.uint8)[:count]
        values = 1 - (digits.astype(np.int64) - ord("0"))
    else:
        values = np.array(body.split(None, count)[:count], np.int64)
    if len(values) < count:
        raise EOFError(f"{len(values)} samples where {count} belong")
    if values.min() < 0 or values.max() > layout.top:
        raise ValueError(f"a level outside 0 to {layout.top}")
    return values.reshape(layout.height, layout.width, layout.bands)


def _scaled(stored: np.ndarray, layout: _Layout) -> np.ndarray:
    """Scale levels 0 to `layout.top` to all of 8 or 16 bits; higher ones are damage."""
    full, dtype = (255, np.uint8) if layout.top < 256 else (65535, np.uint16)
    if layout.top == full:
        return stored.astype(dtype)
    if stored.size and int(stored.max()) > layout.top:
        raise ValueError(f"a level of {stored.max()} above the highest, {layout.top}")
    table = (np.arange(layout.top + 1, dtype=np.int64) * full + layout.top // 2) // layout.top
    return table.astype(dtype)[stored]


FORMAT = Format(
    name="ppm",
    title="PPM",
    suffixes=(".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
    reads="PPM, PGM, PBM and PAM of every depth up to 16 bits, binary and text",
    recognise=recognise,
    read_facts=read_facts,
    samples=samples,
    strips=strips,
    same="png",
)
