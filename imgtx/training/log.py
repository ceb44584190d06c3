"""What a training leaves in its folder to read: its log, from which events and curves are made, and validation images.

The log, a JSON object per line, is the source. TensorBoard events need the extra `tensorboard`, curves.png the extra
`curves`; without them training continues and says once what is missing.
"""

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgtx.errors import UsageError
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize
from imgtx.training.curves import SCORES, draw_curves

log = logging.getLogger("imgtx.train")

LOG, CURVES, STRIP = "log.jsonl", "curves.png", "strip.png"
SCALARS = ("loss", "lr", "samples_per_second", *SCORES)
EXTRAS = {"tensorboard": ("tensorboardX", "TensorBoard events"), "curves": ("matplotlib", CURVES)}
# Pixels of a panel, between panels, of the line above each.
PANEL, GAP, LABEL = 192, 4, 18
ROWS = 4


class TrainingLog:
    """Writes each report as it comes, and redraws the curves at every validation. A context manager.

    New files are opened at the first report, so that a start that is refused adds none. Raises UsageError where the
    log cannot be written.
    """

    def __init__(self, folder: Path, loss: str):
        self.folder, self._loss = folder, loss
        self._lines: TextIO | None = None
        self._events: Any = None
        missing = [extra for extra, (package, _) in EXTRAS.items() if find_spec(package) is None]
        self._has_events, self._draws = "tensorboard" not in missing, "curves" not in missing
        if (folder / LOG).exists():
            self._lines = _open_lines(folder / LOG)
        if missing:
            log.warning(
                "no %s: for them pip install %s",
                " and no ".join(EXTRAS[extra][1] for extra in missing),
                " ".join(EXTRAS[extra][0] for extra in missing),
            )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *exception: object) -> None:
        for file in (self._lines, self._events):
            if file is not None:
                file.close()

    def __call__(self, values: dict[str, Any]) -> None:
        self._lines = self._lines or _open_lines(self.folder / LOG)
        if self._has_events and self._events is None:
            self._events = _open_events(self.folder)
        self._lines.write(json.dumps(values) + "\n")
        self._lines.flush()
        if self._events is not None:
            for name in SCALARS:
                if name in values:
                    self._events.add_scalar(name, values[name], values["step"])
        if self._draws and any(score in values for score in SCORES):
            draw_curves(read_log(self.folder / LOG), self._loss, self.folder / CURVES)


def _open_events(folder: Path) -> Any:
    """Open a writer of TensorBoard events, which joins all files of a folder; a kill costs the last second.

    The name is new each time: the writer's own counts seconds, and a quick restart would empty the file before.
    """
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), flush_secs=1, filename_suffix=f".{uuid.uuid4().hex[:8]}")


def _open_lines(path: Path) -> TextIO:
    """Open a log to add to; a line that a killed process cut short is ended, so that the next starts on its own."""
    try:
        lines = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the log {path} cannot be written to ({error.strerror}): change its permissions, or train in another "
            "folder"
        ) from error
    lines.seek(0)
    if not lines.read().endswith("\n") and lines.tell():
        lines.write("\n")
    return lines


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a training's log in the order of their steps.

    What a killed process logged beyond its last checkpoint was trained again: the later line counts. A last line that
    was cut short is left out.
    """
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        while lines and _repeats(line, lines[-1]):
            lines.pop()
        lines.append(line)
    return lines


def _repeats(line: dict[str, Any], earlier: dict[str, Any]) -> bool:
    """Return whether `line` reports again what `earlier` did; a loss and a validation may share one step."""
    return earlier["step"] > line["step"] or (
        earlier["step"] == line["step"] and earlier.keys() == line.keys()
    )


@dataclass(frozen=True)
class ValidationSample:
    """One validation image as (h, w, 3) and (scale h, scale w, 3) uint8: input, output, original."""

    small: np.ndarray
    output: np.ndarray
    clean: np.ndarray


def draw_strip(images: Sequence[ValidationSample]) -> Image.Image:
    """Draw input, bicubic where it is enlarged, output and original of the first images, a row each.

    Panels are cut from the middle of the image, so that no place is chosen.
    """
    rows = [_row(image) for image in images[:ROWS]]
    picture = Image.new(
        "RGB", (len(rows[0]) * (PANEL + GAP) - GAP, len(rows) * (PANEL + LABEL + GAP)), "white"
    )
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for y, panels in enumerate(rows):
        for x, (label, pixels) in enumerate(panels):
            corner = (x * (PANEL + GAP), y * (PANEL + LABEL + GAP))
            draw.text((corner[0] + 2, corner[1] + 2), label, fill="black", font=font)
            panel = Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.NEAREST)
            picture.paste(panel, (corner[0], corner[1] + LABEL))
    return picture


def _row(image: ValidationSample) -> list[tuple[str, np.ndarray]]:
    scale = image.clean.shape[0] // image.small.shape[0]
    side = min(PANEL // 2, *(length // scale * scale for length in image.clean.shape[:2])) // scale
    top, left = ((length - side) // 2 for length in image.small.shape[:2])
    small = image.small[top : top + side, left : left + side]
    place = (slice(scale * top, scale * (top + side)), slice(scale * left, scale * (left + side)))

    def label(name: str, pixels: np.ndarray) -> str:
        return f"{name} {psnr_y(pixels, image.clean, crop=scale):.2f} dB"

    model, original = (label("model", image.output), image.output[place]), ("original", image.clean[place])
    if scale == 1:
        return [(label("input", image.small), small), model, original]
    bicubic = imresize(image.small, scale)
    return [(f"input x{scale}", small), (label("bicubic", bicubic), bicubic[place]), model, original]
