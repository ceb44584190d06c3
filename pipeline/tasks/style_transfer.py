"""Style transfer: every image in the look of one painting, or of each of several.

The digest of a style picture is part of the row's version, as a mask's is: an image runs again when its style changes,
and no other does. With several styles an image has an output for each, and the style's name goes before its key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from imgtx.errors import StorageError, UsageError
from imgtx.models.style_config import STYLE_SIZE, STYLE_SIZES
from pipeline.tasks.base import Option, Settings, Task
from pipeline.tasks.images import SOURCE_MEASURES, fetch_image, load_image, shown, shown_on_disk

# The command line reads this file for every `--help`, so that what costs time to import is imported in functions.
if TYPE_CHECKING:
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

ROLE = "style"
# Between an image's version and its style's; no storage has spaces in a version.
JOINT = f" {ROLE} "

STYLE = Option(
    "style",
    metavar="FILE",
    file=True,
    help="The picture whose look the images get: a local file or a URI.",
)
STYLES = Option(
    "styles",
    metavar="URI",
    place=True,
    help="Folder or bucket of pictures instead: every image in each style, as images/STYLE/KEY.",
)
STRENGTH = Option(
    "strength",
    type=float,
    default=1.0,
    metavar="S",
    help="From 0, the image as it is, to 1, the full style.  [default: 1]",
)
PRESERVE_COLOR = Option(
    "preserve_color",
    type=bool,
    default=False,
    help="Keep the image's own colours, and take only light and strokes from the style.",
)
SIZE = Option(
    "style_size",
    type=int,
    default=STYLE_SIZE,
    metavar="N",
    help=f"{', '.join(map(str, STYLE_SIZES[:-1]))} or {STYLE_SIZES[-1]}: the style's shorter side in pixels when the "
    f"model looks at it.  [default: {STYLE_SIZE}]",
)


@dataclass(frozen=True)
class Style:
    """One style picture: its key in its storage, its name in outputs' keys, the SHA-256 of its file."""

    key: str
    name: str
    digest: str

    @property
    def version(self) -> str:
        return self.digest[:16]


@dataclass(frozen=True)
class StyleFiles:
    """The style pictures of a run: one file of `store`, or with `file` None all pictures in it."""

    store: Store
    file: str | None
    option: str

    @cached_property
    def known(self) -> tuple[Style, ...]:
        """Return the styles in the order of their names.

        Reads and checks every picture once. Raises UsageError for the first that cannot be a style, in a line that
        also counts the others.
        """
        found, complaints = [], []
        for key, name in self._names():
            try:
                found.append(Style(key, name, self._checked(key)))
            except UsageError as error:
                complaints.append(f"{self.option} {key} {error}")
        if complaints:
            more = f" (and {len(complaints) - 1} more in {self.store.uri})" if complaints[1:] else ""
            raise UsageError(f"{complaints[0]}{more}")
        return tuple(found)

    def _names(self) -> list[tuple[str, str]]:
        """Return key and name of each picture."""
        if self.file is not None:
            return [(self.file, stem(self.file))]
        from imgtx.codecs import SUFFIXES
        from pipeline.sources.images import images

        batches = images(self.store, SUFFIXES, local_destination=False)
        keys = sorted(key for batch in batches for key in batch.column("key").to_pylist())
        if not keys:
            raise UsageError(
                f"{self.option} {self.store.uri} holds no picture: give a folder with one picture for each style"
            )
        by_name: dict[str, str] = {}
        for key in keys:
            name = stem(key)
            other = by_name.setdefault(name.casefold(), key)
            if other != key:
                raise UsageError(
                    f"{self.option}: {other} and {key} would both give outputs under {name}/: rename one of them"
                )
        return [(key, stem(key)) for key in keys]

    def _checked(self, key: str) -> str:
        """Return the digest of a picture's file; UsageError where it cannot be a style."""
        from imgtx.inference.style_picture import read_style

        try:
            data = self.store.read(key)
        except StorageError as error:
            raise UsageError(f"cannot be read: {error}") from error
        read_style(data)
        return hashlib.sha256(data).hexdigest()


class StylePictures(Mapping):
    """From a name that `request` made to the picture, (H, W, 3) uint8: read and decoded when it is asked for.

    Raises StorageError (changed) for a picture that is no longer the one that the run began with.
    """

    def __init__(self, files: StyleFiles):
        self._store = files.store

    def __getitem__(self, name: str) -> np.ndarray:
        from imgtx.inference.style_picture import read_style

        digest, _, key = name.partition(" ")
        if not key:
            raise KeyError(name)
        data = self._store.read(key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise StorageError(
                "changed", f"the style {key} changed while the run was at work: run the same command again"
            )
        return read_style(data)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def request(style: Style) -> str:
    """Return the conditions of a row, as JSON: the name by which the model asks for its style."""
    return json.dumps({"style": f"{style.digest} {style.key}"})


def stem(key: str) -> str:
    """Return a style's name: its key without the suffix and in one part, so that no two pairs give one key.

    Spaces and dots behind the suffix are left out with it.
    """
    from imgtx.codecs import SUFFIXES

    plain = key.rstrip(" .")
    suffix = next((suffix for suffix in SUFFIXES if plain.lower().endswith(suffix)), "")
    name = plain[: -len(suffix)] if suffix else key
    return name.replace("/", "-").lstrip(".") or "style"


def default_model(settings: Settings) -> str:
    """Return the packaged model."""
    return "style"


def check(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError unless the style is given in exactly one way, and for settings that cannot be."""
    style, styles, strength, size = (option.of(spec) for option in (STYLE, STYLES, STRENGTH, SIZE))
    if style and styles:
        raise UsageError(f"--style {style} and --styles {styles}: give only one of them")
    if (given := style or styles) and info.style:
        option = "--style" if style else "--styles"
        raise UsageError(
            f"{option} {given}: {info.name} was fitted to one style, {info.style}, and paints no other: "
            f"leave it out, or take a model for any style"
        )
    if not (style or styles or info.style):
        raise UsageError(
            "no style is given: write --style FILE for the look of one picture, or --styles FOLDER for each of several"
        )
    if spec.self_ensemble:
        raise UsageError("--self-ensemble: the mean over turned views would blur the strokes; leave it out")
    # Not `strength < 0`: nan must fail too.
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: must be 0, the image as it is, to 1, the full style")
    if size not in STYLE_SIZES:
        raise UsageError(f"--style-size {size}: must be one of {', '.join(map(str, STYLE_SIZES))}")


def recipe(spec: RunSpec) -> dict[str, Any]:
    """Return the settings that decide pixels; the style itself is in each row's version."""
    return {
        STRENGTH.name: f"{STRENGTH.of(spec):g}",
        SIZE.name: SIZE.of(spec),
        PRESERVE_COLOR.name: PRESERVE_COLOR.of(spec),
    }


def open_styles(spec: RunSpec) -> StyleFiles | None:
    """Open the storage of the style pictures; reads nothing. None where the model has its own style."""
    from pipeline.storage.store import open_store

    if not (STYLE.of(spec) or STYLES.of(spec)):
        return None
    if folder := STYLES.of(spec):
        return StyleFiles(open_store(folder, endpoint_url=spec.endpoint_url), None, STYLES.flag.strip())
    folder, slash, name = STYLE.of(spec).rpartition("/")
    store = open_store(folder or slash or ".", endpoint_url=spec.endpoint_url)
    return StyleFiles(store, name, STYLE.flag.strip())


def check_styles(styles: StyleFiles | None, spec: RunSpec) -> None:
    """Raise UsageError where a style cannot be read, or is too small or of one colour: all are read."""
    import os

    from pipeline.storage.checks import check_source

    if styles is None:
        return
    if styles.file is None:
        check_source(styles.store, styles.option)
    elif not styles.file or (styles.store.is_local and os.path.isdir(STYLE.of(spec))):
        raise UsageError(
            f"--style {STYLE.of(spec)} is a folder: give one picture of it, or --styles for each of them in turn"
        )
    _ = styles.known


def list_in_styles(opened: Opened, spec: RunSpec, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Return batches of LISTED: a row for each image and style."""
    if opened.inputs is None:
        yield from opened.source.list(local_destination=local_destination)
        return
    several = opened.inputs.file is None
    for batch in opened.source.list(local_destination=local_destination):
        yield from in_each_style(batch, opened.inputs.known, several=several)


def in_each_style(
    batch: pa.RecordBatch, styles: tuple[Style, ...], *, several: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch of LISTED that are not to be processed, and the others once for each style.

    several: whether the name of the style goes before the key.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.tables.schemas import INPUTS, LISTED

    ready = pc.equal(batch.column("status"), "")
    if others := batch.filter(pc.invert(ready)):
        yield others
    images = batch.filter(ready)
    count = images.num_rows
    for style in styles if count else ():
        columns = {name: images.column(name) for name in LISTED.names}
        if several:
            columns["item"] = columns["key"]
            columns["key"] = pc.binary_join_element_wise(style.name, columns["key"], "/")
        columns["version"] = pc.binary_join_element_wise(columns["version"], style.version, JOINT)
        values = pa.StructArray.from_arrays(
            [pa.repeat(text, count) for text in (ROLE, style.key, style.version)],
            fields=list(INPUTS.value_type),
        )
        columns["inputs"] = pa.ListArray.from_arrays(
            pa.array(np.arange(count + 1, dtype=np.int32)), values, type=INPUTS
        )
        columns["conditions"] = pa.repeat(request(style), count)
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=LISTED)


def pixels_for(picture: Picture, row: Row, job: Job) -> tuple[np.ndarray, Measures]:
    """Return what the model is given of a picture: grey pixels as colour, unless its colours are preserved."""
    return _coloured(shown(picture, job), job.spec), {}


def _coloured(pixels: np.ndarray, spec: RunSpec) -> np.ndarray:
    import numpy as np

    grey = pixels.shape[2] == 1 and not PRESERVE_COLOR.of(spec)
    return np.repeat(pixels, 3, axis=2) if grey else pixels


def large_input(picture: SpooledPicture, row: Row, job: Job, folder: Path) -> tuple[ReadTile, Measures]:
    """Return a function that reads tiles of a picture on disk as `pixels_for` does, and no measures."""

    read_shown = shown_on_disk(picture, job)

    def read(window: Tile) -> np.ndarray:
        return _coloured(read_shown(window), job.spec)

    return read, {}


def conditions(job: Job) -> dict[str, Any]:
    """Return the style pictures by the names that rows have for them, and the settings of every image."""
    settings = {option.name: option.of(job.spec) for option in (STRENGTH, SIZE, PRESERVE_COLOR)}
    files = open_styles(job.spec)
    return settings if files is None else {"styles": StylePictures(files), **settings}


STYLE_TRANSFER = Task(
    name="style-transfer",
    command="stylize",
    summary="Give every image of a folder or bucket the look of a painting.",
    description=(
        "Paint every image under SOURCE in the look of a style picture, at its own size. The style gives strokes, "
        "light and colours; the image keeps its content. With --styles every image is made in each style of a folder, "
        "under images/STYLE/. If a style picture changes, only its own images are made again."
    ),
    examples=(
        "imgtx stylize photos/ out/ --style van_gogh.jpg",
        "imgtx stylize photos/ out/ --style van_gogh.jpg --strength 0.6 --preserve-color",
        "imgtx stylize s3://bucket/in/ s3://bucket/out/ --styles s3://bucket/styles/",
    ),
    digital_source_type="compositeWithTrainedAlgorithmicMedia",
    default_model=default_model,
    options=(STYLE, STYLES, STRENGTH, PRESERVE_COLOR, SIZE),
    fetch=fetch_image,
    load=partial(load_image, model_input=pixels_for),
    large_input=large_input,
    check=check,
    recipe=recipe,
    open_inputs=open_styles,
    check_inputs=check_styles,
    list=list_in_styles,
    conditions=conditions,
    measures=SOURCE_MEASURES,
)
