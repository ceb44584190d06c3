"""Procedural images depend on the generator's state alone; they have edges and flat regions, at any size."""

import numpy as np
import pytest

from imgtx.degradations.dead_leaves import dead_leaves


@pytest.mark.parametrize("shape", [(64, 64), (33, 70), (8, 8)])
def test_an_image_depends_on_the_generator_state_alone(shape):
    one, again, other = (dead_leaves(np.random.default_rng(seed), *shape) for seed in (1, 1, 2))
    assert one.shape == (*shape, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_images_have_contrast_edges_and_colour():
    pictures = [dead_leaves(np.random.default_rng(seed), 96, 96).astype(float) for seed in range(6)]
    for picture in pictures:
        assert picture.std() > 25
        slopes = np.abs(np.diff(picture[..., 1], axis=1))
        # Edges beside flat regions.
        assert np.quantile(slopes, 0.99) > 5 * np.median(slopes)
    assert np.mean([np.abs(p[..., 0] - p[..., 2]).mean() for p in pictures]) > 5


def test_neighbouring_pixels_correlate_as_in_photographs():
    """Power-law radii: correlation falls slowly with distance, at every scale."""
    picture = dead_leaves(np.random.default_rng(3), 256, 256)[..., 1].astype(float)
    picture -= picture.mean()

    def correlation(distance: int) -> float:
        return float((picture[:, distance:] * picture[:, :-distance]).mean() / picture.var())

    near = [correlation(distance) for distance in (1, 2, 8, 32)]
    assert near[0] > 0.6
    assert near == sorted(near, reverse=True)
