"""The contract that every model keeps (`ImageModel`), and third-party networks adapted to it (`AdaptedModel`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imgtx.errors import ModelError
from imgtx.models.info import ModelInfo

# The context of a tile until it is measured how much it needs (`imgtx models probe`), in input pixels.
UNMEASURED_HALO = 32
# And its longest side, in input pixels. In float32 most networks take 1 to 14 kB per input pixel (ESRGAN x4 12,
# SwinIR-M x4 14, by imgtx.probing.probe.memory_of): tiles of 832 px, imgtx's own default beside this halo, would take
# 10 GB an actor; these take 2.
UNMEASURED_TILE = 384
# Channels of models that imgtx runs: grey, RGB, RGB with alpha.
CHANNELS = (1, 3, 4)


# Among an image's conditions: what `look_at` returned for it.
WHOLE_IMAGE = "whole_image"

# What one image is made under beside its pixels: a prompt, a seed. One mapping per image of a batch.
Conditions = Mapping[str, Any]


class ImageModel(Protocol):
    """What imgtx asks of a model, its own or anyone else's (`imgtx.models.weights.Model` is one)."""

    info: ModelInfo

    def prepare(self, conditions: dict[str, Any]) -> Any:
        """Compute once per job what every call needs (a style memory, say); None where there is nothing."""

    # A model that needs to know the whole image while it runs a tile of it also has
    #     look_at(pieces: Tensor, state: Any, row: Conditions) -> Any
    # which is called once per image, with (N, in_channels, H, W) of `imgtx.inference.whole_image`; every tile's row
    # then holds what it returned as WHOLE_IMAGE, and the tile's place as `top` and `left` in pixels.

    def __call__(self, batch: Tensor, state: Any, rows: Sequence[Conditions] = ()) -> Tensor:
        """Run (B, in_channels, H, W) float32 in [0, 1] to (B, out_channels, s H, s W) in [0, 1].

        H and W are multiples of `info.multiple`, `state` is what `prepare` returned. `rows` holds the conditions of
        each image of the batch, B of them. It is passed only to a job that gives conditions per image
        (`call_model`), so a model that knows none may take two arguments.
        """


def call_model(model: ImageModel, batch: Tensor, state: Any, rows: Sequence[Conditions]) -> Tensor:
    """Call `model` with `rows` only where there are any: most models take two arguments."""
    return model(batch, state, rows) if rows else model(batch, state)


class AdaptedModel(nn.Module):
    """Another library's network as `imgtx.inference.predictor` and the pipeline run it.

    `call` maps (B, in_channels, H, W) in [0, 1] to (B, out_channels, s H, s W), about in [0, 1]. `record` is what the
    adapter knows beyond the info, for `imgtx models show`.
    """

    def __init__(
        self,
        network: nn.Module,
        call: Callable[[Tensor], Tensor],
        info: ModelInfo,
        digest: str,
        record: dict[str, Any],
    ):
        super().__init__()
        self.network, self.info, self.digest, self.record = network, info, digest, record
        self._call_network = call

    def prepare(self, conditions: dict[str, Any] | None = None) -> None:
        """Return the state that is computed once per job: these models need none."""

    def forward(self, batch: Tensor, state: None = None) -> Tensor:
        """Run (B, C, H, W) in [0, 1], H and W multiples of info.multiple, to (B, C', s H, s W) in [0, 1]."""
        if self.info.batches or len(batch) == 1:
            return self._call_network(batch).clamp(0.0, 1.0)
        return torch.cat([self._call_network(image[None]) for image in batch]).clamp(0.0, 1.0)


def check_channels(given: int, returned: int, what: str) -> None:
    """Raise ModelError for a network that takes or returns no image, or one of another kind than it takes."""
    if given not in CHANNELS or returned not in CHANNELS or (given == 1) != (returned == 1):
        raise ModelError(
            f"{what} takes {given} channels and returns {returned}; imgtx runs models from grey to grey (1) and from "
            f"RGB to RGB (3, or 4 with alpha): choose another model"
        )
