"""The noise estimate recovers a known level."""

import numpy as np
import pytest

from imgtx.imageops.noise import noise_level
from tests.support.zoo import photo


@pytest.mark.parametrize("sigma", [5, 15, 50])
def test_the_level_of_added_noise_is_estimated(sigma):
    flat = 127 + np.random.default_rng(0).normal(0, sigma, (200, 300, 3))
    assert noise_level(flat.clip(0, 255).round().astype(np.uint8)) == pytest.approx(sigma, rel=0.06)
    deep = (flat.clip(0, 255) * 257).round().astype(np.uint16)
    assert noise_level(deep) == pytest.approx(sigma, rel=0.06)


def test_edges_and_gradients_are_not_noise():
    assert noise_level(photo(200, 300)) < 1
    assert noise_level(photo(1, 9)) == 0
