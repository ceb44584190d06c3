"""Photos and style pictures of a style transfer training out of folders, and a training on them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imgtx.degradations.dead_leaves import dead_leaves
from imgtx.errors import ImageError, UsageError
from imgtx.inference.predictor import default_device
from imgtx.inference.style_picture import open_style
from imgtx.training.data.images import photo_pixels
from imgtx.training.data.left_out import LeftOut, file_bytes, usable
from imgtx.training.features import magenta
from imgtx.training.feeds import Data, Feed
from imgtx.training.loop import train
from imgtx.training.objective import Objective
from imgtx.training.style.feed import StyleBatch, StyleFeed, resize
from imgtx.training.style.imitating import Imitating
from imgtx.training.style.spec import TAUGHT_SIDE, StyleSpec
from imgtx.training.style.stylising import Stylising
from imgtx.training.style.teacher_feed import TaughtBatch, Teacher, TeacherFeed
from imgtx.training.threads import Threads
from jobs.evaluation.datasets import find_datasets

# Larger pictures are reduced to this shorter side once.
SHORTER_SIDE = 512
# Procedural pictures, where no photos are given.
LEAVES = 16
# Of the pieces that are only validated on; those of training count from 0.
FIRST_VALID_PIECE = -1
# Of the contact sheet: strokes are judged at a size that shows them.
VALID_SIDE = 256


def train_style(
    spec: StyleSpec,
    folder: Path,
    report: Callable[[dict[str, Any]], None],
    threads: Threads | None = None,
    first_weights: str = "",
    teacher: Teacher | None = None,
) -> Path:
    """Train, or continue training, on this machine, as `imgtx.training.loop.train`; return the weight file.

    Pictures that cannot be used are left out. Raises UsageError where no other is there, and where a feature network
    is not built. teacher: what is learnt from if the spec asks for one, by default Magenta's network.
    """
    left_out = LeftOut()
    smallest = TAUGHT_SIDE if spec.teacher else spec.crop
    contents = read_photos(Path(spec.train), smallest, left_out) if spec.train else leaves(spec)
    styles = read_styles(Path(spec.styles), left_out)
    shown, painted, most = contents, styles, spec.valid_images
    if spec.valid:
        shown = read_photos(Path(spec.valid), smallest, left_out, most)
    if spec.valid_styles:
        painted = read_styles(Path(spec.valid_styles), left_out, most)
    valid: Sequence[StyleBatch | TaughtBatch] = valid_batches(spec, shown, painted)
    feed: Feed
    objective: Objective
    if spec.teacher:
        feed = taught = TeacherFeed(spec, contents, styles, teacher or magenta.load(), folder)
        objective = Imitating(spec, taught)
        valid = [taught.taught(batch.contents, batch.styles[0], batch.keys) for batch in valid]
    else:
        feed = stylised = StyleFeed(spec, contents, styles)
        objective = Stylising(spec, stylised)
    return train(
        spec,
        folder,
        report,
        data=Data(feed, valid, left_out),
        objective=objective,
        device=default_device(),
        threads=threads,
        first_weights=first_weights,
    )


def read_photos(
    folder: Path, smallest: int, left_out: LeftOut | None = None, most: int | None = None
) -> dict[str, np.ndarray]:
    """Read the images of a folder and of those right under it: (H, W, 3) uint8 by name, the first `most`.

    Left out are those that cannot be read or are smaller than a crop; UsageError if no other is there.
    """

    def read(name: str, file: Path) -> np.ndarray:
        return reduced(photo_pixels(file_bytes(file), str(file), scale=1, smallest=smallest))

    return usable(find_images(folder), read, folder, most=most, left_out=left_out)


def read_styles(
    path: Path, left_out: LeftOut | None = None, most: int | None = None
) -> dict[str, np.ndarray]:
    """Read one style picture, or the first `most` of a folder, by name.

    Left out are those of a folder that cannot be a style; UsageError if no other is there.
    """
    if path.is_file():
        return {path.name: reduced(open_style(path))}

    def read(name: str, file: Path) -> np.ndarray:
        try:
            return reduced(open_style(file))
        except UsageError as error:
            raise ImageError("unusable", str(error)) from error

    return usable(find_images(path), read, path, most=most, left_out=left_out)


def find_images(folder: Path) -> list[tuple[str, Path]]:
    """Return names and files of the images in a folder and in those right under it; UsageError if there is none."""
    files = [file for dataset in find_datasets([folder]) for file in dataset.files]
    return [(str(file.relative_to(folder)), file) for file in files]


def reduced(picture: np.ndarray) -> np.ndarray:
    """Return a picture with a shorter side of SHORTER_SIDE at most."""
    scale = SHORTER_SIDE / min(picture.shape[:2])
    if scale >= 1:
        return picture
    return resize(picture, *(round(side * scale) for side in picture.shape[:2]))


def leaves(spec: StyleSpec) -> dict[str, np.ndarray]:
    """Return procedural pictures."""
    side = max(SHORTER_SIDE, spec.crop)
    return {
        f"dead leaves {number}": dead_leaves(np.random.default_rng((spec.seed, number, 2)), side, side)
        for number in range(LEAVES)
    }


def valid_batches(
    spec: StyleSpec, contents: dict[str, np.ndarray], styles: dict[str, np.ndarray]
) -> list[StyleBatch]:
    """Return one batch for each of the first styles: the middles of the first contents."""
    # The first piece of each style is cut from the picture in its smallest size.
    looked_at = StyleFeed(replace(spec, pieces=1), contents, styles)
    names = tuple(contents)[: spec.valid_images]
    shown = np.stack([middle(contents[name], max(VALID_SIDE, spec.crop)) for name in names])
    return [
        StyleBatch(shown, looked_at.piece(number)[None], (FIRST_VALID_PIECE - number,), False, names)
        for number in range(min(spec.valid_images, len(styles)))
    ]


def middle(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the square in the middle, resized to `side`."""
    size = min(picture.shape[:2])
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return resize(picture[top : top + size, left : left + size], side, side)
