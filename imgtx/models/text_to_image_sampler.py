"""From noise to a picture in a few evaluations of the network: DPM-Solver++(2M), and Heun to compare it with.

Both follow z = t x + (1 - t) e from t = 0, noise, to t = 1, the picture x that the network predicts
(`imgtx.models.text_to_image`).
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Maps noisy pictures (B, 3, S, S) and a time in [0, 1] to predicted pictures.
Predict = Callable[[Tensor, float], Tensor]
# From what predicts, noise and a number of steps to pictures: `dpm_solver` or `heun`.
Solver = Callable[[Predict, Tensor, int], Tensor]

# Guidance acts between these times only (Kynkäänniemi et al., arXiv 2404.07724): later, all that a prompt decides is
# decided. Flat areas average noise away, so that it is decided early.
GUIDANCE_INTERVAL = (0.0, 0.6)
# For the same reason steps are smaller near noise.
TIME_SHIFT = 3.0


def noise_of(seeds: Sequence[int], side: int) -> Tensor:
    """Standard normal noise (B, 3, S, S) on the CPU, each picture's from a generator of its own.

    So a seed gives the same noise in any batch and on any device.
    """
    rows = [torch.randn((3, side, side), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float | Tensor) -> Tensor:
    """Classifier-free guidance: from what no prompt gives through what the prompt gives, and on (Ho et al. 2022).

    guidance: 1 is the prompt alone; a number, or (B, 1, 1, 1).
    """
    return unconditional + guidance * (conditional - unconditional)


def times(steps: int, shift: float = TIME_SHIFT) -> list[float]:
    """Return steps + 1 times from 0 to 1. A shift over 1 takes smaller steps near 0, where the layout is decided."""
    even = [i / steps for i in range(steps + 1)]
    return [t / (t + shift * (1 - t)) for t in even]


def dpm_solver(predict: Predict, noise: Tensor, steps: int, begin: float = 0.0) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): `steps` evaluations, second order.

    `noise` is z at time `begin`. Returns pictures (B, 3, S, S), about in [-1, 1].
    """
    z = noise
    path = [begin + (1 - begin) * t for t in times(steps)]
    before: Tensor | None = None
    last_step = 0.0
    for now, then in itertools.pairwise(path):
        x = predict(z, now)
        step = log_ratio(then) - log_ratio(now)
        target = x
        # The first step has no history, and the last one ends at x itself.
        if before is not None and math.isfinite(step) and math.isfinite(last_step):
            target = x + step / (2 * last_step) * (x - before)
        z = (1 - then) / (1 - now) * z + (then - (1 - then) / (1 - now) * now) * target
        before, last_step = x, step
    return z


def heun(predict: Predict, noise: Tensor, steps: int, begin: float = 0.0) -> Tensor:
    """Heun's method on velocities (x - z) / (1 - t): 2 `steps` - 1 evaluations, second order; as `dpm_solver`."""
    z = noise
    path = [begin + (1 - begin) * t for t in times(steps)]
    for now, then in itertools.pairwise(path):
        slope = (predict(z, now) - z) / (1 - now)
        ahead = z + (then - now) * slope
        if then < 1:
            slope = (slope + (predict(ahead, then) - ahead) / (1 - then)) / 2
        z = z + (then - now) * slope
    return z


def log_ratio(time: float) -> float:
    """Return log(t / (1 - t)), half the logarithm of the signal-to-noise ratio: infinite at both ends."""
    if time <= 0:
        return -math.inf
    return math.inf if time >= 1 else math.log(time / (1 - time))
