"""The road of a picture too large for memory: local disk on the way in and out, bands of tiles through the model.

Inside one actor, because its steps share a disk and nothing else. Memory holds one band; the pixels equal those of
the ordinary road.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgtx.degrade import imresize
from imgtx.spool import SpooledPicture, SpoolWriter, spool_in
from pipeline.names import format_of
from pipeline.records import IMAGES, WRITTEN
from pipeline.rows import Row
from pipeline.spec import Job
from pipeline.storage import open_store

if TYPE_CHECKING:
    from imgtx.predict import Predictor  # brings torch, which the driver does without


def transform_large(row: Row, job: Job, predictor: "Predictor") -> Row:
    """A `large` row to its written outcome: fetch, spool, bands through the model, encode, put."""
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
    """Every band of the spooled picture through the model, into raw rows on disk."""
    scale = predictor.info.scale
    writer = SpoolWriter(
        directory,
        picture.height * scale,
        picture.width * scale,
        picture.channels,
        picture.dtype,
        picture.alpha_path is not None,
    )
    plan = predictor.plan_for(picture.height, picture.width, streaming=True)
    for band, rows in zip(plan.bands, predictor.bands(plan, picture.rows), strict=True):
        alpha = None
        if picture.alpha_path is not None:
            alpha = enlarged_alpha(picture, band.core_top, band.core_bottom, scale)
        writer.append(rows, alpha)
    return writer


def enlarged_alpha(picture: SpooledPicture, top: int, bottom: int, scale: int) -> np.ndarray:
    """Rows of the bicubic enlargement of alpha, equal to those of the whole: (scale (bottom - top), scale width)."""
    margin = 4  # input rows; a cubic kernel reaches two
    first, last = max(0, top - margin), min(picture.height, bottom + margin)
    rows = imresize(picture.alpha_rows(first, last), scale)
    return rows[(top - first) * scale : (bottom - first) * scale]
