"""A style transfer model with a style of its own, for what measures models without knowing what they need."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from imgtx.degradations.dead_leaves import dead_leaves
from imgtx.models.contract import Conditions, ImageModel
from imgtx.models.weight_file import STYLE_TASK

# Pixels a side of the style: as many as a style encoder looks at by default.
SIDE = 256


class InOneStyle(nn.Module):
    """The model, an `ImageModel` that needs nothing beside pixels. style: (H, W, 3) uint8, by default dead leaves."""

    def __init__(self, model: Any, style: np.ndarray | None = None):
        super().__init__()
        self.model, self.info, self.digest = model, model.info, model.digest
        self.style = dead_leaves(np.random.default_rng(0), SIDE, SIDE) if style is None else style
        # Weights that were fitted to a style take no other.
        self.state = model.prepare({} if model.info.style else {"style": self.style})

    def prepare(self, conditions: dict[str, Any]) -> Any:
        """Return the state of the one style."""
        return self.state

    def look_at(self, pieces: Tensor, state: Any, row: Conditions) -> Any:
        """Return what the model knows of a whole image."""
        return self.model.look_at(pieces, state or self.state, row)

    def forward(self, batch: Tensor, state: Any = None, rows: Sequence[Conditions] = ()) -> Tensor:
        """Run (B, 3, H, W) in [0, 1] to the same shape in the one style, also without its state."""
        return self.model(batch, state or self.state, rows)


def needing_nothing(model: ImageModel) -> ImageModel:
    """Return a model for style transfer `InOneStyle`, any other as it is."""
    return InOneStyle(model) if model.info.task == STYLE_TASK else model
