"""The protocol for style transfer: how near the strokes come to the style, and what is left of the content.

Each content is given some of the styles. Both are squares from the middle of the pictures.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from imgtx.codecs import decode
from imgtx.errors import ImageError, UsageError
from imgtx.imageops.luma import LUMA
from imgtx.imageops.metrics import ssim
from imgtx.models.info import ModelInfo
from jobs.evaluation.colour_transfer import mean_and_deviation, optimal_transport
from jobs.evaluation.datasets import Dataset, as_rgb
from jobs.evaluation.protocol import Protocol, Quality, TaskEvaluation, measure_by
from jobs.evaluation.report import Row, with_progress
from pipeline.tasks.style_transfer import STYLE_TRANSFER

if TYPE_CHECKING:
    # These import torch.
    from imgtx.inference.stylist import Stylist
    from jobs.evaluation.style_measures import Eye

# Magenta's transform network takes no other size.
CONTENT_SIDE = 384
STYLE_SIDE = 256
STYLES_EACH = 3
# Optimising an image takes a minute or more: of so many pairs.
OPTIMISED = 2
OPTIMISATION_STEPS = 40
UNCHANGED = "unchanged"
MAGENTA = "Magenta (int8)"

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """A content and a style by their numbers."""

    content: int
    style: int


@dataclass(frozen=True)
class Score:
    """One output: distances by network, SSIM, and whether its style and its content were found among all."""

    distances: dict[str, float]
    ssim: float
    style_found: bool
    content_found: bool


class Measures:
    """Contents and styles as the networks see them, looked at once."""

    def __init__(self, contents: Sequence[np.ndarray], styles: Sequence[np.ndarray]):
        from jobs.evaluation.style_measures import contents_vector, eyes

        self.contents = contents
        self.eyes = eyes([*styles, *contents[: len(styles)]])
        self.signatures = {
            eye.name: [eye.signature(eye.look(style)) for style in styles] for eye in self.eyes
        }
        self.vectors = [contents_vector(self._recogniser.look(content)) for content in contents]

    @property
    def _recogniser(self) -> "Eye":
        """The network that recognises contents."""
        return next(eye for eye in self.eyes if eye.name == "mobilenet")

    def score(self, output: np.ndarray, pair: Pair) -> Score:
        """Measure an output (H, W, 3) uint8 of the size of its content."""
        from jobs.evaluation.style_measures import contents_vector, sliced_distance

        distances, vector = {}, None
        to_all = np.zeros(len(self.signatures[self.eyes[0].name]))
        for eye in self.eyes:
            seen = eye.look(output)
            if eye is self._recogniser:
                vector = contents_vector(seen)
            own = eye.signature(seen)
            found = np.array([sliced_distance(own, style) for style in self.signatures[eye.name]])
            distances[eye.name] = float(found[pair.style])
            # Each network has one vote, whatever its scale.
            to_all += found / found.mean()
        assert vector is not None
        nearest = int(np.argmax([float(vector @ other) for other in self.vectors]))
        likeness = ssim(luma(output), luma(self.contents[pair.content]))
        return Score(distances, likeness, int(np.argmin(to_all)) == pair.style, nearest == pair.content)


def style_rows(predictor: "Stylist", contents: Dataset, styles: Dataset) -> Iterator[Row]:
    """Measure the model and its baselines on each content in some of the styles.

    Magenta's row is there where its networks are built, that of an optimisation where that of the losses is.
    """
    shown = [read_square(path, CONTENT_SIDE) for path in contents.files]
    painted = [read_square(path, STYLE_SIDE) for path in styles.files]
    if len(painted) < 2:
        raise UsageError(
            f"{styles.name} has one style: give two or more, so that each can be mistaken for another"
        )
    measures = Measures(shown, painted)
    name, own = predictor.info.name, predictor.info.style
    pairs = in_own_style(own, shown, styles) if own else in_some_styles(shown, painted)
    condition = f"in {own}" if own else f"in {len(painted)} styles"
    methods: dict[str, Method] = {
        UNCHANGED: lambda content, style: content,
        "Reinhard": mean_and_deviation,
        "optimal transport": optimal_transport,
        # Weights that were fitted to a style take none.
        name: lambda content, style: predictor(content, style=None if own else style),
    }
    if (other := magenta()) is not None:
        methods[MAGENTA] = other
    base: list[Score] = []
    kept: dict[str, tuple[list[np.ndarray], list[Score]]] = {}

    def row(label: str, scores: Sequence[Score], seconds: float | None = None) -> Row:
        return Row(
            contents.name, condition, label, len(scores), summary(scores, base[: len(scores)]), seconds
        )

    for label, method in methods.items():
        outputs, scores, spent = [], [], 0.0
        for pair in with_progress(pairs, f"{contents.name} {label}"):
            started = time.perf_counter()
            outputs.append(method(shown[pair.content], painted[pair.style]))
            spent += time.perf_counter() - started
            scores.append(measures.score(outputs[-1], pair))
        base = base or scores
        if label in (name, MAGENTA):
            kept[label] = (outputs, scores)
        seconds = spent / (len(pairs) * CONTENT_SIDE**2) * 1e6
        yield row(label, scores, None if label == UNCHANGED else seconds)
    if MAGENTA in kept:
        strength, scores = at_ssim(
            fmean(score.ssim for score in kept[MAGENTA][1]), kept[name][0], pairs, shown, measures
        )
        yield row(f"{name} at strength {strength:.2f}", scores)
    if (optimise := optimisation([*painted, *shown])) is not None:
        few = pairs[:: max(1, len(pairs) // OPTIMISED)][:OPTIMISED]
        unchanged = [measures.score(shown[pair.content], pair) for pair in few]
        scores = [
            measures.score(optimise(shown[pair.content], painted[pair.style]), pair)
            for pair in with_progress(few, f"{contents.name} optimisation")
        ]
        yield Row(contents.name, condition, "optimisation (control)", len(few), summary(scores, unchanged))


def in_some_styles(contents: Sequence[np.ndarray], styles: Sequence[np.ndarray]) -> list[Pair]:
    """Return each content in STYLES_EACH of the styles, taking turns."""
    return [
        Pair(number, (number + step * max(1, len(styles) // STYLES_EACH)) % len(styles))
        for number in range(len(contents))
        for step in range(min(STYLES_EACH, len(styles)))
    ]


def in_own_style(own: str, contents: Sequence[np.ndarray], styles: Dataset) -> list[Pair]:
    """Return each content in the style that the weights were fitted to; UsageError where it is not there."""
    names = [path.stem for path in styles.files]
    if own not in names:
        raise UsageError(
            f"{styles.name} does not hold {own}, which these weights were fitted to: add that picture, under this name"
        )
    return [Pair(number, names.index(own)) for number in range(len(contents))]


def summary(scores: Sequence[Score], base: Sequence[Score]) -> dict[str, float]:
    """Return means: changes of the distances in % of those of the unchanged images, SSIM, shares found in %."""
    changes = {
        f"{name} %": 100
        * (fmean(s.distances[name] for s in scores) / fmean(s.distances[name] for s in base) - 1)
        for name in scores[0].distances
    }
    return {
        "style %": fmean(changes.values()),
        **changes,
        "ssim": fmean(score.ssim for score in scores),
        "style found %": 100 * fmean(score.style_found for score in scores),
        "content found %": 100 * fmean(score.content_found for score in scores),
    }


def at_ssim(
    wanted: float,
    outputs: Sequence[np.ndarray],
    pairs: Sequence[Pair],
    contents: Sequence[np.ndarray],
    measures: Measures,
) -> tuple[float, list[Score]]:
    """Find the strength at which outputs keep an SSIM of `wanted`, 1 at most; return it and the scores there."""

    def at(strength: float) -> list[np.ndarray]:
        return [
            np.rint(
                contents[pair.content] + strength * (output - contents[pair.content].astype(np.float32))
            ).astype(np.uint8)
            for output, pair in zip(outputs, pairs, strict=True)
        ]

    def likeness(strength: float) -> float:
        blends = zip(at(strength), pairs, strict=True)
        return fmean(ssim(luma(blend), luma(contents[pair.content])) for blend, pair in blends)

    low, high = 0.0, 1.0
    if likeness(high) < wanted:
        for _ in range(6):
            middle = (low + high) / 2
            low, high = (middle, high) if likeness(middle) > wanted else (low, middle)
    return high, [measures.score(blend, pair) for blend, pair in zip(at(high), pairs, strict=True)]


def luma(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) in 0..255."""
    return image @ np.array(LUMA)


def read_square(path: Path, side: int) -> np.ndarray:
    """Read the square in the middle of a picture, resized to `side`: (side, side, 3) uint8."""
    from PIL import Image

    try:
        pixels = as_rgb(decode(path.read_bytes(), max_pixels=200_000_000).pixels)
    except ImageError as error:
        raise UsageError(f"{path} cannot be read ({error}): repair it or take it out") from error
    if pixels.dtype != np.uint8:
        raise UsageError(f"{path} has 16 bits a channel: convert it to 8")
    size = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + size, left : left + size]))
    return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))


def magenta() -> Method | None:
    """Return Magenta's arbitrary stylisation, where it is in the user's cache with what runs it."""
    from imgtx.training.features import magenta as networks

    if not networks.available():
        return None
    painter = networks.load()
    return lambda content, style: painter.paint(content, painter.numbers(style))


def optimisation(pictures: Sequence[np.ndarray]) -> Method | None:
    """Return what optimises pixels by the losses of training, None where their network is not built.

    pictures: what its activations are normalised over.
    """
    from imgtx.training.features.packages import cached
    from imgtx.training.features.vgg16 import NAME

    if not cached(NAME).is_file():
        return None
    from imgtx.training.style.optimisation import Optimisation

    optimise = Optimisation(pictures, steps=OPTIMISATION_STEPS)
    return optimise


def measure_quality(weights: Path, info: ModelInfo, benchmarks: Sequence[Path], degradation: str) -> Quality:
    """Measure weights for their card: benchmarks are a folder of contents and one of styles."""
    quality, (report,) = measure_by(PROTOCOLS, weights, info, benchmarks)
    (own,) = [row for row in report.rows if row.method == info.name]
    return Quality(quality.text, quality.values, {}, f"Distance to the style: {own.means['style %']:.0f} %.")


PROTOCOLS = {
    "style": Protocol(
        "style",
        STYLE_TRANSFER.name,
        f"contents of {CONTENT_SIDE} px, each in {STYLES_EACH} of the styles, those of {STYLE_SIDE} px; style: change "
        "of the sliced Wasserstein distance to the style against the unchanged image, on grey images with equalised "
        "histograms, by EfficientNet-Lite0, MobileNetV2 and random filters, none of which was in a loss; found: by the "
        "nearest of all styles by that distance, the nearest of all contents by MobileNetV2; ssim: of the luma",
        style_rows,
        (),
        in_metrics=False,
        inputs=("contents", "styles"),
    )
}
TASK = TaskEvaluation(STYLE_TRANSFER.name, "Style transfer", measure_quality)
