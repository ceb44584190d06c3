"""Load an image for the tasks that turn an image into an image: fetch, read the header, decode, cut into tiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from imgtx.errors import ImageError

# The command line reads this file for every `--help`, so that what costs time to import is imported in functions.
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from imgtx.codecs import Header, Picture
    from imgtx.codecs.spool import SpooledPicture
    from imgtx.imageops.geometry import Tile
    from pipeline.spec import Job
    from pipeline.tables.rows import Row
    from pipeline.tasks.base import Measures, Opened, ReadTile

    Choose = Callable[[Header | SpooledPicture, Job], Job]
    ModelInput = Callable[[Picture, Row, Job], tuple[np.ndarray, Measures]]

# Of one encoded file in memory; larger ones go through local disk.
MAX_BYTES = 256 << 20
# Of a picture on disk that are read together.
ROWS = 256
SOURCE_MEASURES = {
    "noise_level": "standard deviation of the source's noise, in levels of 255 (`imgtx.imageops.noise`)",
    "missing": "share of a truncated source's rows that are not whole; only of those that were accepted",
}


def fetch_image(row: Row, opened: Opened) -> Row:
    """Add the file's bytes as `data`; a file too large for memory is marked `large`, and the transform downloads it."""
    if row["size"] > MAX_BYTES:
        return row | {"large": True}
    return row | {"data": opened.source.read(item_of(row), own_version(row))}


def load_image(
    row: Row, job: Job, *, model_input: ModelInput | None = None, choose: Choose | None = None
) -> Row:
    """Decode `data` into `tiles`; a picture too large for memory is marked `large`, and the transform spools it.

    The header is read first: size and form are accepted or refused before a pixel is decoded. model_input: returns the
    pixels that the model is given for a picture, and measures; by default those of `shown`. choose: `Task.choose`.
    """
    from imgtx.codecs import carry_of, check_colour, decode, pack_carry, read_header
    from imgtx.imageops.hidden import hidden_part
    from imgtx.imageops.noise import noise_level
    from imgtx.inference.tiling import plan_for_model, split
    from pipeline.planning.names import format_of
    from pipeline.spec import ACCEPT
    from pipeline.tables.rows import as_bytes

    if row.get("large"):
        return row
    data, accept = row.pop("data"), job.spec.on_damage == ACCEPT
    header = read_header(data, accept_damage=accept)
    # Recorded for a refused picture too: a plan with a higher limit needs them.
    row |= {"in_height": header.height, "in_width": header.width, "quality": header.quality}
    job = choose(header, job) if choose else job
    row["model"] = job.spec.model
    admit(header, job)
    if is_large(header, job):
        return row | {"large": True}
    picture = decode(data, max_pixels=int(job.spec.max_megapixels * 1e6), accept_damage=accept)
    check_colour(picture, format_of(row["output"]))
    # Recorded for a picture whose mask is refused, too.
    row["measures"] = {"noise_level": noise_level(picture.pixels)} | missing_share(picture)
    pixels, more = model_input(picture, row, job) if model_input else (shown(picture, job), {})
    row["measures"] |= more
    # A model for holes leaves the other pixels as they were, also those that nobody sees.
    known = job.info.masks and picture.alpha is not None
    hidden = hidden_part(picture.pixels, pixels[:, :, :-1], pixels[:, :, -1] > 0) if known else b""
    tiles = split(pixels, plan_for_model(job.info, header.height, header.width))
    return row | {
        "dtype": str(tiles.dtype),
        "shape": tiles.shape,
        "tiles": as_bytes(tiles),
        "alpha": b"" if picture.alpha is None else as_bytes(picture.alpha),
        "carry": pack_carry(carry_of(picture, hidden)),
        "notes": list(picture.notes),
    }


def untouched(row: Row, job: Job, header: Header) -> Row:
    """Return the row of a picture that no model sees: its file as it is, or in another format its own pixels.

    `tiles` holds the whole picture then, or the file itself, where `dtype` is FILE.
    """
    from imgtx.codecs import carry_of, check_colour, decode, pack_carry
    from pipeline.planning.names import format_of
    from pipeline.spec import ACCEPT
    from pipeline.tables.rows import as_bytes
    from pipeline.tables.schemas import FILE, UNTOUCHED

    data, height, width = row.pop("data"), header.height, header.width
    row |= {"in_height": height, "in_width": width, "quality": header.quality, "model": UNTOUCHED}
    admit(header, job)
    accept = job.spec.on_damage == ACCEPT
    # Decoded in any case: a damaged picture is not copied.
    picture = decode(data, max_pixels=int(job.spec.max_megapixels * 1e6), accept_damage=accept)
    if header.format == format_of(row["output"]):
        return row | {"dtype": FILE, "shape": (1, height, width, 0), "tiles": data}
    check_colour(picture, format_of(row["output"]))
    return row | {
        "dtype": str(picture.pixels.dtype),
        "shape": (1, *picture.pixels.shape),
        "tiles": as_bytes(picture.pixels),
        "alpha": b"" if picture.alpha is None else as_bytes(picture.alpha),
        "carry": pack_carry(carry_of(picture)),
        "notes": list(picture.notes),
        "measures": missing_share(picture),
    }


def shown(picture: Picture, job: Job, hole: np.ndarray | None = None) -> np.ndarray:
    """Return the colours of a picture that the model is given: (H, W, 1 or 3).

    Those that alpha hides are replaced (`imgtx.imageops.hidden`), and grey in three channels becomes one where the
    model adds no colour. hole: (H, W) bool, pixels that count as hidden too.
    """
    from imgtx.imageops.grey import is_grey
    from imgtx.imageops.hidden import weights_of, without_hidden_colours

    pixels, weights = picture.pixels, weights_of(picture.alpha, hole)
    grey = pixels.shape[2] == 3 and job.info.keeps_grey and is_grey(pixels, weights)
    if picture.alpha is not None:
        pixels = without_hidden_colours(pixels, weights)
    return pixels[:, :, :1] if grey else pixels


def shown_on_disk(
    picture: SpooledPicture, job: Job, read_hole: Callable[[Tile, np.ndarray], np.ndarray] | None = None
) -> ReadTile:
    """Return a function that reads tiles of what `shown` returns for the same picture.

    read_hole: from a tile and its pixels to its hole, (H, W) bool.
    """
    from imgtx.imageops.geometry import Tile
    from imgtx.imageops.grey import GreyTest
    from imgtx.imageops.hidden import VisibleColours, weights_of

    def weighted(window: Tile) -> tuple[np.ndarray, Any]:
        pixels = picture.read(window)
        alpha = picture.read_alpha(window) if picture.alpha_path else None
        return pixels, weights_of(alpha, read_hole(window, pixels) if read_hole else None)

    grey = picture.grey and job.info.keeps_grey
    if picture.channels == 3 and read_hole:
        test = GreyTest()
        for top in range(0, picture.height, ROWS):
            if not test.coloured:
                test.add(*weighted(Tile(top, 0, min(ROWS, picture.height - top), picture.width)))
        grey = test.grey and job.info.keeps_grey
    read = VisibleColours(picture.height, picture.width, weighted) if picture.alpha_path else picture.read
    return (lambda window: read(window)[:, :, :1]) if grey else read


def is_untouched(height: int, width: int, size: tuple[int, int], job: Job) -> bool:
    """Return whether a picture of height x width, to become `size`, is large enough for a model that enlarges."""
    return job.info.scale > 1 and size == (height, width)


def skipped_for_size(height: int, width: int, limit: int | None) -> Row | None:
    """Return the outcome of a picture with a side longer than `limit`; None for any other, or without a limit."""
    from pipeline.tables.schemas import LARGE_ENOUGH, SKIPPED

    if not limit or max(height, width) <= limit:
        return None
    message = f"{width} x {height} pixels, and --skip-larger-than is {limit}"
    return {"status": SKIPPED, "stage": "decode", "reason": LARGE_ENOUGH, "message": message}


def missing_share(picture: Picture | SpooledPicture) -> Measures:
    """Return what a truncated picture lacks, as measures; none of a whole one."""
    return {"missing": picture.missing} if picture.missing else {}


def large_image(picture: SpooledPicture, row: Row, job: Job, folder: Path) -> tuple[ReadTile, Measures]:
    """Return a function that reads tiles as `load_image` makes them: the `Task.large_input` beside it."""
    return shown_on_disk(picture, job), {}


def load_canvas(row: Row, job: Job, *, height: int, width: int) -> Row:
    """Add a black RGB image as `tiles`, for tasks whose rows begin without an image."""
    import numpy as np

    return canvas_row(row, job, np.zeros((height, width, 3), np.uint8))


def canvas_row(row: Row, job: Job, pixels: np.ndarray, texts: tuple[tuple[str, str], ...] = ()) -> Row:
    """Add what a model begins with as `tiles`: pixels (H, W, 3) that are no file of the source.

    texts: keywords and texts for output formats that can hold them.
    """
    from imgtx.codecs import Picture, carry_of, pack_carry
    from imgtx.inference.tiling import plan_for_model, split
    from pipeline.tables.rows import as_bytes

    height, width = pixels.shape[:2]
    tiles = split(pixels, plan_for_model(job.info, height, width))
    return row | {
        "in_height": height,
        "in_width": width,
        "dtype": str(tiles.dtype),
        "shape": tiles.shape,
        "tiles": as_bytes(tiles),
        "alpha": b"",
        "carry": pack_carry(carry_of(Picture(pixels, None, b"", b"", job.spec.format, (), texts))),
    }


def item_of(row: Row) -> str:
    """Return the source item of a row; where the column is empty it is the key itself."""
    return row["item"] or row["key"]


def own_version(row: Row) -> str:
    """Return the source item's own version: in `version`, those of the row's inputs follow it after a space."""
    return row["version"].partition(" ")[0]


def admit(header: Header, job: Job) -> None:
    """Raise ImageError (too_large) if the picture has more pixels than the spec or the model allows."""
    from pipeline.tables.schemas import TOO_LARGE

    megapixels = header.height * header.width / 1e6
    if megapixels > job.spec.max_megapixels:
        raise ImageError(
            TOO_LARGE,
            f"{header.width} x {header.height} is {megapixels:.0f} megapixels, the limit is "
            f"{job.spec.max_megapixels:g}: run again with --set max_megapixels={math.ceil(megapixels)}",
        )
    if 0 < job.info.untiled < header.height * header.width:
        raise ImageError(
            TOO_LARGE,
            f"{header.width} x {header.height} is {megapixels:.1f} megapixels; {job.info.name} needs the whole picture "
            f"at once and takes at most {job.info.untiled / 1e6:.1f}: reduce the picture or choose another model",
        )


def is_large(header: Header, job: Job) -> bool:
    """Return whether the output goes through local disk instead of memory."""
    return header.height * header.width * job.info.scale**2 > job.spec.stream_megapixels * 1e6
