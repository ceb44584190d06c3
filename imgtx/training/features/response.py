"""What a feature network that was just built answers to a known image, against what the tested one answered."""

from collections.abc import Mapping

import torch
from torch import Tensor

from imgtx.errors import UsageError

TOLERANCE = 1e-3


def known_image() -> Tensor:
    """Return (1, 3, 64, 64) in [0, 1]: waves of three directions."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = [torch.sin(x / 3), torch.sin(y / 5), torch.sin((x + y) / 7)]
    return (0.5 + 0.5 * torch.stack(waves))[None]


def check_response(name: str, measured: Mapping[str, float], expected: Mapping[str, float]) -> None:
    """Raise UsageError where a number differs from the expected one by more than a thousandth of it."""
    for layer, value in measured.items():
        if abs(value / expected[layer] - 1) > TOLERANCE:
            raise UsageError(
                f"the {name} just built answers {value:.4f} at {layer}, expected {expected[layer]:.4f}: "
                f"its weights were read wrongly; report this"
            )
