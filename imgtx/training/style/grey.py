"""Grey images with equalised levels, on which strokes are compared: no colour and no contrast counts there."""

import torch
import torch.nn.functional as F
from torch import Tensor

from imgtx.imageops.luma import LUMA

# A level's slope is measured over so many shares of the pixels, and limited: even areas have very steep ones.
SHARES = 32
STEEPEST = 4.0


def equalised(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> the luma as (B, 3, H, W) in [0, 1], every level of an image as frequent as any other.

    The value of a pixel is its rank. It rises as the pixel becomes brighter than the pixels of nearly its level, so the
    gradient is that of their difference: what changes all of them alike, such as contrast, has none.
    """
    luma = (images.float() * images.new_tensor(LUMA)[:, None, None]).sum(1).flatten(1)  # B, N
    count = luma.shape[1]
    share = count // SHARES
    with torch.no_grad():
        ordered, order = luma.sort(dim=1)
        ranks = ((torch.arange(count, device=luma.device) + 0.5) / count).expand_as(luma)
        rise = ordered[:, share:] - ordered[:, :-share]
        rise = torch.cat([rise, rise[:, -1:].expand(-1, share)], 1)
        slopes = (1 / (SHARES * rise + 1e-6)).clamp(max=STEEPEST)
        rank = torch.empty_like(luma).scatter_(1, order, ranks)
    change = (luma - luma.detach()).gather(1, order)
    width = share | 1
    alike = F.avg_pool1d(change[:, None], width, 1, width // 2, count_include_pad=False)[:, 0]
    grey = rank + torch.empty_like(luma).scatter(1, order, slopes * (change - alike))
    return grey.unflatten(1, images.shape[2:])[:, None].expand(-1, 3, -1, -1)
