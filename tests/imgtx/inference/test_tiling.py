"""The geometry of tiling is exact: integers in, integers out, without tolerance."""

import math
import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtx.inference.tiling import (
    LARGEST_DEFAULT,
    MAX_HALO_SHARE,
    Plan,
    core_of,
    default_tile,
    largest_tile,
    merge,
    plan,
    plan_for_model,
    plan_of_equal_tiles,
    split,
    tile_of,
)
from imgtx.models.info import ModelInfo
from imgtx.models.weight_file import packaged_models, read_info

sizes = st.integers(1, 200)
exact = settings(max_examples=150)


@st.composite
def plans(draw, min_halo=lambda multiple: 0):
    multiple = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    halo = draw(st.integers(min_halo(multiple), min_halo(multiple) + 20))
    smallest = -(-2 * halo // multiple) * multiple + multiple
    tile = draw(st.tuples(*[st.integers(smallest, smallest + 80)] * 2))
    return plan(draw(sizes), draw(sizes), tile=tile, halo=halo, multiple=multiple)


def picture(cut: Plan, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (cut.height, cut.width, channels)).astype(np.uint16)


def padded(image: np.ndarray, multiple: int) -> np.ndarray:
    """Pad by numpy's reflection, the reference for imgtx's (it repeats the pixel of a 1-pixel axis)."""
    below, beside = (-side % multiple for side in image.shape[:2])
    return np.pad(image, ((0, below), (0, beside), (0, 0)), mode="reflect")


@exact
@given(plans())
def test_split_then_merge_is_the_identity(cut):
    image = picture(cut)
    tiles = split(image, cut)
    assert tiles.shape == (cut.count, cut.tile_height, cut.tile_width, 2)
    assert tiles.dtype == image.dtype
    np.testing.assert_array_equal(merge(tiles, cut, 1), image)


@exact
@given(plans())
def test_tiles_are_crops_of_the_reflection_padded_image(cut):
    image = picture(cut)
    whole = padded(image, cut.multiple)
    assert whole.shape[:2] == (cut.padded_height, cut.padded_width)
    for tile, array in zip(cut.tiles, split(image, cut), strict=True):
        np.testing.assert_array_equal(array, whole[tile.top : tile.bottom, tile.left : tile.right])


@exact
@given(plans())
def test_cores_partition_the_padded_image_and_keep_their_halo(cut):
    owners = np.zeros((cut.padded_height, cut.padded_width), int)
    for tile, core in zip(cut.tiles, cut.cores, strict=True):
        owners[core.top : core.bottom, core.left : core.right] += 1
        for origin in (tile.top, tile.left, tile.height, tile.width):
            assert origin % cut.multiple == 0
        assert core.top - tile.top >= cut.halo or core.top == tile.top == 0
        assert core.left - tile.left >= cut.halo or core.left == tile.left == 0
        assert tile.bottom - core.bottom >= cut.halo or core.bottom == tile.bottom == cut.padded_height
        assert tile.right - core.right >= cut.halo or core.right == tile.right == cut.padded_width
    assert (owners == 1).all()


@settings(deadline=None, max_examples=60)
@given(plans())
def test_a_tile_depends_on_its_window_alone(cut):
    """Pixels outside the window have no effect; every row and column of the window has one."""
    image = picture(cut)
    for index, tile in enumerate(split(image, cut)):
        window = cut.window(index)
        assert 0 <= window.top < window.bottom <= cut.height
        assert 0 <= window.left < window.right <= cut.width
        assert window.height <= cut.tile_height
        assert window.width <= cut.tile_width
        pixels = image[window.top : window.bottom, window.left : window.right]
        np.testing.assert_array_equal(tile_of(pixels, cut, index), tile)
        places = np.arange(window.height * window.width).reshape(window.height, window.width, 1)
        assert len(np.unique(tile_of(places, cut, index))) == places.size


@exact
@given(plans(), st.sampled_from([1, 2, 3, 4]))
def test_merge_places_the_cores_so_that_they_partition_the_output(cut, scale):
    tiles = np.random.default_rng(1).integers(
        0, 256, (cut.count, cut.tile_height * scale, cut.tile_width * scale, 1), np.uint8
    )
    whole = merge(tiles, cut, scale)
    owners = np.zeros(whole.shape[:2], int)
    for index, tile in enumerate(tiles):
        place, core = core_of(tile, cut, index, scale)
        assert core.base is not None
        assert core.shape == (place.height, place.width, 1)
        np.testing.assert_array_equal(core, whole[place.top : place.bottom, place.left : place.right])
        owners[place.top : place.bottom, place.left : place.right] += 1
    assert (owners == 1).all()


def window_model(image: np.ndarray, multiple: int, scale: int) -> np.ndarray:
    """Map integers (H, W, C) to (sH, sW, C): sums over windows, 3x3 sums with zeros outside, nearest enlargement.

    Like window attention it sees pixels at most `multiple` away and depends on where the windows are.
    """
    height, width, channels = image.shape
    windows = image.astype(np.int64).reshape(
        height // multiple, multiple, width // multiple, multiple, channels
    )
    pattern = np.arange(multiple**2).reshape(1, multiple, 1, multiple, 1)
    mixed = (windows.sum((1, 3), keepdims=True) + windows * (pattern + 1)).reshape(image.shape)
    edged = np.pad(mixed, ((1, 1), (1, 1), (0, 0)))
    boxed = sum(edged[y : y + height, x : x + width] * (3 * y + x + 1) for y in range(3) for x in range(3))
    subpixels = np.arange(scale**2).reshape(scale, scale)
    pattern = np.tile(subpixels, (height, width))[..., None]
    return boxed.repeat(scale, 0).repeat(scale, 1) * 100 + pattern


@settings(max_examples=80)
@given(plans(min_halo=lambda multiple: multiple), st.sampled_from([1, 2, 3, 4]))
def test_tiled_equals_untiled_exactly(cut, scale):
    image = picture(cut, channels=1)
    whole = window_model(padded(image, cut.multiple), cut.multiple, scale)
    whole = whole[: cut.height * scale, : cut.width * scale]
    tiles = np.stack([window_model(tile, cut.multiple, scale) for tile in split(image, cut)])
    np.testing.assert_array_equal(merge(tiles, cut, scale), whole)


def test_a_missing_halo_shows_seams():
    """The test above can fail: without a halo the same model shows seams."""
    cut = plan(64, 64, tile=32, halo=0, multiple=8)
    image = picture(cut, channels=1)
    tiles = np.stack([window_model(tile, 8, 1) for tile in split(image, cut)])
    assert (merge(tiles, cut, 1) != window_model(image, 8, 1)).any()


def test_small_images_are_not_tiled():
    cut = plan(37, 500, tile=64, halo=8, multiple=16)
    assert (cut.tile_height, cut.tops) == (48, (0,))
    assert len(cut.lefts) > 1
    uncut = plan(37, 50, tile=64, halo=8, multiple=16)
    assert uncut.count == 1
    assert uncut.overhead == 0


def test_tiles_are_balanced():
    """1040 pixels in tiles of 1024 become two tiles of 544, not one full and one mostly overlap."""
    cut = plan(16, 1040, tile=1024, halo=16, multiple=16)
    assert cut.tile_width == 544
    assert cut.lefts == (0, 496)
    assert cut.overhead == pytest.approx(2 * 544 / 1040 - 1)


@exact
@given(plans())
def test_no_tile_exceeds_the_limit_or_could_be_smaller(cut):
    for length, side, origins in [
        (cut.padded_height, cut.tile_height, cut.tops),
        (cut.padded_width, cut.tile_width, cut.lefts),
    ]:
        assert origins[-1] + side == length
        overlap = -(-2 * cut.halo // cut.multiple) * cut.multiple
        covered_by_smaller = len(origins) * (side - cut.multiple - overlap) + overlap
        assert len(origins) == 1 or covered_by_smaller < length


@settings(max_examples=150)
@given(
    st.integers(1000, 20000),
    st.integers(1000, 20000),
    st.integers(0, 40),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_default_tile_keeps_the_overhead_low(height, width, halo, multiple):
    tile = default_tile(halo=halo, multiple=multiple)
    assert tile <= LARGEST_DEFAULT
    overhead = plan(height, width, tile=tile, halo=halo, multiple=multiple).overhead
    assert overhead / (1 + overhead) < MAX_HALO_SHARE


PANORAMAS = [(15_000, 20_000), (3_000, 60_000), (200, 300_000), (300_000, 200), (1_041, 1_041), (961, 1_041)]


@st.composite
def megapixels(draw):
    """Draw sizes of 1 to 1,000 MP, from squares to ribbons."""
    pixels, shape = draw(st.floats(6, 9)), draw(st.floats(-3, 3))
    return math.ceil(10 ** ((pixels + shape) / 2)), math.ceil(10 ** ((pixels - shape) / 2))


# The limit is 15 %. Models whose seams need 48 px would need tiles of 1,424 px for it, too much for a
# worker's memory: their limit is 22 %. Style transfer sees farthest, at a quarter of the others' cost per pixel.
MAX_SHARE = {32: MAX_HALO_SHARE, 40: MAX_HALO_SHARE, 48: 0.22, 64: 0.28, 80: 0.33, 96: 0.38}


# Those that take images: what makes them from text makes them whole.
TILED = [name for name in packaged_models() if read_info(name)[0].halo]


def too_much_halo(name: str, size: tuple[int, int]) -> float:
    """Return by how much the share of halo exceeds the limit; 0 or less where it does not."""
    info = read_info(name)[0]
    cut = plan_for_model(info, *size)
    return (
        1
        - MAX_SHARE[info.halo]
        - cut.padded_height * cut.padded_width / (cut.count * cut.tile_height * cut.tile_width)
    )


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("size", PANORAMAS, ids=str)
def test_the_halo_overhead_of_packaged_models_is_low_for_every_shape(name, size):
    assert too_much_halo(name, size) <= 0


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(TILED), megapixels())
def test_the_halo_overhead_of_packaged_models_is_low_from_squares_to_ribbons(name, size):
    assert too_much_halo(name, size) <= 0


@pytest.mark.parametrize(
    ("largest", "side"),
    # Not measured; large; rounded to the grid; not below four halos.
    [(0, 920), (4096, 920), (500, 496), (100, 128)],
)
def test_tiles_do_not_exceed_the_measured_limit(largest, side):
    info = ModelInfo("fake", "super-resolution", scale=4, multiple=8, halo=32, largest=largest)
    assert default_tile(halo=32, multiple=8) == 920
    assert largest_tile(info) == side
    for size in [(3000, 2000), (side, side), (side + 1, 90)]:
        cut = plan_for_model(info, *size)
        assert max(cut.tile_height, cut.tile_width) <= side
        assert (cut.count == 1) == (max(size) <= side)


@exact
@given(plans(), st.integers(0, 200))
def test_equal_tiles_have_one_size_and_satisfy_the_rules_of_all_plans(cut, more):
    """As in any plan, every tile is inside the padded image and on the grid, with two halos of overlap."""
    tile = (
        -(-2 * cut.halo // cut.multiple) * cut.multiple + cut.multiple + more // cut.multiple * cut.multiple
    )
    found = plan_of_equal_tiles(cut.height, cut.width, tile=tile, halo=cut.halo, multiple=cut.multiple)
    if min(cut.padded_height, cut.padded_width) < tile:
        assert found is None
        return
    assert (found.tile_height, found.tile_width) == (tile, tile)
    for origins, length in ((found.tops, found.padded_height), (found.lefts, found.padded_width)):
        assert origins[0] == 0
        assert origins[-1] + tile == length
        assert all(origin % cut.multiple == 0 for origin in origins)
        assert all(0 < b - a <= tile - 2 * cut.halo for a, b in pairwise(origins))
    image = picture(found)
    np.testing.assert_array_equal(merge(split(image, found), found, 1), image)


@pytest.mark.parametrize(
    ("size", "gain", "equal"),
    [
        ((3000, 4000), 1.7, True),
        # The gain is smaller than the cost of the pixels computed twice.
        ((3000, 4000), 1.01, False),
        # The image is smaller than one tile.
        ((255, 4000), 9.0, False),
        ((256, 256), 1.1, True),
        ((300, 300), 1.7, False),  # four, of which three are mostly overlap
        ((300, 300), 4.0, True),
    ],
)
def test_images_of_a_compiled_model_get_equal_tiles_where_that_is_cheaper(size, gain, equal):
    info = ModelInfo(
        "fake", "super-resolution", 2, multiple=1, halo=16, compiled_tile=256, compiled_gain=gain
    )
    cut = plan_for_model(info, *size)
    usual = plan_for_model(replace(info, compiled_tile=0), *size)
    assert (cut.tile_height, cut.tile_width) == (
        (256, 256) if equal else (usual.tile_height, usual.tile_width)
    )


def test_the_default_tile_is_valid_for_any_halo():
    for halo in (0, 1, 100, 511, 512, 2000):
        for multiple in (1, 7, 16, 64):
            plan(
                5000,
                5000,
                tile=default_tile(halo=halo, multiple=multiple),
                halo=halo,
                multiple=multiple,
            )


@pytest.mark.parametrize("tile", [0, 15, 48, 63, (64, 63)])
def test_a_tile_too_small_for_its_halo_is_refused(tile):
    with pytest.raises(ValueError, match=r"leaves no room .* expected 64 or more; choose a larger tile"):
        plan(10, 10, tile=tile, halo=20, multiple=16)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_image_is_refused(size):
    with pytest.raises(ValueError, match="at least 1 pixel"):
        plan(*size, tile=64, halo=0, multiple=16)


def test_an_array_of_another_size_is_refused():
    cut = plan(10, 12, tile=64, halo=0, multiple=8)
    with pytest.raises(ValueError, match=r"plan cuts \(10, 12, channels\)"):
        split(np.zeros((12, 10, 3), np.uint8), cut)
    with pytest.raises(ValueError, match=r"plan cuts \(10, 12, channels\)"):
        tile_of(np.zeros((9, 12, 3), np.uint8), cut, 0)


def test_plans_compare_by_value_and_can_be_pickled():
    cut = plan(100, 90, tile=48, halo=8, multiple=8)
    assert cut.cores
    copy = pickle.loads(pickle.dumps(cut))
    assert copy == cut
    assert copy.cores == cut.cores
    assert hash(copy) == hash(cut)
