"""sRGB by numbers: its curve and primaries, and the ways to and from XYZ. IEC 61966-2-1, and Bradford's adaptation."""

import numpy as np

# White, red, green and blue (x, y) in 1/100,000.
SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
# The XYZ of the white that profiles are relative to.
ICC_WHITE = np.array([0.9642, 1.0, 0.8249])
# Bradford's cone responses, by which white points are exchanged.
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_light(levels: np.ndarray) -> np.ndarray:
    """Return the light of sRGB's levels, both as shares of the highest."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def srgb_light_of_xyz(white: np.ndarray) -> np.ndarray:
    """Return the matrix from XYZ under that `white` to the light of sRGB, white to white (Bradford)."""
    target, target_white = to_xyz(SRGB_PRIMARIES)
    return np.linalg.inv(target) @ adapted(white, target_white)


def adapted(white: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the matrix of XYZ that takes one white to another (Bradford)."""
    return np.linalg.inv(_CONES) @ np.diag((_CONES @ target) / (_CONES @ white)) @ _CONES


def to_xyz(primaries: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix from linear RGB to XYZ, and white's XYZ."""
    points = np.array(primaries, float).reshape(4, 2) / 100_000
    white, *colours = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in points.tolist())
    matrix = np.stack(colours, axis=1)
    return matrix * np.linalg.solve(matrix, white), white
