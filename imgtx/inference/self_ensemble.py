"""Geometric self-ensemble: the mean over eight views of an image (EDSR, arXiv 1707.02921, section 3.3).

No network learns to treat a turned or mirrored image quite alike. The mean of its outputs for all eight symmetries of
the square, each turned back, is closer to the truth, at eight times the time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgtx.errors import UsageError
from imgtx.models.contract import Conditions, call_model

VIEWS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))


class SelfEnsemble(nn.Module):
    """An `ImageModel` like the one inside, with its info and digest: the same weights, used in another way.

    Raises UsageError for a model that looks at the whole image: what it paints is no estimate to be averaged.
    """

    def __init__(self, model: Any):
        super().__init__()
        if hasattr(model, "look_at"):
            raise UsageError(
                f"the mean over turned views would blur what {model.info.name} paints: leave the self-ensemble out"
            )
        self.model, self.info, self.digest = model, model.info, getattr(model, "digest", None)

    def prepare(self, conditions: dict[str, Any]) -> Any:
        return self.model.prepare(conditions)

    def forward(self, batch: Tensor, state: Any, rows: Sequence[Conditions] = ()) -> Tensor:
        """Run (B, C, H, W) to (B, out_channels, s H, s W) float32: the mean over the views."""
        layout = torch.channels_last if self.info.channels_last else torch.contiguous_format
        total = torch.zeros((), device=batch.device)
        for turns, mirrored in VIEWS:
            seen = _turned(batch, turns, mirrored).contiguous(memory_format=layout)
            output = call_model(self.model, seen, state, rows)
            total = total + _turned_back(output.to(torch.float32), turns, mirrored)
        return total / len(VIEWS)


def _turned(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    """Turn (..., H, W) by quarters, then swap left and right."""
    turned = torch.rot90(images, turns, (-2, -1))
    return turned.flip(-1) if mirrored else turned


def _turned_back(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    return torch.rot90(images.flip(-1) if mirrored else images, -turns, (-2, -1))
