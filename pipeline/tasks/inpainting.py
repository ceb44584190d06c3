"""Masks beside pictures: which mask belongs to which key, and that a picture with another mask is another picture.

The mask of `2019/a.jpg` is the object `2019/a.jpg` of the masks, or else `2019/a.png`. Its version becomes part of
the picture's own, so that the plan takes up exactly the pictures whose mask changed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.codecs import SUFFIXES, Picture, decode, read_header
from imgtx.errors import ImageError
from imgtx.imageops.holes import hole_of_colour, hole_of_mask
from pipeline.planning.inventory import CLASSIFIED, classify, images, inventory
from pipeline.spec import SKIP, RunSpec, colour_of
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import BAD_MASK, NO_MASK, SKIPPED

JOINT = " mask "  # between a picture's version and its mask's; no storage has blanks in one
SUFFIX = ".png"


@dataclass(frozen=True)
class Masks:
    """Where masks lie, and what becomes of a picture without one (`RunSpec.missing_mask`)."""

    store: Store
    missing: str


def masks_of(spec: RunSpec) -> Masks | None:
    """The spec's masks, if it names any."""
    if not spec.masks:
        return None
    return Masks(open_store(spec.masks, endpoint_url=spec.endpoint_url), spec.missing_mask)


def listing(source: Store, masks: Masks | None, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Every object of the source in batches of CLASSIFIED, with its mask where there are masks."""
    batches = (classify(batch, SUFFIXES, local_destination=local_destination) for batch in inventory(source))
    return batches if masks is None else with_masks(batches, _known(masks.store), missing=masks.missing)


def _known(store: Store) -> pa.Table:
    """Key and version of every image among the masks."""
    schema = pa.schema([("key", pa.string()), ("version", pa.string())])
    batches = [batch.select(schema.names) for batch in images(store, SUFFIXES, local_destination=False)]
    return pa.Table.from_batches(batches, schema).combine_chunks()


def with_masks(
    batches: Iterable[pa.RecordBatch], masks: pa.Table, *, missing: str
) -> Iterator[pa.RecordBatch]:
    """CLASSIFIED rows with `mask` and both versions; of a picture without one as `missing` says (`RunSpec`)."""
    keys, versions = (masks[name].combine_chunks() for name in ("key", "version"))
    endings = "|".join(suffix.replace(".", r"\.") for suffix in SUFFIXES)
    for batch in batches:
        key = batch.column("key")
        beside = pc.replace_substring_regex(key, rf"(?i)({endings})$", SUFFIX)
        place = pc.coalesce(pc.index_in(key, keys), pc.index_in(beside, keys))
        there = pc.and_(pc.is_valid(place), pc.equal(batch.column("status"), ""))
        joined = pc.binary_join_element_wise(batch.column("version"), versions.take(place), JOINT)
        columns = {name: batch.column(name) for name in CLASSIFIED.names}
        columns["mask"] = pc.if_else(there, keys.take(place), "")
        columns["version"] = pc.if_else(there, joined, columns["version"])
        if missing == SKIP:
            left = pc.and_(pc.invert(there), pc.equal(columns["status"], ""))
            columns["status"] = pc.if_else(left, SKIPPED, columns["status"])
            columns["reason"] = pc.if_else(left, NO_MASK, columns["reason"])
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=CLASSIFIED)


def versions_of(version: str) -> tuple[str, str]:
    """The picture's own version and its mask's, "" where it has none."""
    own, _, mask = version.partition(JOINT)
    return own, mask


def hole_in(picture: Picture, mask: bytes, spec: RunSpec) -> np.ndarray:
    """What of a picture is to be made up, (H, W) bool, by its mask's file or, painted, by its colour.

    Raises ImageError (bad_mask) for a mask that cannot be decoded or has another size.
    """
    height, width = picture.pixels.shape[:2]
    if spec.mask_color:
        return painted(picture.pixels, spec)
    if not mask:
        return np.zeros((height, width), bool)
    try:
        header = read_header(mask)
        check_mask_size((header.height, header.width), (height, width))
        drawn = decode(mask, max_pixels=height * width)
    except ImageError as error:
        raise bad_mask(error) from error
    return hole_of_mask(drawn.pixels, drawn.alpha)


def painted(pixels: np.ndarray, spec: RunSpec) -> np.ndarray:
    """(H, W) bool of (H, W, C): what was painted in the spec's colour."""
    return hole_of_colour(pixels, colour_of(spec.mask_color or ""), spec.mask_tolerance)


def bad_mask(error: ImageError) -> ImageError:
    """The decoder's complaint about a mask as one about its picture."""
    if error.reason == BAD_MASK:
        return error
    return ImageError(BAD_MASK, f"the mask cannot be used ({error.reason}: {error}): draw it anew")


def check_mask_size(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    """ImageError (bad_mask) unless (height, width) are equal."""
    if given != wanted:
        raise ImageError(
            BAD_MASK,
            f"the mask is {given[1]} x {given[0]}, the picture {wanted[1]} x {wanted[0]}; legal is the same size, "
            "both upright by their EXIF orientation: resize the mask",
        )
