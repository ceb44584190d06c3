"""The style transfer network under the contract of `imgtx.models.contract`: prepared once with a style picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtx.errors import UsageError
from imgtx.models.contract import Conditions
from imgtx.models.info import ModelInfo
from imgtx.models.style_config import MERGED_PATCH
from imgtx.models.style_transfer import StyleState, StyleTransfer

# Tokens of the style memory at most, so that the cost of an image does not grow with the style picture.
MAX_MEMORY = 1024
SMALLEST_STYLE = 64
# Shorter side in pixels at which the style encoder sees a style picture: the strokes' scale.
STYLE_SIZE = 256


class StyleModel(nn.Module):
    """A style transfer network with its facts. `digest` is the SHA-256 of the weight file in hex."""

    def __init__(self, network: StyleTransfer, info: ModelInfo, digest: str):
        super().__init__()
        self.network, self.info, self.digest = network, info, digest

    @torch.no_grad()
    def prepare(self, conditions: dict[str, Any] | None = None) -> StyleState:
        """Compute the style memory, once per job.

        conditions: `style`, an (H, W, 3) uint8 picture; `style_size`, the shorter side in pixels at which it is looked
        at, 256 by default. Raises UsageError without a picture, and for one below 64 pixels a side.
        """
        if not conditions or "style" not in conditions:
            raise UsageError(f"{self.info.name} needs a style picture: give one as `style`")
        weight = self.network.embed.weight
        network = self.network.config
        picture = fit_style(
            conditions["style"], conditions.get("style_size", STYLE_SIZE), network.style_multiple
        )
        return self.network.encode_style(picture.to(weight.device, weight.dtype))

    def forward(self, batch: Tensor, state: StyleState, rows: Sequence[Conditions] = ()) -> Tensor:
        """Run (B, 3, H, W) in [0, 1], H and W multiples of info.multiple, to the same shape in [0, 1]."""
        return self.network(batch, state).clamp(0.0, 1.0)


def fit_style(pixels: np.ndarray, size: int, multiple: int) -> Tensor:
    """Resize and cut a style picture for the style encoder: (H, W, 3) uint8 -> (1, 3, h, w) in [0, 1].

    h and w are multiples of `multiple`, the shorter about `size`, in proportion; what does not fit is cut off at both
    ends, so that strokes keep their shape. Never more than MAX_MEMORY tokens. UsageError for a picture below 64 pixels.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_STYLE:
        raise UsageError(
            f"the style picture is {width} x {height}: expected {SMALLEST_STYLE} pixels a side or more; "
            f"give a larger picture"
        )
    short, long = style_sides(min(height, width), max(height, width), size, multiple)
    high, wide = (short, long) if height <= width else (long, short)
    scale = max(high / height, wide / width)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255
    covering = (max(high, round(height * scale)), max(wide, round(width * scale)))
    image = F.interpolate(image, covering, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = (covering[0] - high) // 2, (covering[1] - wide) // 2
    return image[:, :, top : top + high, left : left + wide]


def style_sides(short: int, long: int, size: int, multiple: int) -> tuple[int, int]:
    """Return the sides at which the style encoder sees a picture of these sides, the shorter about `size`."""
    largest = MAX_MEMORY * MERGED_PATCH**2
    first = min(max(multiple, round(size / multiple) * multiple), int(largest**0.5) // multiple * multiple)
    second = max(first, round(first * long / short / multiple) * multiple)
    return first, min(second, largest // first // multiple * multiple)
