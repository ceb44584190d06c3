"""Conditions per image: every tile gets those of its image, through batches, views and memory pressure."""

import numpy as np
import pytest

from imgtx.imageops.geometry import Tile
from imgtx.inference.predictor import Predictor
from imgtx.inference.self_ensemble import SelfEnsemble
from imgtx.inference.tiling import split
from imgtx.models.info import ModelInfo
from tests.support.small_models import Tinted, Windows, noise

LEVELS = (0, 10, 55, 120)
IMAGES = [noise(30, 30, 3) // 2, noise(6, 7, 3) // 2, noise(29, 31, 3) // 2, noise(5, 8, 1) // 2]


def run(predictor: Predictor, images: list[np.ndarray], levels: tuple[int, ...]) -> list[np.ndarray]:
    plans = [predictor.plan_for(*image.shape[:2]) for image in images]
    stacks = [(cut, split(image, cut)) for cut, image in zip(plans, images, strict=True)]
    return predictor.run(stacks, [{"levels": each} for each in levels])


def expected(predictor: Predictor, image: np.ndarray, levels: int) -> np.ndarray:
    """Return the untinted output with the tint added here; whole levels do not affect rounding."""
    return (predictor(image).astype(int) + levels).clip(0, 255).astype(np.uint8)


def check(outputs: list[np.ndarray], plain: Predictor) -> None:
    for image, levels, output in zip(IMAGES, LEVELS, outputs, strict=True):
        np.testing.assert_allclose(output.astype(int), expected(plain, image, levels), atol=1)


def test_each_tile_of_a_batch_gets_the_conditions_of_its_image():
    model = Tinted()
    outputs = run(Predictor(model, tile=20, batch=3), IMAGES, LEVELS)
    # The two 30-pixel images have 4 tiles each: the second call of 3 contains tiles of both.
    assert model.rows == [3, 3, 2, 1, 1]
    check(outputs, Predictor(Windows()))


@pytest.mark.parametrize("limit", [2 * 20 * 20, 16 * 16], ids=["half the batch", "then the tile"])
def test_conditions_stay_with_their_images_under_memory_pressure(limit: int):
    predictor = Predictor(Tinted(limit), tile=20, batch=4)
    check(run(predictor, IMAGES, LEVELS), Predictor(Windows()))
    assert predictor.call_pixels < 4 * 20 * 20


def test_every_view_of_the_self_ensemble_gets_the_conditions():
    model = Tinted()
    outputs = run(Predictor(SelfEnsemble(model), tile=20, batch=3), IMAGES, LEVELS)
    assert len(model.rows) == 5 * 8
    check(outputs, Predictor(SelfEnsemble(Windows())))


def test_channels_processed_one_by_one_share_their_images_conditions():
    info = ModelInfo("grey", "super-resolution", 2, multiple=4, halo=4, in_channels=1, out_channels=1)
    model = Tinted(info=info)
    images, levels = [noise(8, 8, 3) // 2, noise(8, 8, 3) // 3], (10, 90)
    outputs = run(Predictor(model, batch=2), images, levels)
    assert model.rows == [6]
    for image, level, output in zip(images, levels, outputs, strict=True):
        np.testing.assert_allclose(
            output.astype(int), expected(Predictor(Windows(info)), image, level), atol=1
        )


def test_conditions_of_skipped_tiles_are_skipped_too():
    info = ModelInfo("holes", "inpainting", 1, multiple=4, halo=4, in_channels=4, out_channels=3, masks=True)

    class Painter(Tinted):
        def forward(self, batch, state, rows=()):
            self.rows.append(len(rows))
            return (
                batch[:, :-1] * 0
                + batch.new_tensor([row["levels"] / 255 for row in rows])[:, None, None, None]
            )

    predictor = Predictor(Painter(info=info), tile=20, batch=8)
    cut = predictor.plan_for(30, 30)
    tiles = np.zeros((3, *split(np.zeros((30, 30, 4), np.uint8), cut).shape), np.uint8)
    tiles[0, ..., -1] = tiles[2, ..., -1] = 255
    outputs = predictor.run([(cut, stack) for stack in tiles], [{"levels": each} for each in (10, 20, 30)])
    assert [np.unique(output).tolist() for output in outputs] == [[10], [0], [30]]
    assert predictor.model.rows == [8 - 4, 4]


def test_single_and_streamed_images_get_their_conditions():
    image, predictor = IMAGES[0], Predictor(Tinted(), tile=20, batch=3)
    whole = predictor(image, conditions={"levels": 40})
    np.testing.assert_allclose(whole.astype(int), expected(Predictor(Windows()), image, 40), atol=1)

    def read(window: Tile) -> np.ndarray:
        return image[window.top : window.bottom, window.left : window.right]

    canvas = np.zeros_like(whole)
    for place, pixels in predictor.tiles(predictor.plan_for(30, 30), read, {"levels": 40}):
        canvas[place.top : place.bottom, place.left : place.right] = pixels
    np.testing.assert_array_equal(canvas, whole)


def test_a_model_with_conditions_gets_one_row_per_image():
    predictor = Predictor(Windows())
    cut = predictor.plan_for(6, 6)
    stack = (cut, split(IMAGES[1][:6, :6], cut))
    assert len(predictor.run([stack, stack])) == 2
    with pytest.raises(ValueError, match="1 rows of conditions for 2 images"):
        predictor.run([stack, stack], [{}])
