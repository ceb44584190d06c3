"""PSD and PSB: the flat picture that Photoshop stores beside the layers.
https://www.adobe.com/devnet-apps/photoshop/fileformatashtml/

Why by hand: Pillow reads no 16 bits, no PSB and no alpha, and does not say when there is no flat picture. Its PackBits
decoder is used. The channels lie one after the other, each in rows, so that any strip can be read by itself.
"""

import io
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

import imgtx.codecs.metadata.exif as exif
from imgtx.codecs.format import Format
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.density import density_of
from imgtx.codecs.picture import METADATA_LIMIT, Facts, Header, dropped
from imgtx.errors import ImageError

_HEADER = struct.Struct(">4sH6xHIIHH")
_MODES = {
    0: "bitmap", 1: "grey", 2: "palette", 3: "rgb", 4: "cmyk", 7: "multichannel", 8: "duotone", 9: "Lab",
}  # fmt: skip
_COLOURS = {"grey": 1, "palette": 1, "rgb": 3, "cmyk": 4}
_RAW, _PACKBITS = 0, 1
# Image resources.
_RESOLUTION, _IPTC, _ICC, _EXIF, _XMP, _VERSION_INFO = 1005, 1028, 1039, 1058, 1060, 1057
_MOST_CHANNELS = 56
# Samples of the rows that are decoded together.
_STRIP_SAMPLES = 2**23


@dataclass(frozen=True)
class _Layout:
    """Where the flat picture is: the compression's bytes follow `start`.

    `channels` are all that are stored, of which the first `taken` are read. `has_alpha` says whether the first one
    beyond the colours is the transparency of the flat picture.
    """

    big: bool
    mode: str
    channels: int
    height: int
    width: int
    bits: int
    palette: bytes
    start: int
    compression: int
    has_layers: bool
    has_alpha: bool

    @property
    def row_bytes(self) -> int:
        return self.width * self.bits // 8

    @property
    def taken(self) -> int:
        return _COLOURS[self.mode] + self.has_alpha


def recognise(start: bytes) -> bool:
    return start[:6] in (b"8BPS\0\1", b"8BPS\0\2")


def read_facts(file: BinaryIO) -> Facts:
    """Read the header and the image resources. Raises `ImageError` (unsupported) for forms that cannot be carried."""
    layout, resources = _read_layout(file)
    size = file.seek(0, os.SEEK_END)
    if layout.compression == _RAW:
        end = layout.start + 2 + layout.channels * layout.height * layout.row_bytes
    else:
        counts = layout.channels * layout.height * (4 if layout.big else 2)
        end = layout.start + 2 + counts
    block = exif.bare(resources.get(_EXIF, b""))
    header = Header(
        "psd",
        layout.height,
        layout.width,
        channels=1 if layout.mode == "grey" else 3,
        depth=layout.bits,
        alpha=layout.has_alpha,
        frames=1,
        # Photoshop has turned the pixels already, whatever the EXIF of their source says.
        orientation=1,
        form=layout.mode,
    )
    notes = dropped(
        exif=_EXIF in resources and not block,
        extra_channel=layout.channels > layout.taken,
        trailing_bytes=layout.compression == _RAW and size > end + 3,
    )
    metadata = Metadata(
        _density(resources.get(_RESOLUTION, b"")), resources.get(_XMP, b""), resources.get(_IPTC, b"")
    )
    merged = ("layers-merged",) if layout.has_layers else ()
    return Facts(header, resources.get(_ICC, b""), block, (*merged, *notes), end, metadata=metadata)


def _read_layout(file: BinaryIO) -> tuple[_Layout, dict[int, bytes]]:
    file.seek(0)
    _, version, channels, height, width, bits, mode_code = _HEADER.unpack(file.read(_HEADER.size))
    mode, big = _MODES.get(mode_code, f"mode {mode_code}"), version == 2
    palette = _section(file, ">I", METADATA_LIMIT)
    resources = _resources(_section(file, ">I", 4 * METADATA_LIMIT))
    layers = _section(file, ">Q" if big else ">I", 64)
    start = file.tell()
    compression = struct.unpack(">H", file.read(2))[0]
    if mode not in _COLOURS or bits not in (8, 16) or (bits == 16 and mode in ("palette", "cmyk")):
        raise ImageError(
            "unsupported",
            f"a {bits}-bit {mode} PSD; imgtx carries 8 and 16 bit grey and RGB, 8 bit CMYK and palettes: convert it",
        )
    if compression not in (_RAW, _PACKBITS):
        raise ImageError(
            "unsupported",
            f"a PSD whose flat picture has compression {compression}; imgtx reads none and PackBits: save it again",
        )
    if len(info := resources.get(_VERSION_INFO, b"")) > 4 and not info[4]:
        raise ImageError(
            "unsupported",
            'a PSD without its flat picture; imgtx does not draw layers: save it with "Maximize Compatibility"',
        )
    if not _COLOURS[mode] <= channels <= _MOST_CHANNELS:
        raise ValueError(f"{channels} channels of {mode}")
    has_alpha = channels > _COLOURS[mode] and mode != "cmyk" and _merged_alpha(layers, big)
    has_layers = len(layers) > (8 if big else 4)
    layout = _Layout(
        big, mode, channels, height, width, bits, palette, start, compression, has_layers, has_alpha
    )
    return layout, resources


def _section(file: BinaryIO, length_form: str, limit: int) -> bytes:
    """Read a section's beginning, up to `limit` bytes, and go behind it."""
    (length,) = struct.unpack(length_form, file.read(struct.calcsize(length_form)))
    at = file.tell()
    body = file.read(min(length, limit))
    if len(body) < min(length, limit):
        raise EOFError(f"a section of {length} bytes ends early")
    file.seek(at + length)
    return body


def _resources(section: bytes) -> dict[int, bytes]:
    found, at = dict[int, bytes](), 0
    while section[at : at + 4] in (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR"):
        (name,) = struct.unpack_from(">H", section, at + 4)
        # A Pascal string, padded to an even length with its own length byte.
        at += 6 + (section[at + 6] + 2) // 2 * 2
        (length,) = struct.unpack_from(">I", section, at)
        found.setdefault(name, section[at + 4 : at + 4 + length])
        at += 4 + (length + 1) // 2 * 2
    return found


def _merged_alpha(layers: bytes, big: bool) -> bool:
    """Return whether the first extra channel is the flat picture's transparency: the count of layers is negative."""
    at = 8 if big else 4
    return len(layers) >= at + 2 and struct.unpack_from(">h", layers, at)[0] < 0


def _density(resource: bytes):
    if len(resource) < 16:
        return None
    x, unit, _, y = struct.unpack_from(">IHHI", resource)
    # The numbers are per inch, whatever unit the dialogue shows.
    return density_of(x / 65536, y / 65536, "inch") if unit in (1, 2) else None


def check(file: BinaryIO, facts: Facts) -> None:
    """Check that the packed rows are there: their lengths are stated before them."""
    layout, _ = _read_layout(file)
    if layout.compression == _PACKBITS:
        size = file.seek(0, os.SEEK_END)
        if (end := int(_row_places(file, layout)[-1])) > size:
            raise EOFError(f"{size} bytes of a file whose rows end at {end}")


def samples(data: bytes, header: Header) -> np.ndarray:
    """Decode the flat picture: (height, width, bands) uint8 or uint16."""
    file = io.BytesIO(data)
    return np.concatenate([strip for _, strip in _strips(file)])


def strips(path: Path, header: Header) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the flat picture from top to bottom, in bounded memory."""
    with path.open("rb") as file:
        yield from _strips(file)


def _strips(file: BinaryIO) -> Iterator[tuple[int, np.ndarray]]:
    layout, _ = _read_layout(file)
    places = _row_places(file, layout)
    count = max(1, _STRIP_SAMPLES // (layout.width * layout.taken))
    for top in range(0, layout.height, count):
        rows = min(count, layout.height - top)
        planes = [_plane(file, layout, places, channel, top, rows) for channel in range(layout.taken)]
        yield top, _as_stored(np.stack(planes, axis=-1), layout)


def _row_places(file: BinaryIO, layout: _Layout) -> Sequence[int] | np.ndarray:
    """Return where each row of each channel begins, and where the last one ends."""
    rows, start = layout.channels * layout.height, layout.start + 2
    if layout.compression == _RAW:
        return range(start, start + layout.row_bytes * (rows + 1), layout.row_bytes)
    form = np.dtype(">u4" if layout.big else ">u2")
    file.seek(start)
    counts = np.frombuffer(file.read(rows * form.itemsize), form)
    if len(counts) < rows:
        raise EOFError("the lengths of the rows end early")
    return start + rows * form.itemsize + np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _plane(
    file: BinaryIO, layout: _Layout, places: Sequence[int] | np.ndarray, channel: int, top: int, rows: int
) -> np.ndarray:
    """Read rows of one channel: (rows, width)."""
    from PIL import Image

    first = channel * layout.height + top
    begin, end = int(places[first]), int(places[first + rows])
    file.seek(begin)
    data = file.read(end - begin)
    if len(data) < end - begin:
        raise EOFError(f"the rows of channel {channel} end early")
    if layout.compression == _PACKBITS:
        # Each row is packed by itself, so that Pillow takes them as one picture of bytes.
        data = Image.frombytes("L", (layout.row_bytes, rows), data, "packbits", "L").tobytes()
    return np.frombuffer(data, ">u2" if layout.bits == 16 else np.uint8).reshape(rows, layout.width)


def _as_stored(samples: np.ndarray, layout: _Layout) -> np.ndarray:
    if layout.bits == 16:
        samples = samples.astype(np.uint16)
    if layout.mode == "cmyk":
        # Photoshop stores how much paper is left.
        return 255 - samples
    if layout.mode != "palette":
        return _without_white(samples) if layout.has_alpha else samples
    if len(layout.palette) < 768:
        raise EOFError("the palette has fewer than 256 colours")
    # All reds, then all greens, then all blues.
    colours = np.frombuffer(layout.palette, np.uint8, 768).reshape(3, 256).T
    coloured = colours[samples[:, :, 0]]
    return np.concatenate([coloured, samples[:, :, 1:2]], axis=2) if layout.has_alpha else coloured


def _without_white(samples: np.ndarray) -> np.ndarray:
    """Undo Photoshop's laying the flat picture over white where it has transparency."""
    top = np.iinfo(samples.dtype).max
    alpha = samples[:, :, -1:].astype(np.int64)
    colours = samples[:, :, :-1].astype(np.int64)
    straight = top - ((top - colours) * top + alpha // 2) // np.maximum(alpha, 1)
    straight = np.where(alpha > 0, straight.clip(0, top), colours)
    return np.concatenate([straight.astype(samples.dtype), samples[:, :, -1:]], axis=2)


FORMAT = Format(
    name="psd",
    title="PSD",
    suffixes=(".psd", ".psb"),
    reads="the flat picture beside the layers: 8 and 16 bit grey and RGB, alpha, 8 bit CMYK and "
    "palettes; PSB",
    recognise=recognise,
    read_facts=read_facts,
    check=check,
    samples=samples,
    strips=strips,
    same="png",
)
