"""Random convolutions, which see textures nearly as well as trained ones, and which no training can have fitted.

Source: He, Wang and Hopcroft, A powerful generative model using random weights (arXiv 1606.04801).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (32, 48, 64, 96)


class RandomFilters(nn.Module):
    """Maps (B, 3, H, W) in [0, 1] to activations (B, C, H', W') at full, half, quarter and eighth size. Frozen."""

    def __init__(self, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.convolutions = nn.ModuleList()
        before = 3
        for channels in CHANNELS:
            layer = nn.Conv2d(before, channels, 3, padding=1, padding_mode="reflect")
            nn.init.normal_(layer.weight, std=(2 / (9 * before)) ** 0.5, generator=generator)
            nn.init.normal_(layer.get_parameter("bias"), std=0.1, generator=generator)
            self.convolutions.append(layer)
            before = channels
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, found = 4 * (images - 0.5), []
        for number, layer in enumerate(self.convolutions):
            x = F.leaky_relu(layer(F.avg_pool2d(x, 2) if number else x), 0.1)
            found.append(x)
        return found
