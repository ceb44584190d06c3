"""The losses that a training spec may name, of (B, C, H, W) in [0, 1]."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# A lower value gains nothing: 50 dB is finer than 8 bits show.
MIN_SQUARE_ERROR = 1e-5


def negative_psnr(output: Tensor, target: Tensor) -> Tensor:
    """Return minus the PSNR in dB, averaged over the crops of (B, C, H, W) in [0, 1].

    Each crop counts by how much better it becomes, not by how bad it is: weak damage as much as strong. Source: Chen
    et al., Simple Baselines for Image Restoration (2022), with a floor so that perfect crops do not pull.
    """
    return 10 * torch.log10((output - target).square().mean((1, 2, 3)) + MIN_SQUARE_ERROR).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "psnr": negative_psnr,
}
