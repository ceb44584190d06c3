"""Small random checkpoints in the formats of third-party models, one per architecture, built by the tests.

Initial weights of networks hardly use their context; here they are larger, so that a tile cut in the wrong
place shows.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imgtx.models.adapters.spandrel import import_spandrel

SWIN: dict[str, Any] = {"img_size": 16, "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4}
SWIN |= {"mlp_ratio": 2, "upscale": 2, "upsampler": "pixelshuffle"}
GREY = {"in_nc": 1, "out_nc": 1, "nc": 8, "act_mode": "R"}

# name -> (spandrel's architecture, its arguments)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "SwinIR": ("SwinIR", SWIN),
    "SwinIR-1x": ("SwinIR", SWIN | {"upscale": 1, "upsampler": ""}),
    "Swin2SR": ("Swin2SR", SWIN),
    "HAT": ("HAT", SWIN | {"compress_ratio": 3, "squeeze_factor": 4, "num_feat": 8}),
    "DAT": (
        "DAT",
        {"img_size": 16, "embed_dim": 16, "split_size": [2, 4], "depth": [2], "num_heads": [2], "upscale": 2},
    ),
    "ATD": ("ATD", SWIN | {"category_size": 16, "num_tokens": 8, "reducted_dim": 4}),
    "DRCT": ("DRCT", SWIN | {"gc": 4}),
    "SCUNet": ("SCUNet", {"in_nc": 3, "config": [1] * 7, "dim": 64, "input_resolution": 64}),
    "DnCNN": ("DnCNN", GREY | {"in_nc": 3, "out_nc": 3}),
    "DnCNN-grey": ("DnCNN", GREY),
    "DRUNet": ("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [4, 8, 8, 8], "nb": 4}),
    "ESRGAN": ("ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 4}),
    "ESRGAN-alpha": ("ESRGAN", {"in_nc": 4, "out_nc": 4, "num_filters": 8, "num_blocks": 1, "scale": 2}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}),
    "Compact": ("Compact", {"num_feat": 8, "num_conv": 2, "upscale": 2}),
    "RCAN": (
        "RCAN",
        {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "reduction": 4},
    ),
    "SAFMN": ("SAFMN", {"dim": 16, "n_blocks": 1, "upscaling_factor": 2}),
    "PLKSR": ("PLKSR", {"dim": 16, "n_blocks": 1, "upscaling_factor": 2}),
}


def network(name: str) -> nn.Module:
    """Return the architecture with weights that are always the same."""
    import_spandrel()
    kind, arguments = ARCHITECTURES[name]
    make: Callable[..., nn.Module] = getattr(importlib.import_module(f"spandrel.architectures.{kind}"), kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = make(**arguments).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)
    return made


def save(name: str, folder: Path, suffix: str = ".pth") -> Path:
    """Save the architecture's state dict as its community would publish it."""
    path = folder / f"{name}{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({n: t.clone().contiguous() for n, t in network(name).state_dict().items()}, path)
    else:
        torch.save({"params_ema": network(name).state_dict()}, path)
    return path
