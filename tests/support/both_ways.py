"""Encode a picture in memory and through disk, which must give the same."""

from pathlib import Path

from imgtx.codecs import Maker, Picture, carry_of, encode
from imgtx.codecs.spool import SpoolWriter


def both_ways(
    picture: Picture, format: str, folder: Path, quality: int = 90, maker: Maker | None = None
) -> tuple[bytes, bytes, tuple[str, ...]]:
    """Return the file made in memory, the file made through `folder`, and the notes, which are equal."""
    data, notes = encode(picture, format, quality=quality, maker=maker)
    height, width, channels = picture.pixels.shape
    writer = SpoolWriter(folder, height, width, channels, picture.pixels.dtype, picture.alpha is not None)
    writer.put(0, 0, picture.pixels, picture.alpha)
    path = writer.finish(format, quality, carry_of(picture), maker)
    assert writer.notes == notes
    return data, path.read_bytes(), notes
