"""Inpainting: fill holes and leave every pixel outside them unchanged to the bit.

Holes are white in a mask beside the picture, or painted in one colour. The mask of `2019/a.jpg` is the object
`2019/a.jpg` of the masks, or else `2019/a.png`. Its version becomes part of the row's, so that a picture runs again
when its mask changes.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from imgtx.errors import ImageError, UsageError
from pipeline.tasks.base import Option, Settings, Task
from pipeline.tasks.images import SOURCE_MEASURES, fetch_image, load_image, shown, shown_on_disk

# The command line reads this file for every `--help`, so that what costs time to import is imported in functions.
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from imgtx.codecs import Picture
    from imgtx.codecs.spool import SpooledPicture
    from imgtx.imageops.geometry import Tile
    from imgtx.models.info import ModelInfo
    from pipeline.spec import Job, RunSpec
    from pipeline.storage.store import Store
    from pipeline.tables.rows import Row
    from pipeline.tasks.base import Measures, Opened, ReadTile

SKIP, NO_HOLE = "skip", "no-hole"
ROLE = "mask"
# Between a picture's version and its mask's; no storage has spaces in a version.
JOINT = f" {ROLE} "
SUFFIX = ".png"

MASKS = Option(
    "masks",
    metavar="URI",
    place=True,
    help="Folder or bucket of masks with the images' names, white where to repair: fill holes.",
)
MISSING_MASK = Option(
    "missing_mask",
    default=SKIP,
    choices=(SKIP, NO_HOLE),
    help="skip or no-hole: what to do with an image that has no mask.  [default: skip]",
)
MASK_COLOR = Option(
    "mask_color",
    metavar="#RRGGBB",
    help="Fill what is painted in this colour, such as '#ff00ff', instead.",
)
MASK_TOLERANCE = Option(
    "mask_tolerance",
    type=int,
    default=8,
    rare=True,
    help="How far painted pixels may be from --mask-color, in levels of 255.",
)


def default_model(settings: Settings) -> str:
    """Return the packaged model."""
    return "inpaint"


def check(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError unless holes are given in exactly one way, to a model that fills them."""
    masks, color, tolerance = MASKS.of(spec), MASK_COLOR.of(spec), MASK_TOLERANCE.of(spec)
    if masks and color:
        raise UsageError(f"--masks {masks} and --mask-color {color}: give only one of them")
    if info.masks and not (masks or color):
        raise UsageError(
            f"--model {spec.model} fills holes: give their place by --masks or --mask-color, or choose another model"
        )
    if not info.masks:
        raise UsageError(
            f"--model {spec.model} fills no holes, which --masks and --mask-color are for: leave them out, or "
            f"choose a model for inpainting (imgtx models list)"
        )
    if color:
        colour_of(color)
    if not 0 <= tolerance <= 255:
        raise UsageError(f"{MASK_TOLERANCE.flag}{tolerance}: must be 0 to 255")


def recipe(spec: RunSpec) -> dict[str, str]:
    """Return the settings that decide pixels: the colour and its tolerance."""
    color = MASK_COLOR.of(spec)
    return {MASK_COLOR.name: f"{color.lower()} {MASK_TOLERANCE.of(spec)}" if color else ""}


def colour_of(text: str) -> tuple[int, int, int]:
    """Return red, green and blue of "#rrggbb"; raises UsageError for anything else."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text) is None:
        raise UsageError(f"--mask-color {text}: must be a colour like '#ff00ff', two digits each of 0-9a-f")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def open_masks(spec: RunSpec) -> Store | None:
    """Open the masks that a spec names, if any."""
    from pipeline.storage.store import open_store

    uri = MASKS.of(spec)
    return open_store(uri, endpoint_url=spec.endpoint_url) if uri else None


def check_masks(masks: Store | None, spec: RunSpec) -> None:
    """Raise UsageError where the masks cannot be read."""
    from pipeline.storage.checks import check_source

    if masks is not None:
        check_source(masks, MASKS.flag.strip())


def list_with_masks(opened: Opened, spec: RunSpec, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Return batches of LISTED: every item of the source, with its mask if masks are given."""
    from pipeline.sources.images import image_versions

    batches = opened.source.list(local_destination=local_destination)
    if opened.inputs is None:
        return batches
    return join_masks(batches, image_versions(opened.inputs), missing=MISSING_MASK.of(spec))


def join_masks(
    batches: Iterable[pa.RecordBatch], masks: pa.Table, *, missing: str
) -> Iterator[pa.RecordBatch]:
    """Add to LISTED rows the mask of each as an input and both versions.

    A mask has its picture's name, or that name with `.png`; spaces and dots behind either do not count.
    missing: a value of `--missing-mask`, for pictures without one.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from imgtx.codecs import SUFFIXES
    from pipeline.sources.keys import without_tail
    from pipeline.tables.schemas import LISTED, NO_MASK, SKIPPED

    keys, versions = (masks[name].combine_chunks() for name in ("key", "version"))
    plain_keys = without_tail(keys)
    endings = "|".join(suffix.replace(".", r"\.") for suffix in SUFFIXES)
    for batch in batches:
        key = batch.column("key")
        plain = without_tail(key)
        beside = pc.replace_substring_regex(plain, rf"(?i)({endings})$", SUFFIX)
        same = pc.coalesce(pc.index_in(key, keys), pc.index_in(plain, plain_keys))
        place = pc.coalesce(same, pc.index_in(beside, keys), pc.index_in(beside, plain_keys))
        there = pc.and_(pc.is_valid(place), pc.equal(batch.column("status"), ""))
        columns = {name: batch.column(name) for name in LISTED.names}
        own, mask = columns["version"], versions.take(place)
        columns["version"] = pc.if_else(there, pc.binary_join_element_wise(own, mask, JOINT), own)
        columns["inputs"] = _as_inputs(keys.take(place), mask, np.asarray(there))
        if missing == SKIP:
            left = pc.and_(pc.invert(there), pc.equal(columns["status"], ""))
            columns["status"] = pc.if_else(left, SKIPPED, columns["status"])
            columns["reason"] = pc.if_else(left, NO_MASK, columns["reason"])
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=LISTED)


def _as_inputs(keys: pa.Array, versions: pa.Array, there: np.ndarray) -> pa.Array:
    """Return a column of INPUTS: the mask of a row that has one, else nothing."""
    import numpy as np
    import pyarrow as pa

    from pipeline.tables.schemas import INPUTS

    offsets = np.concatenate([[0], np.cumsum(there)]).astype(np.int32)
    chosen = pa.array(there)
    values = pa.StructArray.from_arrays(
        [pa.repeat(ROLE, int(there.sum())), keys.filter(chosen), versions.filter(chosen)],
        fields=list(INPUTS.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=INPUTS)


def explain(reasons: set[str], spec: RunSpec) -> str:
    """Return why nothing can be processed, if the reason is that masks are missing."""
    from pipeline.tables.schemas import NO_MASK

    if NO_MASK not in reasons:
        return ""
    return (
        f"no image of {spec.source} has a mask in --masks {MASKS.of(spec)}: a mask has its image's name, or that with "
        f".png; or process images without one as they are by --missing-mask no-hole"
    )


def mask_of(row: Row) -> tuple[str, str]:
    """Return key and version of a row's mask, "" and "" where it has none."""
    return next(((i["key"], i["version"]) for i in row["inputs"] if i["role"] == ROLE), ("", ""))


def fetch(row: Row, opened: Opened) -> Row:
    """Add the image's bytes and its mask's, as `data` and `mask_data`."""
    row = fetch_image(row, opened)
    key, version = mask_of(row)
    if key and not row.get("large"):
        row["mask_data"] = opened.inputs.read(key, version=version)
    return row


def load(row: Row, job: Job) -> Row:
    """Decode picture and mask into tiles, the mask as the last channel."""
    mask = row.pop("mask_data", b"")
    return load_image(row, job, model_input=partial(_filled, mask))


def _filled(mask: bytes, picture: Picture, row: Row, job: Job) -> tuple[np.ndarray, Measures]:
    from imgtx.imageops.holes import with_mask

    hole = hole_in(picture, mask, job.spec)
    return with_mask(shown(picture, job, hole), hole), {"hole_share": float(hole.mean())}


def hole_in(picture: Picture, mask: bytes, spec: RunSpec) -> np.ndarray:
    """Return which pixels of a picture to fill, (H, W) bool, by its mask's file or by colour.

    Raises ImageError (bad_mask) for a mask that cannot be decoded or has another size.
    """
    import numpy as np

    from imgtx.codecs import decode, read_header
    from imgtx.imageops.holes import hole_of_mask

    height, width = picture.pixels.shape[:2]
    if MASK_COLOR.of(spec):
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
    """Return which of the pixels, (H, W, C), are painted in the spec's colour: (H, W) bool."""
    from imgtx.imageops.holes import hole_of_colour

    return hole_of_colour(pixels, colour_of(MASK_COLOR.of(spec)), MASK_TOLERANCE.of(spec))


def bad_mask(error: ImageError) -> ImageError:
    """Return the decoder's error about a mask as an error of its picture."""
    from pipeline.tables.schemas import BAD_MASK

    if error.reason == BAD_MASK:
        return error
    return ImageError(BAD_MASK, f"the mask cannot be used ({error.reason}: {error}): draw it again")


def check_mask_size(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Raise ImageError (bad_mask) unless (height, width) are equal."""
    from pipeline.tables.schemas import BAD_MASK

    if given != wanted:
        raise ImageError(
            BAD_MASK,
            f"the mask is {given[1]} x {given[0]}, the picture {wanted[1]} x {wanted[0]}; they must have the same "
            "size after EXIF orientation: resize the mask",
        )


def large_input(picture: SpooledPicture, row: Row, job: Job, folder: Path) -> tuple[ReadTile, Measures]:
    """Return a function that reads tiles of the smoothly filled picture with its mask as last channel, and measures.

    Raises ImageError (bad_mask) as `hole_in` does.
    """
    import numpy as np

    from imgtx.imageops.holes import Fill, as_channel

    mask = _mask_on_disk(row, job, folder)
    if mask is not None:
        check_mask_size((mask.height, mask.width), (picture.height, picture.width))
    read_hole = partial(_hole_at, mask, job.spec)

    read_shown = shown_on_disk(picture, job, read_hole)

    def hole_of(window: Tile) -> np.ndarray:
        return read_hole(window, picture.read(window))

    fill = Fill(picture.height, picture.width, lambda window: (read_shown(window), hole_of(window)))

    def read_filled(window: Tile) -> np.ndarray:
        return np.dstack([fill(window), as_channel(hole_of(window), picture.dtype)])

    return read_filled, {"hole_share": fill.share}


def _hole_at(mask: SpooledPicture | None, spec: RunSpec, window: Tile, pixels: np.ndarray) -> np.ndarray:
    import numpy as np

    from imgtx.imageops.holes import hole_of_mask

    if MASK_COLOR.of(spec):
        return painted(pixels, spec)
    if mask is None:
        return np.zeros(pixels.shape[:2], bool)
    return hole_of_mask(mask.read(window), None if mask.alpha_path is None else mask.read_alpha(window))


def _mask_on_disk(row: Row, job: Job, folder: Path) -> SpooledPicture | None:
    """Return the row's mask as a picture on disk, None if it has none."""
    from imgtx.codecs.spool import spool_in

    key, version = mask_of(row)
    if not key:
        return None
    folder = folder / "mask"
    folder.mkdir()
    masks = open_masks(job.spec)
    # A row has a mask only where the spec names masks.
    assert masks is not None
    masks.download(key, str(folder / "source"), version=version)
    try:
        return spool_in(folder / "source", folder, max_pixels=int(job.spec.max_megapixels * 1e6))
    except ImageError as error:
        raise bad_mask(error) from error


INPAINTING = Task(
    name="inpainting",
    command="restore",
    summary="Fill holes in every image of a folder or bucket.",
    description="Fill holes that are white in a mask of the same name, or painted in one colour.",
    examples=("imgtx restore scans/ clean/ --masks masks/ --format png",),
    digital_source_type="compositeWithTrainedAlgorithmicMedia",
    default_model=default_model,
    options=(MASKS, MISSING_MASK, MASK_COLOR, MASK_TOLERANCE),
    chosen_by=(MASKS.name, MASK_COLOR.name),
    fetch=fetch,
    load=load,
    large_input=large_input,
    check=check,
    recipe=recipe,
    open_inputs=open_masks,
    check_inputs=check_masks,
    list=list_with_masks,
    explain=explain,
    measures=SOURCE_MEASURES | {"hole_share": "share of the pixels that were filled"},
)
