"""The inference path, with models small enough to compute by hand: every result is checked exactly."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imgtx.errors import ImageError, ModelError, UsageError
from imgtx.imageops.resize import imresize
from imgtx.inference.predictor import Predictor
from imgtx.inference.tiling import default_tile, plan_for_model, split
from imgtx.models.info import ModelInfo
from tests.support.small_models import INFO, OUT_OF_MEMORY, Hungry, Nearest, Windows, noise


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, 0).repeat(2, 1)


SHAPES = [(1, 1), (1, 7), (9, 1), (1, 1, 3), (5, 3, 3), (33, 21, 1), (4, 4, 3), (1, 100, 3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_keeps_layout_dtype_and_every_pixel(shape, dtype):
    """Grey passes through three channels here; white and black are unchanged."""
    image = noise(*shape, dtype=dtype)
    image.reshape(-1)[0], image.reshape(-1)[-1] = np.iinfo(dtype).max, 0
    output = Predictor(Nearest(), tile=16)(image)
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, enlarged(image))


def test_all_levels_survive_the_transfer_to_the_device_and_back():
    for dtype in (np.uint8, np.uint16):
        image = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 16)
        np.testing.assert_array_equal(Predictor(Nearest())(image), enlarged(image))


def test_values_are_rounded_half_up_and_clipped():
    image = np.full((4, 4, 3), 100, np.uint8)

    def with_offset(levels: float) -> int:
        values = np.unique(Predictor(Windows(), conditions={"offset": levels / 255})(image)[:, :4])
        assert len(values) == 1
        return int(values[0])

    assert with_offset(0.49) == 100
    assert with_offset(0.51) == 101
    assert with_offset(500.0) == 255
    assert with_offset(-500.0) == 0


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(12, 60), st.integers(1, 5))
def test_tiled_and_batched_equals_untiled(height, width, tile, batch):
    image = noise(height, width, 3)
    untiled = Predictor(Windows(), tile=100)(image)
    np.testing.assert_array_equal(Predictor(Windows(), tile=tile, batch=batch)(image), untiled)


def test_one_call_when_the_image_fits():
    model = Windows()
    Predictor(model)(noise(30, 50, 3))
    assert model.calls == [(1, 3, 32, 52)]


def test_alpha_is_enlarged_by_bicubic_and_does_not_affect_visible_colours():
    image = noise(13, 9, 4, dtype=np.uint16)
    image[:, :, 3] |= 0x2000
    output = Predictor(Windows(), tile=16)(image)
    np.testing.assert_array_equal(output[:, :, :3], Predictor(Windows())(image[:, :, :3]))
    np.testing.assert_array_equal(output[:, :, 3], imresize(image[:, :, 3], 2))
    grey = image[:, :, 2:]
    output = Predictor(Windows())(grey)
    np.testing.assert_array_equal(output[:, :, 0], Predictor(Windows())(grey[:, :, 0]))
    np.testing.assert_array_equal(output[:, :, 1], imresize(grey[:, :, 1], 2))


def test_alpha_is_untouched_at_scale_1():
    image = noise(7, 5, 4)
    image[:, :, 3] |= 0x20
    output = Predictor(Nearest(ModelInfo("same", "restoration", scale=1, multiple=4, halo=4)))(image)
    np.testing.assert_array_equal(output, image)


def test_grey_is_the_bt601_luma_of_an_rgb_models_output():
    class RedGreenBlue(Nearest):
        def forward(self, batch, state):
            weights = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
            return super().forward(batch * weights, state)

    assert (
        Predictor(RedGreenBlue())(np.full((4, 4), 210, np.uint8)) == round(210 * (0.299 + 0.587 / 2))
    ).all()


def test_rgb_passes_through_a_grey_model_channel_by_channel():
    model = Windows(
        ModelInfo("grey", "super-resolution", 2, multiple=4, halo=4, in_channels=1, out_channels=1)
    )
    image = noise(11, 10, 3)
    by_channel = [Predictor(model)(image[:, :, c]) for c in range(3)]
    np.testing.assert_array_equal(Predictor(model, tile=12)(image), np.stack(by_channel, axis=2))


def test_tiles_of_several_images_share_batches():
    model = Windows()
    predictor = Predictor(model, tile=20, batch=3)
    images = [
        noise(30, 30, 3),
        noise(6, 7, 3),
        noise(29, 31, 3),
        noise(5, 8, 1),
        noise(8, 5, 3, dtype=np.uint16),
    ]
    plans = [predictor.plan_for(*image.shape[:2]) for image in images]
    outputs = predictor.run([(cut, split(image, cut)) for cut, image in zip(plans, images, strict=True)])
    # The 30-pixel images have 4 tiles each and share calls of 3; the others share none.
    assert [call[0] for call in model.calls] == [3, 3, 2, 1, 1, 1]
    for image, output in zip(images, outputs, strict=True):
        assert output.dtype == image.dtype
        np.testing.assert_array_equal(output, Predictor(Windows())(image))


def test_run_accepts_read_only_tiles_and_an_empty_list():
    predictor = Predictor(Windows())
    image = noise(6, 6, 3)
    cut = predictor.plan_for(6, 6)
    tiles = np.frombuffer(split(image, cut).tobytes(), np.uint8).reshape(1, 8, 8, 3)
    np.testing.assert_array_equal(predictor.run([(cut, tiles)])[0], predictor(image))
    assert predictor.run([]) == []


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_memory_pressure_halves_the_batch_then_the_tile_for_all_later_calls(error, caplog):
    image = noise(96, 96, 3)
    model = Hungry(30 * 30, error)
    predictor = Predictor(model, tile=52, batch=4)
    with caplog.at_level(logging.WARNING):
        output = predictor(image)
    np.testing.assert_array_equal(output, Predictor(Windows(), tile=200)(image))
    assert predictor.tile <= 28
    assert predictor.call_pixels <= 52 * 52 // 2
    # First the batch is halved (4, 2, 1 tiles), then the tile; each step is logged once.
    said = [record.getMessage() for record in caplog.records]
    assert [f"at {count} tiles of 52 x 52" in said[i] for i, count in enumerate([4, 2, 1])] == [True] * 3
    settings_now = predictor.tile, predictor.call_pixels
    caplog.clear()
    np.testing.assert_array_equal(predictor(image), output)
    assert (predictor.tile, predictor.call_pixels) == settings_now
    assert not caplog.records


def test_halving_the_batch_is_enough_if_one_tile_fits():
    model = Hungry(2 * 24 * 24, OUT_OF_MEMORY[0])
    predictor = Predictor(model, tile=24, batch=8)
    image = noise(70, 70, 3)
    np.testing.assert_array_equal(predictor(image), Predictor(Windows())(image))
    assert predictor.tile == 24
    assert {call[0] for call in model.calls} <= {1, 2}
    # The limit is in pixels, so that smaller tiles still fill their batches.
    assert predictor.call_pixels == 2 * 24 * 24


def test_the_image_fails_if_the_smallest_tile_does_not_fit():
    predictor = Predictor(Hungry(10, OUT_OF_MEMORY[2]))
    with pytest.raises(
        ImageError, match=r"memory ran out on cpu at 1 tiles of 16 x 16, .* fewer workers"
    ) as caught:
        predictor(noise(200, 200, 3))
    assert caught.value.reason == "out_of_memory"


def test_other_errors_of_the_model_pass_through():
    predictor = Predictor(Hungry(0, RuntimeError("shape mismatch")))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        predictor(noise(4, 4, 3))


def test_default_settings_are_derived_from_the_model():
    predictor = Predictor(Windows(ModelInfo("fake", "super-resolution", 2, multiple=16, halo=16)))
    assert predictor.tile == default_tile(halo=16, multiple=16)
    assert predictor.batch == 1
    assert predictor.plan_for(1000, 1100) == plan_for_model(predictor.info, 1000, 1100)


def test_info_and_digest_are_the_models():
    model = Windows()
    assert Predictor(model).digest is None
    model.digest = "abc"
    assert Predictor(model).digest == "abc"
    assert Predictor(model).info is INFO


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision_applies_to_products_and_not_to_parameters(precision):
    class Linear(Nearest):
        def __init__(self):
            super().__init__(ModelInfo("linear", "x", 2, 4, 4, dtypes=("float32", "bfloat16", "float16")))
            self.mix = nn.Conv2d(3, 3, 1)
            nn.init.dirac_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)

        def forward(self, batch, state):
            self.seen = self.mix(batch)
            return super().forward(self.seen, state)

    model, image = Linear(), noise(8, 8, 3)
    output = Predictor(model, precision=precision)(image)
    assert model.seen.dtype == getattr(torch, precision)
    assert model.mix.weight.dtype == torch.float32
    assert np.abs(output.astype(int) - enlarged(image)).max() <= (precision == "bfloat16")


def test_a_precision_the_model_does_not_list_is_refused():
    with pytest.raises(UsageError, match=r"precision 'float16' .* expected one of float32, bfloat16"):
        Predictor(Windows(), precision="float16")
    with pytest.raises(UsageError, match="precision 'int8'"):
        Predictor(Windows(), precision="int8")


def test_invalid_settings_are_refused():
    with pytest.raises(UsageError, match="expected 12 or more"):
        Predictor(Windows(), tile=11)
    with pytest.raises(UsageError, match="batch 0"):
        Predictor(Windows(), batch=0)
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        Predictor(Windows(), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="finds no CUDA device"):
            Predictor(Windows(), device="cuda")


@pytest.mark.parametrize(
    "image",
    [
        [[1]],
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4, 3), ">u2"),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
    ],
)
def test_an_array_that_is_not_an_image_is_refused(image):
    with pytest.raises(UsageError, match="expected"):
        Predictor(Windows())(image)


def test_a_model_that_violates_its_contract_is_named():
    model = Windows()
    predictor = Predictor(model)
    model.info = ModelInfo("liar", "super-resolution", 3, multiple=4, halo=4)
    with pytest.raises(
        ModelError, match=r"'fake' returned shape \(1, 3, 12, 12\) .* promises \(1, 3, 8, 8\)"
    ):
        predictor(noise(4, 4, 3))


def test_non_finite_output_fails_the_image():
    predictor = Predictor(Windows(), conditions={"offset": float("nan")})
    with pytest.raises(ImageError, match="not finite in float32") as caught:
        predictor(noise(4, 4, 3))
    assert caught.value.reason == "bug"


def test_the_share_that_is_done_is_said_after_each_tile():
    predictor, shares = Predictor(Nearest(), tile=16), list[float]()
    predictor.on_share = shares.append
    image = noise(40, 16, 3)
    cut = predictor.plan_for(40, 16)
    predictor(image)
    assert shares == [tile / cut.count for tile in range(1, cut.count + 1)]
    by_call, shares = shares, list[float]()
    predictor.on_share = shares.append
    pieces = predictor.tiles(cut, lambda place: image[place.top : place.bottom, place.left : place.right])
    assert len([*pieces]) == cut.count > 1
    assert shares == by_call
