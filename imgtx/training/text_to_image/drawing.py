"""The objective of text-to-image networks in the training loop, scored on prompts that training never draws."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgtx.models.info import ModelInfo
from imgtx.models.text_to_image import TextToImage
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.models.text_to_image_model import TextToImageModel
from imgtx.models.weight_file import TEXT_TASK
from imgtx.models.weights import Network
from imgtx.training.log import STRIP
from imgtx.training.objective import autocast
from imgtx.training.scenes.examination import Question, marks
from imgtx.training.text_to_image.feed import CaptionedBatch
from imgtx.training.text_to_image.objective import TextToImageObjective
from imgtx.training.text_to_image.spec import TextToImageSpec

# Pictures in a row of the sheet, pictures that are made at once.
COLUMNS, AT_ONCE = 8, 16


class DrawingFromText:
    """Learns captioned pictures. `config` has the vocabulary of their captions."""

    def __init__(self, spec: TextToImageSpec, config: TextToImageConfig):
        self.spec, self.config = spec, config
        self.objective = TextToImageObjective(spec.time_mean, spec.time_spread, spec.drop)

    def network(self) -> TextToImage:
        return TextToImage(self.config)

    def facts(self) -> ModelInfo:
        side = self.config.side
        return ModelInfo(
            name=self.spec.name, task=TEXT_TASK, scale=1, multiple=side, halo=0, licence=self.spec.licence
        )

    def loss(self, compute: Callable[..., Tensor], batch: CaptionedBatch, step: int, device: str) -> Tensor:
        pictures = torch.from_numpy(batch.pictures).to(device).permute(0, 3, 1, 2).float() / 255
        tokens = torch.from_numpy(batch.tokens).to(device)
        generator = torch.Generator().manual_seed(self.spec.seed * 10**9 + step)
        with autocast(self.spec.precision, device):
            return self.objective(compute, pictures, tokens, generator).mean()

    def score(
        self, network: Network, info: ModelInfo, valid: Sequence[Question], folder: Path, device: str
    ) -> dict[str, float]:
        assert isinstance(network, TextToImage)
        model = TextToImageModel(network.to(device), info, "").eval()
        made = []
        for start in range(0, len(valid), AT_ONCE):
            some = valid[start : start + AT_ONCE]
            made.append(model.sample([q.prompt for q in some], [q.seed for q in some]))
        pictures = np.concatenate(made)
        sheet(pictures).save(folder / STRIP)
        found = marks(list(pictures), [question.description for question in valid])
        return {"valid_attributes": found["attributes"], "valid_everything": found["everything"]}


def sheet(pictures: np.ndarray) -> Image.Image:
    """Put pictures (N, S, S, 3) into rows of COLUMNS, in their order."""
    missing = -len(pictures) % COLUMNS
    filled = np.concatenate([pictures, np.full((missing, *pictures.shape[1:]), 255, np.uint8)])
    rows = [np.concatenate(list(filled[i : i + COLUMNS]), axis=1) for i in range(0, len(filled), COLUMNS)]
    return Image.fromarray(np.concatenate(rows))
