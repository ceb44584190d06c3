"""How training changes weights: optimizers, the learning rate's schedule, an average of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from imgtx.inference.processor import this_processor
from imgtx.training.muon import Float32Muon

BETAS = (0.9, 0.99)


def adamw(parameters: Iterable[Tensor], *, rate: float, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=rate, betas=BETAS, weight_decay=weight_decay, fused=True)


class MuonAdamW:
    """Muon for the matrices of linear layers, AdamW for everything else, as one optimizer.

    Muon replaces a matrix's averaged gradient by the nearest orthogonal one, so that no direction dominates the update;
    its length is scaled to what AdamW's usually is, so that both use one learning rate. Convolutions and the
    attention's position biases stay with AdamW: they do not map features to features. Source: Jordan et al., Muon
    (2024); Liu et al., Muon is Scalable for LLM Training (arXiv 2502.16982), section 2.2, for the scale.
    """

    def __init__(self, network: nn.Module, *, rate: float, weight_decay: float):
        matrices = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
        known = set(map(id, matrices))
        others = [p for p in network.parameters() if id(p) not in known]
        here = this_processor() if next(network.parameters()).device.type == "cpu" else None
        # Torch's computes in bfloat16: 2.7 s instead of 0.12 for style's matrices where the processor emulates it.
        muon = Float32Muon if here and "bfloat16" in here.emulated else torch.optim.Muon
        self.parts = (
            muon(matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            adamw(others, rate=rate, weight_decay=weight_decay),
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, kept in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(kept)


def optimizer_of(
    network: nn.Module, name: str, *, rate: float, weight_decay: float
) -> torch.optim.AdamW | MuonAdamW:
    """Return the optimizer that a training spec calls `name`: "adamw" or "muon"."""
    if name == "muon":
        return MuonAdamW(network, rate=rate, weight_decay=weight_decay)
    return adamw(network.parameters(), rate=rate, weight_decay=weight_decay)


def learning_rate(
    progress: float, *, peak: float, constant_share: float = 0.0, warmup: float = 0.02, floor: float = 0.01
) -> float:
    """Linear warm-up over the first `warmup` share of training, then a cosine from `peak` to `floor * peak`.

    Between them it stays at `peak` for the share `constant_share` (Hägele et al. 2024, arXiv:2405.18392: as good as a
    cosine over all of it, and the plateau may be made longer on the way). `progress` is the share of training that is
    done, in [0, 1].
    """
    if progress < warmup:
        return peak * max(progress, 0.01 * warmup) / warmup
    phase = (progress - warmup - constant_share) / (1 - warmup - constant_share)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(max(phase, 0.0), 1.0))))


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
        # One call for all tensors: on a GPU a call per tensor would cost more than its arithmetic.
        torch._foreach_lerp_([self.state[n] for n in kept], [now[n] for n in kept], 1 - decay)
        for name in now.keys() - kept:
            self.state[name].copy_(now[name])
