"""The road of a picture too large for memory: local disk on the way in and out, tile by tile through the model.

Inside one actor, because its steps share a disk and nothing else. The tiles are those of the ordinary road, and so are
the pixels; memory holds what one call of the model takes.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgtx.codecs.spool import SpooledPicture, SpoolWriter, spool_in
from imgtx.errors import ImageError
from imgtx.imageops.geometry import Tile
from imgtx.imageops.holes import Fill, as_channel, hole_of_mask
from imgtx.imageops.resize import imresize
from pipeline.planning.names import format_of
from pipeline.spec import Job, RunSpec
from pipeline.storage.store import open_store
from pipeline.tables.rows import Row
from pipeline.tables.schemas import IMAGES, WRITTEN
from pipeline.tasks.inpainting import bad_mask, check_mask_size, masks_of, painted, versions_of

if TYPE_CHECKING:
    from imgtx.inference.predictor import Predictor  # brings torch, which the driver does without


def transform_large(row: Row, job: Job, predictor: "Predictor") -> Row:
    """A `large` row to its written outcome: fetch, spool, tiles through the model, encode, put."""
    endpoint = job.spec.endpoint_url
    with tempfile.TemporaryDirectory(prefix="imgtx-spool-") as folder:
        directory = Path(folder)
        source = directory / "source"
        store = open_store(job.spec.source, endpoint_url=endpoint)
        version, mask_version = versions_of(row["version"])
        store.download(row["key"], str(source), version=version)
        picture = spool_in(source, directory, max_pixels=int(job.spec.max_megapixels * 1e6))
        source.unlink()
        read: Callable[[Tile], np.ndarray] = picture.read
        if job.info.masks:
            mask = spool_mask(row["mask"], mask_version, job, directory) if row["mask"] else None
            read, row["hole_share"] = filled(picture, mask, job.spec)
        writer = enlarge(picture, read, directory, predictor)
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
        "in_height": picture.height,
        "in_width": picture.width,
        "out_height": writer.height,
        "out_width": writer.width,
        "out_bytes": size,
        "out_sha256": digest,
        "notes": [*picture.notes, *writer.notes],
    }


def spool_mask(key: str, version: str, job: Job, directory: Path) -> SpooledPicture:
    """The mask's file as a spooled picture; ImageError (bad_mask) where it cannot be decoded."""
    folder = directory / "mask"
    folder.mkdir()
    masks = masks_of(job.spec)
    assert masks is not None  # a row has a mask only where the spec names masks
    masks.store.download(key, str(folder / "source"), version=version)
    try:
        return spool_in(folder / "source", folder, max_pixels=int(job.spec.max_megapixels * 1e6))
    except ImageError as error:
        raise bad_mask(error) from error


def filled(
    picture: SpooledPicture, mask: SpooledPicture | None, spec: RunSpec
) -> tuple[Callable[[Tile], np.ndarray], float]:
    """From a rectangle to what `imgtx.imageops.holes.with_mask` makes of the whole picture there; and the hole's share."""
    if mask is not None:
        check_mask_size((mask.height, mask.width), (picture.height, picture.width))

    def hole_at(window: Tile, pixels: np.ndarray) -> np.ndarray:
        if spec.mask_color:
            return painted(pixels, spec)
        if mask is None:
            return np.zeros(pixels.shape[:2], bool)
        return hole_of_mask(mask.read(window), None if mask.alpha_path is None else mask.read_alpha(window))

    def read(window: Tile) -> tuple[np.ndarray, np.ndarray]:
        pixels = picture.read(window)
        return pixels, hole_at(window, pixels)

    fill = Fill(picture.height, picture.width, read)

    def read_filled(window: Tile) -> np.ndarray:
        _, hole = read(window)
        return np.dstack([fill(window), as_channel(hole, picture.dtype)])

    return read_filled, fill.share


def enlarge(
    picture: SpooledPicture,
    read: Callable[[Tile], np.ndarray],
    directory: Path,
    predictor: "Predictor",
) -> SpoolWriter:
    """Every tile of the spooled picture, as `read` gives its pixels, through the model, into a raw file on disk."""
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
    for place, pixels in predictor.tiles(plan, read):
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
