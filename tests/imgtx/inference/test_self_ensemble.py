"""The mean over eight views: compared with the mean by hand, and on photos."""

from pathlib import Path

import numpy as np
import pytest
import torch

import imgtx
from imgtx.codecs import decode
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize, modcrop
from imgtx.inference.predictor import Predictor
from imgtx.inference.self_ensemble import VIEWS, SelfEnsemble
from imgtx.training.data.crops import turn
from tests.support.small_models import Nearest, Windows, noise
from tests.support.source_tree import ROOT


def turned_back(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    return np.rot90(image[:, ::-1] if mirrored else image, -turns)


def test_the_self_ensemble_is_the_mean_over_eight_symmetries():
    assert len({turn(np.arange(4).reshape(2, 2), *view).tobytes() for view in VIEWS}) == 8
    picture, model = torch.rand(2, 3, 8, 12), Windows()
    made = SelfEnsemble(model)(picture, 0.0)
    assert [shape[2:] for shape in model.calls] == 2 * [*[(8, 12)] * 2, *[(12, 8)] * 2]
    for index in range(2):
        image = picture[index].permute(1, 2, 0).numpy()
        by_hand = [
            turned_back(call(Windows(), np.ascontiguousarray(turn(image, *view))), *view) for view in VIEWS
        ]
        np.testing.assert_allclose(made[index].permute(1, 2, 0), np.mean(by_hand, 0), atol=1e-6)


def gap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def call(model: Windows, image: np.ndarray) -> np.ndarray:
    return model(torch.from_numpy(image).permute(2, 0, 1)[None], 0.0)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("view", VIEWS[1:])
def test_a_rotated_image_gives_a_rotated_output(view):
    image, together = noise(40, 24, 3), Predictor(SelfEnsemble(Windows()))
    seen = np.ascontiguousarray(turn(image, *view))
    # Sums in another order round differently, which may change the result by one level.
    assert gap(turned_back(together(seen), *view), together(image)).max() <= 1
    assert gap(turned_back(together(seen), *view), together(image)).mean() < 0.01


def test_a_symmetric_model_is_unchanged_at_every_size_and_tiling():
    image = noise(33, 50, 3, dtype=np.uint16)
    np.testing.assert_array_equal(
        Predictor(SelfEnsemble(Nearest()), tile=16)(image), image.repeat(2, 0).repeat(2, 1)
    )
    image = noise(61, 90, 3)
    tiled, whole = (Predictor(SelfEnsemble(Windows()), tile=tile)(image) for tile in (20, 100))
    np.testing.assert_array_equal(tiled, whole)


def test_the_self_ensemble_improves_photos():
    """Each photo gains at least 0.02 dB; the weights and so the digest are the same."""
    alone, together = imgtx.load("sr-x2", device="cpu"), imgtx.load("sr-x2", device="cpu", self_ensemble=True)
    assert (together.digest, together.info) == (alone.digest, alone.info)
    gains = []
    for name in ("chelsea.jpg", "coffee.webp", "astronaut.jpg"):
        pixels = decode(Path(ROOT, "examples", name).read_bytes(), max_pixels=10**6).pixels
        clean = np.ascontiguousarray(modcrop(pixels, 2)[100:292, 100:292, :3])
        small = imresize(clean, 0.5)
        gains.append(psnr_y(together(small), clean, crop=2) - psnr_y(alone(small), clean, crop=2))
    assert min(gains) > 0.02, gains
