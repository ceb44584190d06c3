"""What training needs beside the optimizer: a schedule and an average of the weights."""

import math

import torch
from torch import nn


def learning_rate(progress: float, *, peak: float, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Linear warm-up over the first `warmup` share of training, then a cosine from `peak` to `floor * peak`.

    `progress` is the share of training that is done, in [0, 1].
    """
    if progress < warmup:
        return peak * max(progress, 0.01 * warmup) / warmup
    phase = (progress - warmup) / (1 - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(phase, 1.0))))


class WeightAverage:
    """Exponential moving average of a network's floating-point state (Polyak averaging).

    The decay grows with the number of steps, min(decay, (1 + n) / (10 + n)), so that the first weights fade.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.state = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        now = network.state_dict()
        kept = [name for name, tensor in now.items() if tensor.is_floating_point()]
        # one call for all of them: on a GPU each call of its own would cost more than its arithmetic
        torch._foreach_lerp_([self.state[n] for n in kept], [now[n] for n in kept], 1 - decay)
        for name in now.keys() - kept:
            self.state[name].copy_(now[name])
