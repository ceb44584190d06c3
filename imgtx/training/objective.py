"""What one kind of training differs in: its network, its loss, and how the network is scored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imgtx.models.info import ModelInfo
from imgtx.models.weights import Network


class Objective(Protocol):
    """One kind of training. The loop, its state and its checkpoints know no more of a network than this."""

    def network(self) -> Network:
        """Return a new network; its weights come from torch's generator."""

    def facts(self) -> ModelInfo:
        """Return what the weight file says, without the record of the training."""

    def loss(self, compute: Callable[..., Tensor], batch: Any, step: int, device: str) -> Tensor:
        """Return the mean loss of a batch. compute: the network, wrapped or compiled."""

    def score(
        self, network: Network, info: ModelInfo, valid: Sequence[Any], folder: Path, device: str
    ) -> dict[str, float]:
        """Measure the averaged weights; leave a picture of samples in `folder`. The first name is the curve's."""


def autocast(precision: str, device: str) -> torch.autocast:
    """Return the context in which a training of this precision computes."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")
