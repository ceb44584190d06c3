"""Fetch and decode: one listed object becomes the stack of tiles that travels to the model.

Runs in CPU tasks without torch. The header is read first: size and form are admitted or refused before a pixel is
decoded.
"""

import math
from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from imgtx.codecs import Header, pack_carry, read_header
from imgtx.codecs import decode as decode_picture
from imgtx.errors import ImageError
from imgtx.imageops.holes import with_mask
from imgtx.imageops.noise import noise_level
from imgtx.inference.tiling import plan_for_model, split
from pipeline.spec import Job
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import Row, as_bytes, guarded, rows_of, to_table
from pipeline.tables.schemas import PIXELS, TOO_LARGE
from pipeline.tasks.inpainting import hole_in, masks_of, versions_of

MOST_BYTES = 256 << 20  # of one encoded file in memory


def decode(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    """WORK rows -> PIXELS rows, one table an image, so that Ray can cut blocks by bytes."""
    store = open_store(job.spec.source, endpoint_url=job.spec.endpoint_url)
    masks = masks_of(job.spec)
    for row in rows_of(batch):
        row = guarded("fetch", row, partial(fetch, store=store, masks=masks.store if masks else None))
        yield to_table([guarded("decode", row, partial(to_tiles, job=job))], PIXELS)


def fetch(row: Row, store: Store, masks: Store | None = None) -> Row:
    """The object's bytes and its mask's; a file too large for memory is only marked, the transform downloads it."""
    if row["size"] > MOST_BYTES:
        return row | {"large": True}
    version, mask_version = versions_of(row["version"])
    row = row | {"data": store.read(row["key"], version=version)}
    if masks is not None and row["mask"]:
        row["mask_data"] = masks.read(row["mask"], version=mask_version)
    return row


def to_tiles(row: Row, job: Job) -> Row:
    """Decode `data` into `tiles`; a picture too large for memory is only marked, the transform spools it."""
    if row.get("large"):
        return row
    data, mask = row.pop("data"), row.pop("mask_data", b"")
    header = read_header(data)
    row |= {
        "in_height": header.height,
        "in_width": header.width,
    }  # of a refused one too: a plan with a higher limit asks
    admit(header, job)
    if is_large(header, job):
        return row | {"large": True}
    picture = decode_picture(data, max_pixels=int(job.spec.max_megapixels * 1e6))
    pixels = picture.pixels
    row |= {"noise_level": noise_level(pixels)}
    if job.info.masks:
        hole = hole_in(picture, mask, job.spec)
        pixels, row["hole_share"] = with_mask(pixels, hole), float(hole.mean())
    tiles = split(pixels, plan_for_model(job.info, header.height, header.width))
    return row | {
        "dtype": str(tiles.dtype),
        "shape": tiles.shape,
        "tiles": as_bytes(tiles),
        "alpha": b"" if picture.alpha is None else as_bytes(picture.alpha),
        "carry": pack_carry(picture),
        "notes": list(picture.notes),
    }


def admit(header: Header, job: Job) -> None:
    """Refuse from the header what the spec does not admit."""
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
            f"{header.width} x {header.height} is {megapixels:.1f} megapixels; {job.info.name} looks at the whole "
            f"picture, so it cannot be cut, and {job.info.untiled / 1e6:.1f} are the most it was given room for: "
            f"reduce the picture or choose another model",
        )


def is_large(header: Header, job: Job) -> bool:
    return header.height * header.width * job.info.scale**2 > job.spec.stream_megapixels * 1e6
