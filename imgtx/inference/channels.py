"""Images of one or three channels through models of one, three or four, and back.

    image     model   what the model sees                      what comes back
    grey      grey    the image                                its output
    grey      RGB     three equal channels                     BT.601 luma of its output
    grey      RGBA    three equal channels, opaque             BT.601 luma of its first three channels
    RGB       RGB     the image                                its output
    RGB       RGBA    the image, opaque                        the first three channels of its output
    RGB       grey    each channel as an image of its own      the three outputs

An image's own alpha never goes through a model: it is always enlarged by bicubic. The colours that it hides do not
either (`imgtx.imageops.hidden`). RGB of three equal channels goes as grey through models that add no colour
(`ModelInfo.keeps_grey`), and comes back in three equal channels: as RGB a black-and-white photo would come back tinted.

Shape legend: B images, C an image's channels, M a model's, H and W pixels.
"""

import torch
from torch import Tensor

from imgtx.imageops.luma import LUMA


def fits(image: int, model: int) -> bool:
    """Return whether images of so many channels go through a model of so many."""
    return image in (1, 3) and model in (1, 3, 4)


def to_model(batch: Tensor, model: int) -> Tensor:
    """Make (B, M, H, W) of (B, C, H, W) in [0, 1], or (3 B, 1, H, W) where RGB meets a grey model."""
    count, image, height, width = batch.shape
    if image == 3 and model == 1:
        return batch.reshape(3 * count, 1, height, width)
    if image == 1 and model > 1:
        batch = batch.expand(-1, 3, -1, -1).contiguous()
    if model == 4:
        batch = torch.cat([batch, torch.ones_like(batch[:, :1])], 1)
    return batch


def from_model(output: Tensor, image: int) -> Tensor:
    """Invert `to_model`: a model's output for images of `image` channels to (B, C, s H, s W)."""
    if image == 3 and output.shape[1] == 1:
        return output.reshape(-1, 3, *output.shape[2:])
    if image == 1 and output.shape[1] > 1:
        return (output[:, :3] * output.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return output[:, :3]
