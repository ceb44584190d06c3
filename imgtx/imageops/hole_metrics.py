"""How close a filled hole is to what was there: PSNR, SSIM, L1 of the hole alone, and how sharp it is (numpy only)."""

import numpy as np

from imgtx.errors import UsageError
from imgtx.imageops.metrics import PEAK, ssim_map


def hole_scores(output: np.ndarray, clean: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """Of (H, W, 3) uint8 images and (H, W) bool, over the hole's pixels and all channels.

    `psnr` in dB, peak 255; `ssim` the mean over windows whose middle is in the hole (`imgtx.imageops.metrics.ssim`); `l1` in
    levels; `spectrum` the energy of the discrete Laplacian in the hole, the output's over the original's: 1 as sharp
    as the original, 0 without any detail. Raises UsageError for a hole of no pixel.
    """
    if not hole.any():
        raise UsageError("hole_scores was given a mask without a hole; legal is one pixel or more")
    error = output.astype(np.float64)[hole] - clean.astype(np.float64)[hole]
    similarity, reach = ssim_map(output, clean)
    middles = hole[reach : hole.shape[0] - reach, reach : hole.shape[1] - reach]
    return {
        "psnr": float(10 * np.log10(PEAK**2 / max(np.mean(error**2), 1e-9))),
        "ssim": float(similarity[middles].mean()) if middles.any() else float("nan"),
        "l1": float(np.abs(error).mean()),
        "spectrum": _detail(output, hole) / max(_detail(clean, hole), 1e-9),
    }


def _detail(image: np.ndarray, hole: np.ndarray) -> float:
    """Mean square of the Laplacian over the hole's pixels that are not at the border."""
    levels = image.astype(np.float64)
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    laplacian = (around - 4 * levels[1:-1, 1:-1])[hole[1:-1, 1:-1]]
    return float(np.mean(laplacian**2)) if laplacian.size else 0.0
