"""Tiles that fade into each other: those that agree come out as they are, others without a step."""

import numpy as np
import pytest

from imgtx.imageops.geometry import Tile
from imgtx.inference.blending import Blender, blend, shares
from imgtx.inference.tiling import plan, split


@pytest.mark.parametrize(("height", "width"), [(100, 70), (33, 200), (5, 9), (64, 64), (65, 129)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_that_agree_come_out_as_they_are(height: int, width: int, dtype: type):
    image = np.random.default_rng(0).integers(
        0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True
    )
    cut = plan(height, width, tile=32, halo=6, multiple=4)
    enlarged = split(image, cut).repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(blend(enlarged, cut, 2), image.repeat(2, axis=0).repeat(2, axis=1))


def test_bands_partition_the_output():
    cut = plan(101, 60, tile=32, halo=6, multiple=4)
    blender, covered = Blender(cut, 2), np.zeros((202, 120), int)
    for _ in range(cut.count):
        for place, pixels in blender.add(np.zeros((2 * cut.tile_height, 2 * cut.tile_width, 3), np.uint8)):
            assert pixels.shape == (place.height, place.width, 3)
            assert isinstance(place, Tile)
            covered[place.top : place.bottom, place.left : place.right] += 1
    assert (covered == 1).all()


def test_tiles_that_differ_fade_into_each_other():
    cut = plan(32, 52, tile=32, halo=6, multiple=4)
    assert cut.count == 2
    tiles = np.zeros((2, 32, 32, 1), np.uint8)
    tiles[1] = 200
    row = blend(tiles, cut, 1)[0, :, 0].astype(int)
    steps = np.diff(row)
    assert (row[0], row[-1]) == (0, 200)
    assert steps.min() >= 0
    assert steps.max() <= 200 / 12 + 1


def test_shares_add_up_to_one_where_three_tiles_overlap():
    total = np.zeros(40)
    for start, share in zip((0, 9, 20), shares((0, 9, 20), 20, 40, 1), strict=True):
        total[start : start + 20] += share
    np.testing.assert_allclose(total, 1, atol=1e-6)
