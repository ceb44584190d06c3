"""Encode: turn a whole transformed image into the bytes of its output file. CPU tasks, no torch."""

import hashlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from imgtx.codecs import Picture, unpack_carry
from imgtx.codecs import encode as encode_picture
from imgtx.imageops.grey import as_rgb
from imgtx.imageops.hidden import with_hidden_part
from imgtx.imageops.resize import imresize
from pipeline.planning.names import format_of
from pipeline.provenance import maker_of
from pipeline.spec import Job
from pipeline.tables.rows import Row, rows_of, run_stage, to_table
from pipeline.tables.schemas import ENCODED, FILE, UNTOUCHED
from pipeline.tasks import get_task


def encode(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Yield ENCODED rows for PIXELS rows (whole images), one table an image."""
    for row in rows_of(batch):
        yield to_table([encode_row(row, job)], ENCODED)


def encode_row(row: Row, job: Job) -> Row:
    """Return the row of a whole image with the bytes of its file."""
    return run_stage("encode", row, partial(to_file, job=job))


def to_file(row: Row, job: Job) -> Row:
    """Encode in the format of the output's name, with what the source says beside its pixels, where that format can.

    Pixels of more than the output's size are reduced to it first.
    """
    if row["dtype"] == FILE:
        return row | _written(row["tiles"], row["in_height"], row["in_width"])
    carry = unpack_carry(row["carry"])
    dtype = np.dtype(row["dtype"])
    _, height, width, channels = row["shape"]
    pixels = np.frombuffer(row["tiles"], dtype).reshape(height, width, channels)
    alpha = np.frombuffer(row["alpha"], dtype).reshape(height, width) if len(row["alpha"]) else None
    size, size_notes = (height, width), tuple[str, ...]()
    if row["model"] != UNTOUCHED:
        task, given = get_task(job.spec.task), (row["in_height"], row["in_width"], job.of(row))
        size, size_notes = task.output_size(*given), task.size_notes(*given)
    if size != (height, width):
        pixels = imresize(pixels, size=size)
        alpha = None if alpha is None else imresize(alpha, size=size)
    pixels = as_rgb(pixels) if channels < carry.channels else pixels
    pixels = with_hidden_part(pixels, carry.hidden)
    picture = Picture(
        pixels, alpha, carry.icc, carry.exif, carry.format, (), carry.texts, carry.colour, carry.metadata
    )
    format = format_of(row["output"])
    maker = None if row["model"] == UNTOUCHED else maker_of(job.of(row))
    data, notes = encode_picture(picture, format, quality=job.spec.quality, maker=maker)
    return row | _written(data, *size) | {"notes": [*row["notes"], *notes, *size_notes]}


def _written(data: bytes | pa.Buffer, height: int, width: int) -> Row:
    """Return the columns of an output file."""
    return {
        "encoded": data,
        "out_height": height,
        "out_width": width,
        "out_bytes": len(data),
        "out_sha256": hashlib.sha256(data).hexdigest(),
    }
