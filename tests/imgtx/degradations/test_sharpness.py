"""Clean crops of other sharpness: their place, their content, and that they repeat."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtx.degradations.sharpness import SharpnessAugmentation
from imgtx.errors import UsageError
from imgtx.imageops.resize import imresize
from imgtx.training.data.crops import CropSettings, Sampler
from imgtx.training.data.device_feed import DeviceFeed
from imgtx.training.data.pairs import make_pair

NOISE = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)


@given(st.integers(0, 64), st.integers(0, 48), st.floats(1, 4), st.integers(0, 999))
def test_crops_have_their_size_at_every_position(top, left, downscale, seed):
    crop = SharpnessAugmentation(downscale, 1.0).crop(NOISE, top, left, 32, np.random.default_rng(seed))
    assert crop.shape == (32, 32, 3)
    assert crop.dtype == np.uint8


def test_a_crop_is_centred_on_its_position():
    ramp = np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], (120, 120, 3))
    middles = {
        int(
            SharpnessAugmentation(3.0, 1.0).crop(ramp, 44, 44, 32, np.random.default_rng(seed))[15:17].mean()
            // 4
        )
        for seed in range(20)
    }
    assert middles <= {(2 * 60 - 3) // 4, (2 * 60) // 4, (2 * 60 + 3) // 4}


def test_each_step_leaves_about_half_of_the_crops_unchanged():
    smooth = SharpnessAugmentation(blur=1.5)
    crops = [smooth.crop(NOISE, 8, 8, 32, np.random.default_rng(seed)) for seed in range(200)]
    alone = sum(np.array_equal(crop, NOISE[8:40, 8:40]) for crop in crops)
    assert 70 < alone < 130
    assert min(crop.std() for crop in crops) < 0.5 * NOISE.std()
    small = [
        SharpnessAugmentation(downscale=2.0).crop(NOISE, 8, 8, 32, np.random.default_rng(s))
        for s in range(200)
    ]
    assert 70 < sum(np.array_equal(crop, NOISE[8:40, 8:40]) for crop in small) < 130


def test_the_input_is_the_exact_reduction_of_the_target():
    sampler = Sampler(
        [make_pair("a", NOISE, 2)],
        CropSettings(16, sharpness=SharpnessAugmentation(2.0, 0.8)),
        seed=3,
        batch=12,
    )
    batch, again = sampler.batch(5), sampler.batch(5)
    for small, clean in zip(batch.small, batch.clean, strict=True):
        assert np.array_equal(small, imresize(clean, 0.5))
    assert np.array_equal(batch.clean, again.clean)
    # A DeviceFeed cuts on the device, from pairs as they are.
    assert not DeviceFeed.fits(sampler)
    assert not SharpnessAugmentation()


@pytest.mark.parametrize(
    ("values", "message"), [((0.5, 0.0), "downscale = 0.5: must be 1"), ((1.0, -1.0), "blur = -1.0")]
)
def test_invalid_settings_are_one_line(values, message):
    with pytest.raises(UsageError, match=message):
        SharpnessAugmentation(*values)
