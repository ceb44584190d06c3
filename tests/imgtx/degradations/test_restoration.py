"""Restoration damage depends on image, generator and parameters alone; each kind has its intended effect."""

import numpy as np
import pytest

from imgtx.degradations.restoration import RestorationDamage, restoration_pair
from imgtx.errors import UsageError
from tests.support.zoo import photo

ONLY = {"noise_share": 0, "jpeg_share": 0, "both_share": 0, "blur_share": 0, "grey": 0}


def pairs(count: int, **damage) -> list[tuple[np.ndarray, np.ndarray]]:
    clean = photo(40, 56)
    made = RestorationDamage(**(ONLY | damage))
    return [restoration_pair(clean, np.random.default_rng(seed), made) for seed in range(count)]


def test_the_same_state_gives_the_same_pixels():
    clean = photo(40, 56)
    before = clean.copy()
    one, again, other = (restoration_pair(clean, np.random.default_rng(seed))[0] for seed in (5, 5, 6))
    assert one.shape == (40, 56, 3)
    assert one.dtype == np.float32
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.array_equal(clean, before)


def test_a_share_of_zero_changes_nothing():
    for levels, clean in pairs(5):
        assert np.array_equal(levels, clean)


def test_noise_has_the_drawn_strength_and_is_clipped_in_half_of_the_images():
    made = pairs(60, noise_share=1)
    gaps = [levels - clean for levels, clean in made]
    strengths = np.array([gap.std() for gap in gaps])
    assert strengths.max() < 58
    # Uniform between 0 and 55.
    assert 20 < strengths.mean() < 33
    assert abs(np.mean([gap.mean() for gap in gaps])) < 1.5
    whole = [np.array_equal(levels, np.rint(levels)) for levels, _ in made]
    assert 15 < sum(whole) < 45
    beyond = [levels.min() < 0 or levels.max() > 255 for levels, _ in made]
    assert any(beyond)
    assert not any(b and w for b, w in zip(beyond, whole, strict=True))


def test_jpeg_damage_ends_in_8_bit_values():
    for share in ("jpeg_share", "both_share"):
        for levels, clean in pairs(8, **{share: 1}):
            assert np.array_equal(levels, np.clip(np.rint(levels), 0, 255))
            assert 0.1 < np.abs(levels - clean).mean() < 60


def test_grey_images_stay_grey_and_so_does_their_noise():
    for levels, clean in pairs(6, noise_share=1, grey=1):
        assert np.ptp(clean, axis=2).max() == 0
        assert np.ptp(levels, axis=2).max() == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"noise": 300.0}, "noise = 300"),
        ({"worst_quality": 0}, "worst_quality = 0"),
        ({"worst_quality": 90, "best_quality": 80}, "swap them"),
        ({"noise_share": 0.7, "jpeg_share": 0.4}, "shares"),
    ],
)
def test_invalid_damage_is_refused(values, named):
    with pytest.raises(UsageError, match=named):
        RestorationDamage(**values)


def test_the_low_quality_share_increases_jpeg_damage():
    low, evenly = (
        np.mean([np.abs(levels - clean).mean() for levels, clean in pairs(60, jpeg_share=1, **more)])
        for more in ({"low_quality_share": 1.0}, {})
    )
    assert low > 1.5 * evenly
    with pytest.raises(UsageError, match="worst_quality = 30 excludes"):
        RestorationDamage(worst_quality=30, low_quality_share=0.5)
