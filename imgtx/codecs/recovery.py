"""What can be had of a truncated picture, for archives that exist only once: rows up to where the file ends.

Only files that end too early are taken, never those whose bytes are wrong. JPEG, PNG and TIFF are stored from top to
bottom, so that their rows are whole up to the damage; missing pixels are as the decoder leaves them, grey in JPEG and
black elsewhere. A progressive JPEG and an interlaced PNG are stored from coarse to fine: how far their last pixels
reach is told by the filling behind them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import imgtx.codecs.vips as vips
from imgtx.codecs.picture import Facts
from imgtx.codecs.refusals import decoder_errors
from imgtx.errors import ImageError

RECOVERABLE = ("jpeg", "png", "tiff")
# Level that libjpeg leaves where it has no data; the other decoders leave 0.
_FILLING = {"jpeg": 128}
# Rows that are stored together at most: all of them may be incomplete.
_TOGETHER = {"jpeg": 32}


@dataclass(frozen=True)
class Recovered:
    """`facts` with the notes of the damage, and the share of rows that are `missing`."""

    facts: Facts
    missing: float


def assess(source: bytes | Path, facts: Facts, error: ImageError) -> Recovered:
    """Judge a file that was refused as truncated by `error`. Raises `ImageError` (unrecoverable) if nothing is there.

    The share that is missing counts a row as whole only if each of its pixels is; it may be some rows too high.
    """
    header = facts.header
    if header.format not in RECOVERABLE:
        raise unrecoverable(error, f"nothing of a truncated {header.format} can be decoded")
    height, _ = header.stored_size
    rows, filled = vips.whole_rows(source, header), _filled_rows(source, facts)
    # Or not even eight rows.
    coarse = not rows
    # A decoder that reads ahead reports the end some rows early.
    rows = filled if coarse else max(rows, filled - _TOGETHER.get(header.format, 1))
    if not rows:
        raise unrecoverable(error, "no row of it can be decoded")
    kept = tuple(note for note in facts.notes if note != "end-missing")
    notes = ("damage-accepted", *(("detail-missing",) if coarse else ()))
    return Recovered(replace(facts, notes=(*kept, *notes)), 1 - rows / height)


def strips(source: bytes | Path, facts: Facts) -> Iterator[tuple[int, np.ndarray]]:
    """Decode what is there: (top, samples (rows, width, bands)) for the whole height."""
    with decoder_errors(facts.header.format):
        yield from vips.recovered(source, facts.header)


def samples(source: bytes, facts: Facts) -> np.ndarray:
    """Decode what is there: (height, width, bands) uint8 or uint16 as stored."""
    return np.concatenate([strip for _, strip in strips(source, facts)])


def unrecoverable(error: ImageError, why: str) -> ImageError:
    """Return the error for a truncated file of which nothing can be taken."""
    return ImageError("unrecoverable", f"{error}; {why}")


def _filled_rows(source: bytes | Path, facts: Facts) -> int:
    """Return the number of rows down to the last one that has something else than the decoder's filling."""
    last = 0
    filling = _FILLING.get(facts.header.format, 0)
    try:
        for top, strip in vips.recovered(source, facts.header):
            found = np.flatnonzero((strip != filling).any(axis=(1, 2)))
            last = top + int(found[-1]) + 1 if len(found) else last
    except Exception:
        # The decoder takes nothing of it.
        return 0
    return last
