"""Tests of measure_halo with models whose reach is known to the pixel."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from imgtx.errors import UsageError
from imgtx.models.info import ModelInfo
from imgtx.probing.halo import measure_halo


class Box:
    """x2 enlargement of a mean over (2 reach + 1)^2 pixels: sees exactly `reach` pixels far."""

    def __init__(self, reach: int):
        self.reach = reach
        self.info = ModelInfo("box", "super-resolution", scale=2, multiple=8, halo=0)

    def prepare(self, conditions):
        return None

    def __call__(self, batch: torch.Tensor, state) -> torch.Tensor:
        side = 2 * self.reach + 1
        padded = functional.pad(batch, [self.reach] * 4)
        mean = functional.avg_pool2d(functional.avg_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)
        return functional.interpolate(mean, scale_factor=2.0)


def photo(seed: int = 0, size: tuple[int, int] = (203, 181)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize(("reach", "halo"), [(1, 4), (4, 4), (8, 8), (9, 12), (20, 20)])
def test_the_smallest_halo_that_covers_the_reach_is_found(reach, halo):
    # Black and white, so that even one missing row of a wide box exceeds the tolerance.
    images = [np.where(photo(seed) > 127, 255, 0).astype(np.uint8) for seed in (0, 1)]
    report = measure_halo(Box(reach), images, candidates=[24, 4, 8, 20, 12, 16])
    measured = [d.halo for d in report.differences]
    assert measured == [4, 8, 12, 16, 20, 24][: len(measured)]
    # Larger halos are not measured: no difference is left.
    assert measured[-2:] == [halo, halo + 4]
    by_halo = {d.halo: d for d in report.differences}
    assert report.halo == halo
    assert by_halo[halo].as_float < 1e-6
    assert by_halo[halo].as_uint8 == 0


def test_candidates_that_are_too_small_give_none_and_the_deviation():
    report = measure_halo(Box(20), [photo()], candidates=[0, 8])
    assert report.halo is None
    assert report.differences[0].as_float > report.differences[1].as_float > 1 / 255
    assert report.differences[0].as_uint8 > 1
    assert not report.differences[1].within


def test_the_image_with_the_largest_deviation_decides():
    flat = np.full((203, 181, 3), 0, np.uint8)
    report = measure_halo(Box(9), [flat, photo(), flat], candidates=[8, 16])
    assert report.differences[0].image == 1
    assert report.halo == 16


def test_invalid_arguments_are_one_sentence():
    with pytest.raises(UsageError, match="no image"):
        measure_halo(Box(1), [])
    with pytest.raises(UsageError, match=r"\[13\]"):
        measure_halo(Box(1), [photo()], candidates=[8, 13])
    with pytest.raises(UsageError, match="uint8"):
        measure_halo(Box(1), [photo().astype(np.float32)])
    with pytest.raises(UsageError, match="64x64"):
        measure_halo(Box(1), [photo(size=(64, 64))])
