"""Archive damage depends on image, generator and parameters alone; each step has its intended effect."""

import numpy as np
import pytest
from PIL import Image

from imgtx.degradations.archive import ArchiveDamage, archive, blur, jpeg, noise, resize
from imgtx.errors import UsageError
from imgtx.imageops.resize import imresize
from tests.support.zoo import photo

NOTHING = ArchiveDamage(blur=0, resize=0, noise=0, worst_quality=100, best_quality=100, skip=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_same_state_gives_the_same_pixels_of_the_reduced_size(scale):
    clean = photo(24 * scale, 37 * scale)
    before = clean.copy()
    one, again, other = (archive(clean, scale, rng(seed)) for seed in (5, 5, 6))
    assert one.shape == (24, 37, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("scale", [2, 4])
def test_degradation_does_not_shift_the_image(scale):
    """In any order and at any size no step shifts by half a pixel."""
    clean = photo(60 * scale, 60 * scale)
    exact = imresize(clean, 1 / scale).astype(float)
    mean = np.mean([archive(clean, scale, rng(seed)) for seed in range(40)], axis=0)

    def gap(y: int, x: int) -> float:
        moved = np.roll(mean, (y, x), (0, 1))
        return np.abs(exact - moved)[4:-4, 4:-4].mean()

    assert gap(0, 0) < 6
    assert gap(0, 0) < min(gap(0, 1), gap(0, -1), gap(1, 0), gap(-1, 0))


def test_without_damage_only_the_downscaling_remains():
    clean = photo(64, 64)
    # Four filters.
    for seed in range(8):
        small = archive(clean, 2, rng(seed), NOTHING)
        assert np.abs(small.astype(int) - imresize(clean, 0.5)).mean() < 4


def test_damage_grows_with_its_parameters():
    clean = photo(96, 96)

    def gap(damage: ArchiveDamage) -> float:
        exact = imresize(clean, 0.5).astype(int)
        return float(
            np.mean([np.abs(archive(clean, 2, rng(seed), damage) - exact).mean() for seed in range(24)])
        )

    mild = ArchiveDamage(blur=0.3, resize=0.1, noise=2, worst_quality=90)
    heavy = ArchiveDamage(blur=2, resize=0.5, noise=40, worst_quality=10, best_quality=20, skip=0)
    assert gap(NOTHING) < gap(mild) < gap(ArchiveDamage()) < gap(heavy)


def test_blur_reduces_contrast_and_keeps_the_mean():
    stripes = Image.fromarray(np.tile(np.array([[0], [255]], np.uint8), (16, 32))[..., None].repeat(3, 2))
    soft = np.asarray(blur(stripes, 1.0, rng(1), ArchiveDamage(blur=3)))
    assert soft[8:-8].std() < 60
    assert abs(soft.mean() - 127.5) < 2


def test_noise_has_the_requested_strength():
    grey = Image.fromarray(np.full((128, 128, 3), 128, np.uint8))
    strengths = [
        np.asarray(noise(grey, rng(s), ArchiveDamage(noise=20))).astype(int) - 128 for s in range(30)
    ]
    assert max(n.std() for n in strengths) < 20
    assert max(n.std() for n in strengths) > 8
    assert max(abs(n.mean()) for n in strengths) < 1
    alike = [np.array_equal(n[..., 0], n[..., 1]) for n in strengths]
    # Film grain in two fifths, colour noise in the rest.
    assert 4 < sum(alike) < 22


def test_noise_does_not_repeat_within_a_large_image():
    grey = Image.fromarray(np.full((600, 600, 3), 128, np.uint8))
    drawn = np.asarray(noise(grey, rng(3), ArchiveDamage(noise=20))).astype(int) - 128
    assert abs(np.corrcoef(drawn[:300].ravel(), drawn[300:].ravel())[0, 1]) < 0.05


def test_jpeg_blocks_begin_at_any_offset():
    """Blocks of eight begin at the column phase with the largest steps."""
    ramp = np.tile(np.linspace(60, 190, 200)[None, :, None], (64, 1, 3))
    noisy = Image.fromarray((ramp + rng().normal(0, 8, ramp.shape)).clip(0, 255).astype(np.uint8))
    phases = set()
    for seed in range(40):
        damage = ArchiveDamage(worst_quality=3, best_quality=4)
        pixels = np.asarray(jpeg(noisy, rng(seed), damage)).astype(int)
        assert pixels.shape == (64, 200, 3)
        steps = np.abs(np.diff(pixels[..., 0], axis=1)).mean(0)
        phases.add(int(np.argmax([steps[phase::8].mean() for phase in range(8)])))
    assert phases == set(range(8))


def test_intermediate_sizes_stay_within_their_range():
    image = Image.new("RGB", (100, 60))
    widths = [resize(image, rng(seed), ArchiveDamage(resize=0.4)).width for seed in range(60)]
    assert 60 <= min(widths) < 70
    assert 130 < max(widths) <= 140


@pytest.mark.parametrize(
    ("field", "value"),
    [("blur", -1), ("resize", 1.0), ("noise", float("nan")), ("worst_quality", 0), ("skip", 2)],
)
def test_an_invalid_strength_is_named(field, value):
    with pytest.raises(UsageError, match=f"{field} = .*: must be "):
        ArchiveDamage(**{field: value})
