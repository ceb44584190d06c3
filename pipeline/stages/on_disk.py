"""Process a picture too large for memory: through local disk, tile by tile through the model.

All steps run inside one actor, because they share its local disk. The tiles are those of a picture in memory, and so
are the pixels; memory holds what one call of the model takes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imgtx.codecs import check_colour
from imgtx.codecs.spool import SpooledPicture, SpoolWriter, spool_in
from imgtx.imageops.geometry import Tile, squares
from imgtx.imageops.grey import as_rgb
from imgtx.imageops.resize import imresize
from imgtx.memory import return_freed_memory
from pipeline.output_attributes import output_attributes
from pipeline.planning.names import format_of
from pipeline.provenance import maker_of
from pipeline.sources import open_source
from pipeline.spec import ACCEPT, Job
from pipeline.stages.spool_folder import spool_folder
from pipeline.storage.store import open_store
from pipeline.tables.rows import Row
from pipeline.tables.schemas import IMAGES, UNTOUCHED, WRITTEN
from pipeline.tasks import get_task
from pipeline.tasks.images import is_untouched, item_of, missing_share, own_version, skipped_for_size

if TYPE_CHECKING:
    # Imports torch, which the driver does without.
    from imgtx.inference.predictor import Predictor


def transform_large(row: Row, job: Job, predictor_for: Callable[[Job], "Predictor"]) -> Row:
    """Return the written outcome of a `large` row: fetch, spool, run the model on tiles, encode, upload.

    predictor_for: returns the model of a job, which is one of `job.choices` where there are any.
    """
    endpoint, task = job.spec.endpoint_url, get_task(job.spec.task)
    with spool_folder() as directory:
        path = directory / "source"
        source = open_source(job.spec.source, task.sources, endpoint)
        source.download(item_of(row), str(path), own_version(row))
        picture = spool_in(
            path,
            directory,
            max_pixels=int(job.spec.max_megapixels * 1e6),
            accept_damage=job.spec.on_damage == ACCEPT,
        )
        height, width, format = picture.height, picture.width, format_of(row["output"])
        row |= {"in_height": height, "in_width": width, "quality": picture.quality}
        if skipped := skipped_for_size(height, width, task.skip_larger_than(job.spec)):
            return row | skipped
        job = task.choose(picture, job)
        size, notes, measures = task.output_size(height, width, job), picture.notes, missing_share(picture)
        row["model"] = UNTOUCHED if is_untouched(height, width, size, job) else job.spec.model
        if row["model"] == UNTOUCHED and format == picture.carry.format:
            notes, measures = (), {}
        else:
            path.unlink()
            check_colour(picture.carry, format)
            maker = None
            if row["model"] == UNTOUCHED:
                writer = unchanged(picture, directory)
            else:
                read, more = task.large_input(picture, row, job, directory)
                measures = more | measures
                maker = maker_of(job)
                conditions = json.loads(row["conditions"] or "null")
                # Else what smaller images left behind comes on top of the model's buffers, and those on top of what
                # resizes and encodes.
                return_freed_memory()
                writer = enlarge(picture, read, directory, predictor_for(job), conditions)
                return_freed_memory()
            picture.remove()
            if size != (writer.height, writer.width):
                writer.resize(*size)
            path = writer.finish(format, job.spec.quality, picture.carry, maker)
            notes = (*notes, *writer.notes)
            if row["model"] != UNTOUCHED:
                notes += task.size_notes(height, width, job)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        bytes_out = path.stat().st_size
        open_store(job.spec.destination, endpoint_url=endpoint).upload(
            IMAGES + row["output"], str(path), output_attributes(row, job)
        )
    return row | {
        "status": WRITTEN,
        "out_height": size[0],
        "out_width": size[1],
        "out_bytes": bytes_out,
        "out_sha256": digest,
        "measures": measures,
        "notes": [*notes],
    }


def unchanged(picture: SpooledPicture, directory: Path) -> SpoolWriter:
    """Return a writer of the picture's own pixels."""
    alpha = picture.alpha_path is not None
    writer = SpoolWriter(directory, picture.height, picture.width, picture.channels, picture.dtype, alpha)
    for place in squares(picture.height, picture.width):
        cover = picture.read_alpha(place) if alpha else None
        writer.put(place.top, place.left, picture.read(place), cover)
    return writer


def enlarge(
    picture: SpooledPicture,
    read: Callable[[Tile], np.ndarray],
    directory: Path,
    predictor: "Predictor",
    conditions: Mapping[str, Any] | None = None,
) -> SpoolWriter:
    """Run the model on every tile of the spooled picture and write its output into a raw file on disk.

    read: returns what the model is given of a tile, (H, W, C). The output has the picture's channels, or C if that is
    more: style transfer makes three of one. conditions: of this picture, for models that take them.
    """
    scale, masks = predictor.info.scale, predictor.info.masks
    plan = predictor.plan_for(picture.height, picture.width)
    writer: SpoolWriter | None = None
    for place, pixels in predictor.tiles(plan, read, conditions):
        pixels = as_rgb(pixels) if pixels.shape[2] < picture.channels else pixels
        if masks and picture.alpha_path:
            # A model for holes leaves the other pixels as they were, also those that nobody sees.
            hole = read(place)[:, :, -1:] > 0
            pixels = np.where(hole, pixels, picture.read(place))
        writer = writer or SpoolWriter(
            directory,
            picture.height * scale,
            picture.width * scale,
            pixels.shape[2],
            picture.dtype,
            picture.alpha_path is not None,
        )
        alpha = None if picture.alpha_path is None else enlarged_alpha(picture, place, scale)
        writer.put(place.top, place.left, pixels, alpha)
    # A picture has one tile at least.
    assert writer is not None
    return writer


def enlarged_alpha(picture: SpooledPicture, place: Tile, scale: int) -> np.ndarray:
    """Return alpha enlarged by bicubic at `place` in output pixels, equal to that part of the whole enlargement."""
    # Input pixels on each side; a cubic kernel reaches two.
    margin = 4
    top, left = max(0, place.top // scale - margin), max(0, place.left // scale - margin)
    bottom = min(picture.height, place.bottom // scale + margin)
    right = min(picture.width, place.right // scale + margin)
    enlarged = imresize(picture.read_alpha(Tile(top, left, bottom - top, right - left)), scale)
    first_row, first_column = place.top - top * scale, place.left - left * scale
    return enlarged[first_row : first_row + place.height, first_column : first_column + place.width]
