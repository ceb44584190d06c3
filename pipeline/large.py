"""The road of a picture too large for memory: local disk on the way in and out, tile by tile through the model.

Inside one actor, because its steps share a disk and nothing else. The tiles are those of the ordinary road, and so are
the pixels; memory holds what one call of the model takes.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgtx.degrade import imresize
from imgtx.spool import SpooledPicture, SpoolWriter, spool_in
from imgtx.tiling import Tile
from pipeline.names import format_of
from pipeline.records import IMAGES, WRITTEN
from pipeline.rows import Row
from pipeline.spec import Job
from pipeline.storage import open_store

if TYPE_CHECKING:
    from imgtx.predict import Predictor  # brings torch, which the driver does without


def transform_large(row: Row, job: Job, predictor: "Predictor") -> Row:
    """A `large` row to its written outcome: fetch, spool, tiles through the model, encode, put."""
    endpoint = job.spec.endpoint_url
    with tempfile.TemporaryDirectory(prefix="imgtx-spool-") as folder:
        directory = Path(folder)
        source = directory / "source"
        open_store(job.spec.source, endpoint_url=endpoint).download(row["key"], str(source))
        picture = spool_in(source, directory, max_pixels=int(job.spec.max_megapixels * 1e6))
        source.unlink()
        writer = enlarge(picture, directory, predictor)
        picture.remove()
        path = writer.finish(
            format_of(row["output"]), job.spec.quality, picture.carry.icc, picture.carry.exif
        )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        open_store(job.spec.destination, endpoint_url=endpoint).upload(IMAGES + row["output"], str(path))
    return row | {
        "status": WRITTEN,
        "out_height": writer.height,
        "out_width": writer.width,
        "out_bytes": size,
        "out_sha256": digest,
        "notes": [*picture.notes, *writer.notes],
    }


def enlarge(picture: SpooledPicture, directory: Path, predictor: "Predictor") -> SpoolWriter:
    """Every tile of the spooled picture through the model, into a raw file on disk."""
    scale = predictor.info.scale
    writer = SpoolWriter(
        directory,
        picture.height * scale,
        picture.width * scale,
        picture.channels,
        picture.dtype,
        picture.alpha_path is not None,
    )
    plan = predictor.plan_for(picture.height, picture.width)
    for place, pixels in predictor.tiles(plan, picture.read):
        alpha = None if picture.alpha_path is None else enlarged_alpha(picture, place, scale)
        writer.put(place.top, place.left, pixels, alpha)
    return writer


def enlarged_alpha(picture: SpooledPicture, place: Tile, scale: int) -> np.ndarray:
    """The part of alpha's bicubic enlargement at `place`, in output pixels: equal to that of the whole."""
    margin = 4  # input pixels on each side; a cubic kernel reaches two
    top, left = max(0, place.top // scale - margin), max(0, place.left // scale - margin)
    bottom = min(picture.height, place.bottom // scale + margin)
    right = min(picture.width, place.right // scale + margin)
    enlarged = imresize(picture.read_alpha(Tile(top, left, bottom - top, right - left)), scale)
    first_row, first_column = place.top - top * scale, place.left - left * scale
    return enlarged[first_row : first_row + place.height, first_column : first_column + place.width]
