"""What a degradation is: the description that training, evaluation and model cards work from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# (clean, scale, rng, damage) -> (damaged, clean side of the pair); see `Degradation.pair`.
PairFunction = Callable[[np.ndarray, int, np.random.Generator, Any], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Degradation:
    """One way from a clean image to the damaged one that a model learns to undo.

    name: the value of `degradation` in training specs. task: the task of models trained on it. scales: by how much it
    may reduce. card: what such a model is for, in a model card's words. protocol: how `imgtx evaluate` describes the
    input, empty where it cannot make it.
    make: (scale h, scale w, 3) uint8 -> (h, w, C) uint8 or float32 in levels of 255, and the clean side; a pure
    function of image, scale, generator and damage. damage: the dataclass of the spec's [damage] table, which checks
    itself with UsageError; None where there is nothing to set.
    exact: crops may be cut out of the pair of the whole image. masks: the damaged side has the mask as its last
    channel. grey: images of one channel may be degraded too.
    """

    name: str
    task: str
    scales: tuple[int, ...]
    card: str
    make: PairFunction
    damage: type | None = None
    protocol: str = ""
    exact: bool = False
    masks: bool = False
    grey: bool = False

    def pair(
        self, clean: np.ndarray, scale: int, rng: np.random.Generator, damage: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the damaged image and the clean one it should become; `damage` defaults to the degradation's own."""
        if damage is None and self.damage is not None:
            damage = self.damage()
        return self.make(clean, scale, rng, damage)
