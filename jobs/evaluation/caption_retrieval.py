"""Whether pictures of captions are recognised, by a network that no training used; and which of them are memorised.

    seen       100 concepts, each in a drawing style in which training saw it
    pair       the same concepts, each in a style in which training did not see it

The network is MobileNetV2, which classifies photos. On its features a small classifier is fitted to real pictures that
were held out of the training: concepts that are held out in all styles teach it which directions tell concepts apart
(linear discriminant analysis), and of each of the 100 concepts one held-out picture is its example. A picture is
recognised if the example of its own concept is the nearest of the 100. The examples are in several styles, because no
collection has 100 that serve: directions in which one concept differs between styles count little, and how much style
alone finds is what the pictures find under the prompts of others, which are of the same style.

A picture is memorised if it is less than a third as far from the nearest picture of the training as from the nearest of
another concept, by root mean square over pixels: the rule of Yoon et al. 2023 ("Diffusion Probabilistic Models
Generalize when They Fail to Memorize"), with concepts because collections draw many of them alike. Of real pictures,
each compared with the others, the same share says how many are near copies anyway.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from imgtx.errors import UsageError
from imgtx.training.scenes.drawing import SIDE
from imgtx.training.text_to_image.captioned import Subject, composite, held_out
from jobs.evaluation.captioned_pictures import read_pictures
from jobs.evaluation.datasets import Dataset
from jobs.evaluation.report import Row, with_progress

if TYPE_CHECKING:
    # These import torch.
    from imgtx.inference.generator import Generator
    from imgtx.inference.predictor import Predictor

# Concepts among which each picture is recognised.
CANDIDATES = 100
SHUFFLED, REAL = "prompts of others (control)", "real pictures (control)"
WHITE = np.array([255, 255, 255])
# A memorised picture is at most so far from one of the training, as a share of the distance to one of another concept.
MEMORISED = 1 / 3
# Of the spread of features within a concept, that is added in all directions: there are more of them than pictures.
RIDGE = 0.1
# Pixels a side that MobileNetV2 sees; at 64 its last stage would have four positions.
SEEN_AT = 128
PICTURES_AT_ONCE, DISTANCES_AT_ONCE = 32, 2048

# From (N, 64, 64, 3) uint8 to (N, F) float32.
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class OnWhite:
    """Captioned pictures on white: (N, 64, 64, 3) uint8, and what they show. Variants by skin tone are left out."""

    pictures: np.ndarray
    subjects: tuple[Subject, ...]

    def where(self, wanted: Callable[[Subject], bool]) -> list[int]:
        """Return the places of the pictures whose subject is `wanted`."""
        return [place for place, subject in enumerate(self.subjects) if wanted(subject)]


def find_captioned(paths: Sequence[Path]) -> tuple[Dataset, ...]:
    """Return each folder as a dataset; UsageError for none, and for one without Parquet files."""
    if not paths:
        raise UsageError("evaluate was given no dataset: name a folder of captioned pictures (.parquet)")
    found = [Dataset(path.resolve().name, tuple(sorted(path.glob("*.parquet")))) for path in paths]
    for path, dataset in zip(paths, found, strict=True):
        if not dataset.files:
            raise UsageError(f"{path} has no .parquet file: give a folder of pictures with captions")
    return tuple(found)


def read_captioned(folder: Path) -> OnWhite:
    """Read a folder of Parquet files; UsageError as `read_pictures`."""
    found = read_pictures(folder)
    kept = [place for place, subject in enumerate(found.subjects) if not subject.toned]
    flat = np.stack([composite(found.pictures[place], WHITE) for place in kept])
    return OnWhite(flat, tuple(found.subjects[place] for place in kept))


def caption_rows(predictor: "Predictor", dataset: Dataset) -> Iterator[Row]:
    """Measure the pictures that a model makes of captions, beside real pictures of the same concepts."""
    generator = cast("Generator", predictor)
    features = mobilenet_features()
    data = read_captioned(dataset.files[0].parent)
    training = data.where(lambda subject: not held_out(subject))
    memory = Memory(data, training)
    examples, real = choose_candidates(data, training)
    classifier = Classifier.fit(data, examples, features)
    for condition, places in (("seen in this style", real), ("seen in other styles only", examples)):
        asked = [(data.subjects[place], data.subjects[place].style) for place in places]
        concepts = [subject.concept for subject, _ in asked]
        others = [concepts[place] for place in rotated([style for _, style in asked])]
        prompts = [f"{subject.caption} in {style} style" for subject, style in asked]
        shown = with_progress(prompts, f"captions: {condition}")
        made = np.stack([picture_at(generator, prompt, seed) for seed, prompt in enumerate(shown)])
        for method, pictures, meant, known in (
            (generator.info.name, made, concepts, ()),
            (SHUFFLED, made, others, ()),
            (REAL, data.pictures[list(real)], concepts, real),
        ):
            means = {
                "found %": 100 * classifier.share(pictures, meant),
                "memorised %": 100 * memory.share(pictures, known),
            }
            yield Row(dataset.name, condition, method, len(pictures), means)


def choose_candidates(data: OnWhite, training: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places of CANDIDATES pictures that training did not see, a concept each, and each one's counterpart.

    The counterpart is the first picture of the same concept in another style that is in the training. Raises UsageError
    for too few pictures.
    """
    by_concept: dict[str, list[int]] = {}
    for place in training:
        by_concept.setdefault(data.subjects[place].concept, []).append(place)
    found: dict[str, tuple[int, int]] = {}
    for place in data.where(lambda subject: held_out(subject) == "pair"):
        subject = data.subjects[place]
        apart = [at for at in by_concept.get(subject.concept, ()) if data.subjects[at].style != subject.style]
        if apart:
            found.setdefault(subject.concept, (place, apart[0]))
    if len(found) < CANDIDATES:
        raise UsageError(
            f"the pictures have {len(found)} concepts that are held out in one style and not in others: expected "
            f"{CANDIDATES} or more; give all collections"
        )
    # Evenly over the alphabet: neighbours in it are often alike ("clock at one", "clock at two").
    ordered = [found[concept] for concept in sorted(found)]
    chosen = [ordered[number * len(ordered) // CANDIDATES] for number in range(CANDIDATES)]
    return tuple(place for place, _ in chosen), tuple(place for _, place in chosen)


def rotated(styles: Sequence[str]) -> list[int]:
    """Return for each place another one of the same style, the next; of a style that is alone, any other one."""
    following = [(place + 1) % len(styles) for place in range(len(styles))]
    for style in dict.fromkeys(styles):
        places = [place for place, name in enumerate(styles) if name == style]
        if len(places) > 1:
            for place, after in zip(places, [*places[1:], places[0]], strict=True):
                following[place] = after
    return following


@dataclass(frozen=True)
class Classifier:
    """The nearest example in a space where concepts are apart: `middle` (F), `project` (F, F), `examples` (C, F)."""

    features: Features
    middle: np.ndarray
    project: np.ndarray
    examples: np.ndarray
    concepts: tuple[str, ...]

    @classmethod
    def fit(cls, data: OnWhite, examples: Sequence[int], features: Features) -> "Classifier":
        """Fit to pictures that are held out: those of concepts that are held out in every style, and the examples."""
        concepts = [data.subjects[place].concept for place in examples]
        teaching = data.where(lambda s: held_out(s) == "concept" and s.concept not in concepts)
        known = features(data.pictures[teaching])
        middle = known.mean(0)
        project = discriminant(known, [data.subjects[place].concept for place in teaching])
        seen = _directions((features(data.pictures[list(examples)]) - middle) @ project)
        return cls(features, middle, project, seen, tuple(concepts))

    def share(self, pictures: np.ndarray, concepts: Sequence[str]) -> float:
        """Return the share of pictures whose nearest example has their concept."""
        near = _directions((self.features(pictures) - self.middle) @ self.project) @ self.examples.T
        right = [self.concepts[best] == meant for best, meant in zip(near.argmax(1), concepts, strict=True)]
        return float(np.mean(right))


def discriminant(features: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return the directions, (F, F), in which pictures of one label have equal spread 1.

    UsageError where no label has two pictures.
    """
    _, numbers, counts = np.unique(np.array(labels, str), return_inverse=True, return_counts=True)
    if not (counts > 1).any():
        raise UsageError(
            "no held-out concept has two pictures: give all collections, so that it can be learnt"
        )
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, numbers, features)
    within = features - (sums / counts[:, None])[numbers]
    covariance = within.T @ within / len(within)
    values, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(values.clip(0) + RIDGE * values.mean())


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


class Memory:
    """Tells which pictures are those of the training."""

    def __init__(self, data: OnWhite, training: Sequence[int]):
        self._pictures = data.pictures[list(training)].reshape(len(training), -1)
        self._concepts = np.array([data.subjects[place].concept for place in training], str)
        self._number = {place: number for number, place in enumerate(training)}

    def share(self, pictures: np.ndarray, places: Sequence[int] = ()) -> float:
        """Return the share of pictures that are memorised.

        places: of pictures that are in the training themselves, each compared with the others.
        """
        flat = pictures.reshape(len(pictures), -1).astype(np.float32)
        blocks = []
        for start in range(0, len(self._pictures), DISTANCES_AT_ONCE):
            block = self._pictures[start : start + DISTANCES_AT_ONCE].astype(np.float32)
            blocks.append((flat**2).sum(1)[:, None] + (block**2).sum(1)[None] - 2 * flat @ block.T)
        squares = np.concatenate(blocks, axis=1).clip(0)
        for row, place in enumerate(places):
            squares[row, self._number[place]] = np.inf
        nearest = squares.argmin(1)
        others = self._concepts[None] != self._concepts[nearest][:, None]
        near = squares[np.arange(len(squares)), nearest]
        far = np.where(others, squares, np.inf).min(1)
        return float(np.mean(np.sqrt(near) < MEMORISED * np.sqrt(far)))


def picture_at(generator: "Generator", prompt: str, seed: int) -> np.ndarray:
    """Make the picture of a prompt: (64, 64, 3) uint8, reduced where the model makes larger ones."""
    made = generator(prompt, seed=seed)
    factor = made.shape[0] // SIDE
    if made.shape[:2] != (factor * SIDE, factor * SIDE) or not factor:
        raise UsageError(
            f"{generator.info.name} makes pictures of {made.shape[1]} x {made.shape[0]}: expected squares of a "
            f"multiple of {SIDE} pixels"
        )
    blocks = made.reshape(SIDE, factor, SIDE, factor, 3).astype(np.float32)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def mobilenet_features() -> Features:
    """Return MobileNetV2's last features, averaged over positions; UsageError where it is not built."""
    import torch
    import torch.nn.functional as F

    from imgtx.training.features.inverted_residuals import MOBILENET_V2, load

    network = load(MOBILENET_V2)

    def features(pictures: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            batch = torch.from_numpy(pictures[start : start + PICTURES_AT_ONCE]).permute(0, 3, 1, 2) / 255
            with torch.no_grad():
                large = F.interpolate(batch, size=(SEEN_AT, SEEN_AT), mode="bilinear", antialias=True)
                found.append(F.relu6(network.head(network(large)[-1])).mean((2, 3)).numpy())
        return np.concatenate(found).astype(np.float64)

    return features
