"""Muon for processors that emulate bfloat16, where torch's own takes seconds a step."""

import torch
from torch import Tensor


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon`, which makes updates orthogonal in bfloat16, with float32 in its place.

    Its state is that of torch's, so that a training may move between processors; its scale is always
    `match_rms_adamw`. Sources: Jordan et al., Muon (2024); Liu et al., arXiv 2502.16982, section 2.2, for the scale.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here gives a closure
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
                update = orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return nearly the nearest matrix (M, N) with orthonormal rows or columns, by quintic Newton-Schulz steps."""
    a, b, c = coefficients
    found = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        square = found @ found.mT
        found = torch.addmm(found, torch.addmm(square, square, square, beta=b, alpha=c), found, beta=a)
    return found.mT if matrix.shape[0] > matrix.shape[1] else found
