"""Pictures of one or three channels through models of one, three or four, and back.

    picture   model   what the model sees                      what comes back
    grey      grey    the picture                              its output
    grey      RGB     three equal channels                     BT.601 luma of its output
    grey      RGBA    three equal channels, opaque             BT.601 luma of its first three channels
    RGB       RGB     the picture                              its output
    RGB       RGBA    the picture, opaque                      the first three channels of its output
    RGB       grey    each channel as a picture of its own     the three outputs

A picture's own alpha never goes through a model: it is enlarged by bicubic, whatever the model takes.

Shape legend: B pictures, C a picture's channels, M a model's, H and W pixels.
"""

import torch
from torch import Tensor

# BT.601 luma, in which the papers measure; a neutral grey keeps its value.
LUMA = (0.299, 0.587, 0.114)


def fits(picture: int, model: int) -> bool:
    """Whether pictures of so many channels go through a model of so many."""
    return picture in (1, 3) and model in (1, 3, 4)


def to_model(batch: Tensor, model: int) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, M, H, W), or (3 B, 1, H, W) where RGB meets a grey model."""
    count, picture, height, width = batch.shape
    if picture == 3 and model == 1:
        return batch.reshape(3 * count, 1, height, width)
    if picture == 1 and model > 1:
        batch = batch.expand(-1, 3, -1, -1).contiguous()
    if model == 4:
        batch = torch.cat([batch, torch.ones_like(batch[:, :1])], 1)
    return batch


def from_model(output: Tensor, picture: int) -> Tensor:
    """The inverse: what a model made of pictures with `picture` channels -> (B, C, s H, s W)."""
    if picture == 3 and output.shape[1] == 1:
        return output.reshape(-1, 3, *output.shape[2:])
    if picture == 1 and output.shape[1] > 1:
        return (output[:, :3] * output.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return output[:, :3]
