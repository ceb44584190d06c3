"""How close two images are: PSNR and SSIM by the protocols of the papers (numpy only).

The super-resolution tables compare the luma of uint8 images without a border of `scale` pixels
(`psnr_y`, `ssim_y`); denoising and JPEG tables compare RGB on the whole image (`psnr`).
"""

import math

import numpy as np

from imgtx.errors import UsageError

PEAK = 255.0
_SSIM_TAPS = 11
_SSIM_SIGMA = 1.5


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Luma of BT.601 studio swing: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded.

    Args:
        image: (H, W, 3) in the range 0..255, any dtype; or grey, (H, W) or (H, W, 1).

    Returns:
        (H, W) float64 in 16..235; a grey image comes back as it is, 0..255, because the published bicubic
        rows compare it so (Set14 has one). Taken as R = G = B its PSNR would be 20 log10(255 / 219) = 1.32 dB
        higher.

    Source: ITU-R BT.601; the coefficients of MATLAB's `rgb2ycbcr`, left as float like the published tables.
    """
    image = np.asarray(image, np.float64)
    if image.ndim == 2 or image.shape[-1] == 1:
        return image.reshape(image.shape[:2])
    if image.ndim != 3 or image.shape[-1] != 3:
        raise UsageError(
            f"rgb_to_y was given an array of shape {image.shape}; legal is (H, W, 3), (H, W, 1) or (H, W): "
            f"pass one RGB or grey image"
        )
    return 16.0 + image @ (np.array([65.481, 128.553, 24.966]) / 255.0)


def psnr(a: np.ndarray, b: np.ndarray, *, crop: int = 0) -> float:
    """Peak signal-to-noise ratio in dB over all samples, peak 255; infinite for equal images.

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
    """PSNR of the luma, the number of super-resolution tables; `crop` is the scale there.

    Args and errors as `psnr`; images as `rgb_to_y` takes them.
    Source: the evaluation of EDSR (Lim et al., CVPRW 2017) and its successors.
    """
    return psnr(rgb_to_y(a), rgb_to_y(b), crop=crop)


def ssim(a: np.ndarray, b: np.ndarray, *, crop: int = 0) -> float:
    """Mean structural similarity, at most 1: Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, peak 255.

    Only windows that lie wholly inside the image count. Colour images give the mean over channels.

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
            f"ssim was given images of which {a.shape[0]}x{a.shape[1]} pixels remain after a crop of {crop}; "
            f"legal is {_SSIM_TAPS}x{_SSIM_TAPS} or more, one window: use larger images"
        )
    return float(ssim_map(a, b)[0].mean())


def ssim_map(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, int]:
    """SSIM of each window inside two equal images, and how many pixels a window reaches to each side of its middle.

    (H, W, ...) -> (H - 10, W - 10, ...) float64; `ssim` is its mean.
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
    """SSIM of the luma, the number of super-resolution tables; `crop` is the scale there.

    Args and errors as `ssim`; images as `rgb_to_y` takes them.
    """
    return ssim(rgb_to_y(a), rgb_to_y(b), crop=crop)


def _pair(a: np.ndarray, b: np.ndarray, crop: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise UsageError(
            f"a metric was given shapes {a.shape} and {b.shape}; legal are two images of one shape, "
            f"(H, W) or (H, W, C): cut or resize one of them first"
        )
    height, width = a.shape[:2]
    if crop < 0 or min(height, width) <= 2 * crop:
        raise UsageError(
            f"a metric was given crop={crop} for an image of {height}x{width}; legal is 0 up to less than "
            f"half the shorter side: use a smaller crop or a larger image"
        )
    inside = (slice(crop, height - crop), slice(crop, width - crop))
    return a[inside], b[inside]


def _blur(image: np.ndarray) -> np.ndarray:
    """Gaussian mean of each window inside the image: (H, W, ...) -> (H - 10, W - 10, ...)."""
    offsets = np.arange(_SSIM_TAPS) - _SSIM_TAPS // 2
    window = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window /= window.sum()
    for axis in (0, 1):
        length = image.shape[axis] - _SSIM_TAPS + 1
        cuts = (np.take(image, range(k, k + length), axis=axis) for k in range(_SSIM_TAPS))
        image = sum(w * cut for w, cut in zip(window, cuts, strict=True))
    return image
