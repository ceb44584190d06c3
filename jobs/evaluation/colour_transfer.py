"""Give a picture the colours of another in closed form: what style transfer must beat, for it changes no stroke."""

import numpy as np

# RGB to the cones' responses, and these, as logarithms, to one axis of lightness and two of colour (Reinhard et al.).
CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
OPPONENT = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
# Keeps the logarithm of black finite.
DARKEST = 1 / 255
# Keeps the covariance of a grey picture invertible.
LEAST_VARIANCE = 1e-6


def mean_and_deviation(image: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 with the mean and deviation of `style` on three opponent axes.

    Source: Reinhard et al., Color transfer between images, 2001.
    """
    own, wanted = opponent(image), opponent(style)
    moved = (own - own.mean(0)) / (own.std(0) + 1e-6) * wanted.std(0) + wanted.mean(0)
    cones = np.exp(moved @ np.linalg.inv(OPPONENT).T)
    return as_pixels(cones @ np.linalg.inv(CONES).T, image.shape)


def optimal_transport(image: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 with the mean and covariance of `style`, by the linear map that moves colours least.

    Source: Pitié and Kokaram, The linear Monge-Kantorovitch linear colour mapping, 2007.
    """
    own, wanted = (pixels.reshape(-1, 3) / 255.0 for pixels in (image, style))
    before, after = (np.cov(colours.T) + LEAST_VARIANCE * np.eye(3) for colours in (own, wanted))
    root = square_root(before)
    inverse = np.linalg.inv(root)
    change = inverse @ square_root(root @ after @ root) @ inverse
    return as_pixels((own - own.mean(0)) @ change.T + wanted.mean(0), image.shape)


def opponent(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H W, 3) on the opponent axes."""
    return np.log(np.maximum(image.reshape(-1, 3) / 255.0, DARKEST) @ CONES.T) @ OPPONENT.T


def square_root(matrix: np.ndarray) -> np.ndarray:
    """Return the root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def as_pixels(colours: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H W, 3) in [0, 1] -> (H, W, 3) uint8."""
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8).reshape(shape)
