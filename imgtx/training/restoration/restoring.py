"""The objective of networks from images to images: restoration, enlargement, filling holes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgtx.imageops.metrics import psnr_y
from imgtx.inference.predictor import Predictor
from imgtx.models.info import ModelInfo
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weights import Model, Network
from imgtx.training.data.crops import Batch
from imgtx.training.data.device_feed import DeviceBatch
from imgtx.training.data.pairs import Pair
from imgtx.training.log import STRIP, ValidationSample, draw_strip
from imgtx.training.objective import autocast
from imgtx.training.restoration.losses import LOSSES
from imgtx.training.spec import TrainSpec


class Restoring:
    """Learns the clean side of pairs; scored by PSNR-Y through the code that runs in production."""

    def __init__(self, spec: TrainSpec):
        self.spec = spec

    def network(self) -> EncoderDecoder:
        return EncoderDecoder(self.spec.config)

    def facts(self) -> ModelInfo:
        spec = self.spec
        return ModelInfo(
            name=spec.name,
            task=spec.task,
            scale=spec.scale,
            in_channels=spec.config.in_channels,
            masks=spec.config.holes,
            multiple=spec.config.multiple,
            halo=2 * spec.config.multiple,
            licence=spec.licence,
        )

    def loss(
        self, compute: Callable[..., Tensor], batch: Batch | DeviceBatch, step: int, device: str
    ) -> Tensor:
        inputs, target = to_floats(batch.small, device), to_floats(batch.clean, device)
        with autocast(self.spec.precision, device):
            output = compute(inputs)
        return LOSSES[self.spec.loss](output.float(), target)

    def score(
        self, network: Network, info: ModelInfo, valid: Sequence[Pair], folder: Path, device: str
    ) -> dict[str, float]:
        predictor = Predictor(Model(network, info, ""), device=device)
        images = validation_samples(predictor, valid)
        draw_strip(images).save(folder / STRIP)
        return {"valid_psnr_y": mean_psnr(images)}


def validation_samples(predictor: Predictor, pairs: Sequence[Pair]) -> list[ValidationSample]:
    """Run the model on every pair."""
    if predictor.info.masks:
        whole = [(pair, pair.small[..., :-1], pair.small[..., -1]) for pair in pairs]
        return [ValidationSample(small, predictor(small, mask), pair.clean) for pair, small, mask in whole]
    return [ValidationSample(pair.small, predictor(pair.small), pair.clean) for pair in pairs]


def mean_psnr(images: Sequence[ValidationSample]) -> float:
    """Return the mean PSNR-Y in dB of uint8 output against the clean images, `scale` border pixels cropped."""
    return float(
        np.mean([psnr_y(i.output, i.clean, crop=i.clean.shape[0] // i.small.shape[0]) for i in images])
    )


def to_floats(batch: np.ndarray | Tensor, device: str) -> Tensor:
    """Convert levels of 255, (B, H, W, C), to float32 (B, C, H, W) in [0, 1]; uint8 is converted on the device."""
    levels = torch.as_tensor(batch).to(device, non_blocking=True)
    return levels.permute(0, 3, 1, 2).float() / 255
