"""What the text-to-image network is trained for: to find the picture in a mixture of it and noise.

The network predicts the picture, and the loss is that of velocities: the error of the picture divided by what is left
of the way (Li and He, JiT, arXiv 2511.13720). Times are logit-normal (Esser et al., arXiv 2403.03206, section 3.1),
with more of them near noise, where the layout is decided.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# What is left of the way near its end, so that the loss stays finite.
LEAST_REST = 0.05


@dataclass(frozen=True)
class TextToImageObjective:
    """The loss of a batch of captioned pictures.

    time_mean, time_spread: of the logit of times. drop: the share of captions that are replaced by the empty one, which
    guidance needs.
    """

    time_mean: float = -1.7
    time_spread: float = 1.2
    drop: float = 0.1

    def __call__(
        self,
        network: Callable[..., Tensor],
        pictures: Tensor,
        tokens: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss of each picture: (B, 3, S, S) in [0, 1] and (B, T) token numbers, padded -> (B,).

        network: an `imgtx.models.text_to_image.TextToImage`, which may be wrapped or compiled.
        """
        count, device = len(pictures), pictures.device
        draw = torch.randn((count,), generator=generator)
        noise = torch.randn(pictures.shape, generator=generator).to(device)
        dropped = (torch.rand((count,), generator=generator) < self.drop).to(device)
        time = torch.sigmoid(self.time_mean + self.time_spread * draw).to(device)
        clean = 2 * pictures - 1
        share = time[:, None, None, None]
        # The first token is in every prompt: the empty one is that alone.
        tokens = torch.cat([tokens[:, :1], tokens[:, 1:].masked_fill(dropped[:, None], 0)], 1)
        predicted = network(share * clean + (1 - share) * noise, time, tokens)
        error = (predicted.float() - clean).square().mean((1, 2, 3))
        return error / (1 - time).clamp(min=LEAST_REST).square()
