"""Questions for a text-to-image network: captions of what training never drew, and how many pictures are right."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imgtx.training.scenes.captions import any_description, caption
from imgtx.training.scenes.checker import judge
from imgtx.training.scenes.description import Description
from imgtx.training.scenes.held_out import held_out_of

# What a question is about: one of the lists that are held out, or nothing that is held out.
KINDS = ("pair", "count", "relation", "background", "seen")
SEED = 19


class Question(NamedTuple):
    """A prompt, the seed of its picture, and what the picture must show."""

    prompt: str
    seed: int
    description: Description


def questions(kind: str, count: int) -> list[Question]:
    """Return the first `count` questions of a kind: always the same."""
    rng = np.random.default_rng((SEED, KINDS.index(kind)))
    wanted = frozenset() if kind == "seen" else frozenset({kind})
    found: list[Question] = []
    while len(found) < count:
        description = any_description(rng)
        if held_out_of(description) == wanted:
            found.append(Question(caption(description, rng), len(found), description))
    return found


def marks(pictures: Sequence[np.ndarray], descriptions: Sequence[Description]) -> dict[str, float]:
    """Return the share of pictures that are right, by attribute, of those whose description speaks of it.

    `attributes` is the share over all attributes together, `everything` that of pictures with nothing wrong.
    """
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for picture, description in zip(pictures, descriptions, strict=True):
        verdict = judge(picture, description)
        asked.update(verdict.keys())
        right.update(name for name, shown in verdict.items() if shown)
        asked.update(["everything"])
        right.update(["everything"] * all(verdict.values()))
    single = [name for name in asked if name != "everything"]
    shares = {name: right[name] / asked[name] for name in asked}
    shares["attributes"] = sum(right[name] for name in single) / sum(asked[name] for name in single)
    return shares
