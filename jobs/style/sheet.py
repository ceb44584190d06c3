"""Draw a contact sheet: photos by styles, labelled, to look at before an archive is stylised."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import imgtx
from imgtx.codecs import SUFFIXES, WRITABLE, decode
from imgtx.errors import ImageError, StorageError, UsageError
from imgtx.files import write_atomically
from imgtx.imageops.resize import imresize
from imgtx.inference.style_picture import read_style
from imgtx.inference.stylist import Stylist, in_colour
from pipeline.models.resolve import local_model
from pipeline.sources.images import images
from pipeline.storage.checks import check_source
from pipeline.storage.store import Store, open_store

# In megapixels.
LARGEST_PHOTO = 200
GAP, LABEL = 6, 20
PAPER, INK = (255, 255, 255), (40, 40, 40)
SUFFIXES_WRITTEN = tuple(suffix for suffix, format in SUFFIXES.items() if format in WRITABLE)

# (name, pixels (H, W, 3) uint8)
Named = tuple[str, np.ndarray]


@dataclass(frozen=True)
class SheetOptions:
    """How a sheet is drawn.

    photos, styles: how many of each at most, drawn at random by `seed`. side: the longer side in pixels that photos are
    reduced to before they are stylised.
    """

    model: str = "style"
    photos: int = 6
    styles: int = 6
    side: int = 320
    seed: int = 0
    strength: float = 1.0
    preserve_color: bool = False
    style_size: int = 256
    endpoint_url: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("photos", 1), ("styles", 1), ("side", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name} {getattr(self, name)}: give a whole number of {least} or more")


def draw_sheet(
    photos: str, styles: str, output: Path, options: SheetOptions, say: Callable[[str], None]
) -> tuple[int, int]:
    """Write the sheet to `output` and return how many photos and styles are on it.

    photos, styles: folders, buckets or single files. say: called with what is left out, and with the progress. Raises
    UsageError for what cannot be drawn.
    """
    if output.suffix.lower() not in SUFFIXES_WRITTEN:
        raise UsageError(f"--output {output}: the name must end in one of {' '.join(SUFFIXES_WRITTEN)}")
    settings = {name: getattr(options, name) for name in ("strength", "preserve_color", "style_size")}
    stylise = imgtx.load(local_model(options.model, options.endpoint_url), conditions=settings)
    if not isinstance(stylise, Stylist):
        raise UsageError(f"--model {options.model} is for {stylise.info.task}: give one for style transfer")
    contents = _chosen(_pictures(photos, options), options.photos, _photo(options.side), say)
    looks = _chosen(_pictures(styles, options), options.styles, read_style, say)
    for what, found in ((photos, contents), (styles, looks)):
        if not found:
            raise UsageError(
                f"{what} holds no picture that can be used: give a folder of pictures, or one picture"
            )
    rows = []
    for number, (name, content) in enumerate(contents, 1):
        say(f"{number}/{len(contents)} {name}")
        rows.append([(name, content), *((look, stylise(content, style=style)) for look, style in looks)])
    head = [
        ("", np.full((1, 1, 3), 255, np.uint8)),
        *((name, _within(style, options.side)) for name, style in looks),
    ]
    _save(grid([head, *rows]), output)
    return len(contents), len(looks)


def _pictures(uri: str, options: SheetOptions) -> tuple[Store, list[str]]:
    """Return the storage of a place, and the keys of its pictures in a random order: a file's is its own."""
    if uri.lower().endswith(tuple(SUFFIXES)):
        folder, slash, name = uri.rpartition("/")
        return open_store(folder or slash or ".", endpoint_url=options.endpoint_url), [name]
    store = open_store(uri, endpoint_url=options.endpoint_url)
    check_source(store, uri)
    batches = images(store, SUFFIXES, local_destination=False)
    keys = sorted(key for batch in batches for key in batch.column("key").to_pylist())
    return store, [
        keys[index] for index in np.random.default_rng(options.seed).permutation(len(keys)).tolist()
    ]


def _chosen(
    place: tuple[Store, list[str]], most: int, read: Callable[[bytes], np.ndarray], say: Callable[[str], None]
) -> list[Named]:
    """Return the first pictures of a place that can be read, at most `most`, by name; say which cannot."""
    store, keys = place
    found: dict[str, np.ndarray] = {}
    for key in keys:
        if len(found) == most:
            break
        try:
            found[key] = read(store.read(key))
        except (ImageError, StorageError, UsageError) as error:
            say(f"left out: {key} {error}")
    return [(key.rpartition("/")[2].rpartition(".")[0], found[key]) for key in sorted(found)]


def _photo(side: int) -> Callable[[bytes], np.ndarray]:
    def read(data: bytes) -> np.ndarray:
        pixels = in_colour(decode(data, max_pixels=LARGEST_PHOTO * 10**6).pixels)
        if pixels.dtype == np.uint16:
            pixels = (pixels // 257).astype(np.uint8)
        return _within(pixels, side)

    return read


def _within(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return (H, W, 3) uint8 reduced until no side is longer than `side`."""
    longer = max(pixels.shape[:2])
    return pixels if longer <= side else imresize(pixels, side / longer)


def grid(rows: list[list[Named]]) -> Image.Image:
    """Return the pictures in rows and columns, each above its name."""
    heights = [max(pixels.shape[0] for _, pixels in row) + LABEL for row in rows]
    widths = [max(pixels.shape[1] for _, pixels in column) for column in zip(*rows, strict=True)]
    sheet = Image.new(
        "RGB", (sum(widths) + GAP * (len(widths) + 1), sum(heights) + GAP * (len(heights) + 1)), PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for (name, pixels), width in zip(row, widths, strict=True):
            sheet.paste(Image.fromarray(pixels), (left, top))
            draw.text((left, top + pixels.shape[0] + 2), _fitting(name, width, font), INK, font)
            left += width + GAP
        top += height + GAP
    return sheet


def _fitting(name: str, width: int, font: Any) -> str:
    """Return a name, or its beginning, that is not wider than `width` pixels."""
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(f"{name}...") > width:
        name = name[:-1]
    return f"{name}..."


def _save(sheet: Image.Image, output: Path) -> None:
    file = io.BytesIO()
    sheet.save(file, SUFFIXES[output.suffix.lower()].upper(), quality=90)
    write_atomically(output, file.getvalue(), durable=False)
