"""How close two images are: PSNR and SSIM by the protocols of the papers, of whole images and of holes (numpy only).

Super-resolution tables compare the luma of uint8 images without a border of `scale` pixels (`psnr_y`, `ssim_y`);
denoising and JPEG tables compare RGB on the whole image (`psnr`); inpainting is compared in the hole (`hole_scores`).
"""

import math

import numpy as np

from imgtx.errors import UsageError

PEAK = 255.0
_SSIM_TAPS = 11
_SSIM_SIGMA = 1.5


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Convert to luma of BT.601 studio swing, not rounded.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255.

    Args:
        image: (H, W, 3) in the range 0..255, any dtype; or grey, (H, W) or (H, W, 1).

    Returns:
        (H, W) float64 in 16..235; a grey image comes back as it is, 0..255, because the published bicubic rows
        compare it so (Set14 has one). Taken as R = G = B its PSNR would be 20 log10(255 / 219) = 1.32 dB higher.

    Raises:
        UsageError: another shape.

    Source: ITU-R BT.601; the coefficients of MATLAB's `rgb2ycbcr`, left as float like the published tables.
    """
    image = np.asarray(image, np.float64)
    if image.ndim == 2 or image.shape[-1] == 1:
        return image.reshape(image.shape[:2])
    if image.ndim != 3 or image.shape[-1] != 3:
        raise UsageError(
            f"rgb_to_y: an array of shape {image.shape}, expected (H, W, 3), (H, W, 1) or (H, W): "
            "pass one RGB or grey image"
        )
    return 16.0 + image @ (np.array([65.481, 128.553, 24.966]) / 255.0)


def psnr(a: np.ndarray, b: np.ndarray, *, crop: int = 0) -> float:
    """Return the peak signal-to-noise ratio in dB over all samples, peak 255; infinite for equal images.

    Args:
        a, b: arrays of one shape, (H, W) or (H, W, C), range 0..255, any dtype.
        crop: pixels left out at each border.

    Raises:
        UsageError: shapes differ, or nothing is left after the crop.
    """
    a, b = _pair(a, b, crop)
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def psnr_y(a: np.ndarray, b: np.ndarray, *, crop: int) -> float:
    """Return the PSNR of the luma, the number of super-resolution tables; `crop` is the scale there.

    Arguments and errors are those of `psnr`; images are those that `rgb_to_y` takes.
    Source: the evaluation of EDSR (Lim et al., CVPRW 2017) and its successors.
    """
    return psnr(rgb_to_y(a), rgb_to_y(b), crop=crop)


def ssim(a: np.ndarray, b: np.ndarray, *, crop: int = 0) -> float:
    """Return the mean structural similarity, at most 1.

    Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, peak 255. Only windows wholly inside the image count. Colour
    images give the mean over channels.

    Args:
        a, b: arrays of one shape, (H, W) or (H, W, C), range 0..255, any dtype.
        crop: pixels left out at each border; at least 11 pixels a side must remain.

    Raises:
        UsageError: shapes differ, or less than one window is left after the crop.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004, and the authors' `ssim_index.m` without its later downsampling step.
    """
    a, b = _pair(a, b, crop)
    if min(a.shape[:2]) < _SSIM_TAPS:
        raise UsageError(
            f"ssim: {a.shape[0]}x{a.shape[1]} pixels remain after a crop of {crop}, expected at least "
            f"{_SSIM_TAPS}x{_SSIM_TAPS}, one window: use larger images"
        )
    return float(ssim_map(a, b)[0].mean())


def ssim_map(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the SSIM of each window inside two images of one shape, and the reach of a window.

    (H, W, ...) -> (H - 10, W - 10, ...) float64; `ssim` is its mean. The reach is the pixels of a window to each side
    of its middle.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return similarity, _SSIM_TAPS // 2


def ssim_y(a: np.ndarray, b: np.ndarray, *, crop: int) -> float:
    """Return the SSIM of the luma, the number of super-resolution tables; `crop` is the scale there.

    Arguments and errors are those of `ssim`; images are those that `rgb_to_y` takes.
    """
    return ssim(rgb_to_y(a), rgb_to_y(b), crop=crop)


def hole_scores(output: np.ndarray, clean: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """Score how close a filled hole is to what was there, over the hole's pixels and all channels.

    Args:
        output, clean: (H, W, 3) uint8.
        hole: (H, W) bool, true where the image was filled.

    Returns:
        `psnr` in dB, peak 255; `ssim`, the mean over windows whose middle is in the hole, nan if there is none; `l1`
        in levels of 255; `spectrum`, the energy of the discrete Laplacian in the hole, of the output over that of the
        original: 1 is as sharp as the original, 0 is without any detail.

    Raises:
        UsageError: the hole has no pixel.
    """
    if not hole.any():
        raise UsageError(
            "hole_scores: the mask has no hole, expected at least one pixel: give the image's mask"
        )
    error = output.astype(np.float64)[hole] - clean.astype(np.float64)[hole]
    similarity, reach = ssim_map(output, clean)
    middles = hole[reach : hole.shape[0] - reach, reach : hole.shape[1] - reach]
    return {
        "psnr": float(10 * np.log10(PEAK**2 / max(np.mean(error**2), 1e-9))),
        "ssim": float(similarity[middles].mean()) if middles.any() else float("nan"),
        "l1": float(np.abs(error).mean()),
        "spectrum": _detail(output, hole) / max(_detail(clean, hole), 1e-9),
    }


def _pair(a: np.ndarray, b: np.ndarray, crop: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise UsageError(
            f"metrics: shapes {a.shape} and {b.shape}, expected two images of one shape, (H, W) or (H, W, C): "
            "cut or resize one of them first"
        )
    height, width = a.shape[:2]
    if crop < 0 or min(height, width) <= 2 * crop:
        raise UsageError(
            f"metrics: crop={crop} for an image of {height}x{width}, expected 0 or more and less than half the "
            "shorter side: use a smaller crop or a larger image"
        )
    inside = (slice(crop, height - crop), slice(crop, width - crop))
    return a[inside], b[inside]


def _blur(image: np.ndarray) -> np.ndarray:
    """Return the Gaussian mean of each window inside the image: (H, W, ...) -> (H - 10, W - 10, ...)."""
    offsets = np.arange(_SSIM_TAPS) - _SSIM_TAPS // 2
    window = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window /= window.sum()
    for axis in (0, 1):
        length = image.shape[axis] - _SSIM_TAPS + 1
        cuts = (np.take(image, range(k, k + length), axis=axis) for k in range(_SSIM_TAPS))
        image = sum(w * cut for w, cut in zip(window, cuts, strict=True))
    return image


def _detail(image: np.ndarray, hole: np.ndarray) -> float:
    """Return the mean square of the Laplacian over the hole's pixels that are not at the border."""
    levels = image.astype(np.float64)
    around = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    laplacian = (around - 4 * levels[1:-1, 1:-1])[hole[1:-1, 1:-1]]
    return float(np.mean(laplacian**2)) if laplacian.size else 0.0
