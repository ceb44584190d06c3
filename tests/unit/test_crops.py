"""Training samples: pairs that fit each other, batches that are a function of (seed, step)."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgtx.degrade import imresize
from imgtx.errors import UsageError
from pipeline.crops import Pair, load_pairs, sample_batch
from tests.zoo import exif_block, photo, saved


def numbered(key: str, height: int = 20, width: int = 26, scale: int = 2) -> Pair:
    """A pair whose clean pixels repeat the small ones: every cut and every turn can be checked."""
    small = np.random.default_rng(len(key)).integers(0, 256, (height, width, 3), np.uint8)
    return Pair(key, small.repeat(scale, 0).repeat(scale, 1), small)


@pytest.mark.parametrize("scale", [2, 3])
def test_small_and_clean_show_the_same_place(scale):
    batch = sample_batch([numbered("a", scale=scale)], seed=1, step=2, batch=16, crop=8)
    assert batch.small.shape == (16, 8, 8, 3)
    assert batch.clean.shape == (16, 8 * scale, 8 * scale, 3)
    assert np.array_equal(batch.small.repeat(scale, 1).repeat(scale, 2), batch.clean)


def test_a_batch_is_a_function_of_seed_and_step():
    pairs = [numbered("a"), numbered("bb"), numbered("ccc")]
    first = sample_batch(pairs, seed=1, step=2, batch=8, crop=8)
    again = sample_batch(pairs, seed=1, step=2, batch=8, crop=8)
    assert first.keys == again.keys
    assert np.array_equal(first.small, again.small)
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        other = sample_batch(pairs, seed=seed, step=step, batch=8, crop=8)
        assert not np.array_equal(first.small, other.small)


def test_the_keys_are_those_of_the_crops():
    flat = {key: Pair(key, np.full((32, 32, 3), i, np.uint8), np.full((16, 16, 3), i, np.uint8))
            for i, key in enumerate("abc")}  # fmt: skip
    batch = sample_batch(list(flat.values()), seed=0, step=0, batch=12, crop=8)
    assert set(batch.keys) == {"a", "b", "c"}
    assert [flat[key].small[0, 0, 0] for key in batch.keys] == batch.small[:, 0, 0, 0].tolist()


def test_all_eight_symmetries_come_up():
    pair = numbered("a", 8, 8)
    batch = sample_batch([pair], seed=0, step=0, batch=200, crop=8)
    turned = {np.rot90(side, k).tobytes() for side in (pair.small, pair.small[:, ::-1]) for k in range(4)}
    assert {crop.tobytes() for crop in batch.small} == turned
    assert len(turned) == 8


def test_lively_places_are_preferred():
    """The left half is flat: of two draws the livelier wins, so that few crops are flat alone."""
    small = np.zeros((16, 80, 3), np.uint8)
    small[:, 40:] = np.random.default_rng(0).integers(0, 256, (16, 40, 3))
    batch = sample_batch(
        [Pair("a", small.repeat(2, 0).repeat(2, 1), small)], seed=0, step=0, batch=200, crop=8
    )
    flat = sum(not crop.any() for crop in batch.small)
    assert 10 < flat < 75  # a quarter of some 45 %, instead of 45 %


def test_pairs_come_in_the_order_of_names_cut_to_the_scale(tmp_path):
    (tmp_path / "b").mkdir()
    clean = photo(31, 40)
    (tmp_path / "b" / "x.png").write_bytes(saved(clean))
    (tmp_path / "a.JPG").write_bytes(saved(photo(30, 30), "JPEG"))
    (tmp_path / "notes.txt").write_text("no image")
    first, second = load_pairs(tmp_path, 3, smallest=1)
    assert (first.key, second.key) == ("a.JPG", "b/x.png")
    assert np.array_equal(second.clean, clean[:30, :39])
    assert np.array_equal(second.small, imresize(clean[:30, :39], 1 / 3))
    assert [p.key for p in load_pairs(tmp_path, 3, smallest=1, most=1)] == ["a.JPG"]


def test_grey_sixteen_bit_and_rotated_images_become_upright_8_bit_rgb(tmp_path):
    grey = photo(24, 32, 1)
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(saved(photo(24, 32), "JPEG", exif=exif_block(6, 32, 24)))
    a, b, c = load_pairs(tmp_path, 2, smallest=1)
    assert np.array_equal(a.clean, np.dstack([grey] * 3))
    assert np.array_equal(b.clean, a.clean)
    assert c.clean.shape == (32, 24, 3)


def complaint(folder: Path, **options: int) -> str:
    with pytest.raises(UsageError) as caught:
        load_pairs(folder, 2, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_cannot_be_trained_on_is_refused_before_training(tmp_path):
    assert "no images under" in complaint(tmp_path, smallest=8)
    (tmp_path / "small.png").write_bytes(saved(photo(40, 24)))
    assert "small.png is 24 x 40; at scale 2 a crop of 16 px needs 32 px" in complaint(tmp_path, smallest=16)
    (tmp_path / "broken.png").write_bytes(saved(photo(40, 40))[:200])
    assert "broken.png cannot be trained on (truncated" in complaint(tmp_path, smallest=8)
