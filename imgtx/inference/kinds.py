"""Choose the kind of predictor by what a model is for."""

from typing import Any

import torch

from imgtx.inference.generator import Generator
from imgtx.inference.predictor import Predictor
from imgtx.inference.self_ensemble import SelfEnsemble
from imgtx.inference.stylist import Stylist
from imgtx.models.contract import ImageModel
from imgtx.models.weight_file import STYLE_TASK


def predictor_for(
    model: ImageModel,
    *,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    conditions: dict[str, Any] | None = None,
) -> Predictor:
    """Return a `Stylist` for a model that transfers style, a `Generator` for text-to-image, else a `Predictor`."""
    kind: type[Predictor] = Predictor
    if model.info.task == STYLE_TASK:
        kind = Stylist
    elif model.info.generation and not isinstance(model, SelfEnsemble):
        kind = Generator
    return kind(model, device=device, precision=precision, conditions=conditions)
