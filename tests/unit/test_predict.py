"""The reference path, with models small enough to compute by hand: every result is held exactly."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imgtx.config import ModelInfo
from imgtx.degrade import imresize
from imgtx.errors import ImageError, ModelError, UsageError
from imgtx.predict import BAND_PIXELS, Predictor
from imgtx.tiling import default_tile, plan_for_model, split

INFO = ModelInfo("fake", "super-resolution", scale=2, multiple=4, halo=4)


class Windows(nn.Module):
    """Mixes each pixel with its 4x4 window's mean and its right neighbour, enlarges to the nearest.

    Sees pixels at most 4 away; all weights are powers of two, so that float32 sums are exact for 8 bits.
    """

    def __init__(self, info: ModelInfo = INFO):
        super().__init__()
        self.info = info
        self.calls: list[tuple[int, ...]] = []

    def prepare(self, conditions):
        return conditions.get("offset", 0.0)

    def forward(self, batch, state):
        assert batch.dtype == torch.float32
        assert batch.shape[2] % self.info.multiple == 0
        assert batch.shape[3] % self.info.multiple == 0
        self.calls.append(tuple(batch.shape))
        means = nn.functional.avg_pool2d(batch, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        right = nn.functional.pad(batch, (0, 1))[..., 1:]
        mixed = batch / 2 + means / 4 + right / 4 + state
        return mixed.repeat_interleave(self.info.scale, 2).repeat_interleave(self.info.scale, 3)


class Hungry(Windows):
    """Runs out of memory above `limit` pixels in one call."""

    def __init__(self, limit: int, error: Exception, info: ModelInfo = INFO):
        super().__init__(info)
        self.limit, self.error = limit, error

    def forward(self, batch, state):
        if batch.shape[0] * batch.shape[2] * batch.shape[3] > self.limit:
            raise self.error
        return super().forward(batch, state)


class Nearest(nn.Module):
    """Enlarges to the nearest pixel: what comes out is known without any arithmetic."""

    def __init__(self, info: ModelInfo = INFO):
        super().__init__()
        self.info = info

    def prepare(self, conditions):
        return None

    def forward(self, batch, state):
        return batch.repeat_interleave(self.info.scale, 2).repeat_interleave(self.info.scale, 3)


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, 0).repeat(2, 1)


SHAPES = [(1, 1), (1, 7), (9, 1), (1, 1, 3), (5, 3, 3), (33, 21, 1), (4, 4, 3), (1, 100, 3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_keeps_layout_dtype_and_every_pixel(shape, dtype):
    """Grey goes through three channels here; white and black stay what they are."""
    image = noise(*shape, dtype=dtype)
    image.reshape(-1)[0], image.reshape(-1)[-1] = np.iinfo(dtype).max, 0
    output = Predictor(Nearest(), tile=16)(image)
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, enlarged(image))


def test_all_levels_survive_the_way_to_the_device_and_back():
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


def test_alpha_is_enlarged_by_bicubic_and_leaves_the_colours_alone():
    image = noise(13, 9, 4, dtype=np.uint16)
    output = Predictor(Windows(), tile=16)(image)
    np.testing.assert_array_equal(output[:, :, :3], Predictor(Windows())(image[:, :, :3]))
    np.testing.assert_array_equal(output[:, :, 3], imresize(image[:, :, 3], 2))
    grey = image[:, :, 2:]
    output = Predictor(Windows())(grey)
    np.testing.assert_array_equal(output[:, :, 0], Predictor(Windows())(grey[:, :, 0]))
    np.testing.assert_array_equal(output[:, :, 1], imresize(grey[:, :, 1], 2))


def test_alpha_is_untouched_at_scale_1():
    image = noise(7, 5, 4)
    output = Predictor(Nearest(ModelInfo("same", "restoration", scale=1, multiple=4, halo=4)))(image)
    np.testing.assert_array_equal(output, image)


def test_grey_comes_back_as_bt601_luma_of_an_rgb_model():
    class RedGreenBlue(Nearest):
        def forward(self, batch, state):
            weights = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
            return super().forward(batch * weights, state)

    assert (
        Predictor(RedGreenBlue())(np.full((4, 4), 210, np.uint8)) == round(210 * (0.299 + 0.587 / 2))
    ).all()


def test_rgb_goes_through_a_grey_model_channel_by_channel():
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
    # the 30-pixel pictures have 4 tiles each and share calls of 3; the others are like nothing else
    assert [call[0] for call in model.calls] == [3, 3, 2, 1, 1, 1]
    for image, output in zip(images, outputs, strict=True):
        assert output.dtype == image.dtype
        np.testing.assert_array_equal(output, Predictor(Windows())(image))


def test_run_takes_read_only_tiles_and_no_images_at_all():
    predictor = Predictor(Windows())
    image = noise(6, 6, 3)
    cut = predictor.plan_for(6, 6)
    tiles = np.frombuffer(split(image, cut).tobytes(), np.uint8).reshape(1, 8, 8, 3)
    np.testing.assert_array_equal(predictor.run([(cut, tiles)])[0], predictor(image))
    assert predictor.run([]) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (37, 61, 3), (61, 37, 1), (5, 100, 3), (200, 9, 3)])
def test_bands_equal_the_whole(shape):
    image = noise(*shape)
    predictor = Predictor(Windows(), tile=16, batch=3)
    asked = []

    def read_rows(top: int, bottom: int) -> np.ndarray:
        asked.append(bottom - top)
        return image[top:bottom]

    bands = list(predictor.bands(predictor.plan_for(*shape[:2], streaming=True), read_rows))
    np.testing.assert_array_equal(np.concatenate(bands), Predictor(Windows(), tile=300)(image))
    assert max(asked) <= 16


def test_streaming_plans_of_wide_pictures_have_low_bands():
    predictor = Predictor(Windows(ModelInfo("fake", "super-resolution", 4, multiple=4, halo=16)))
    wide = predictor.plan_for(20_000, 40_000, streaming=True)
    assert wide.tile_width <= predictor.plan_for(20_000, 40_000).tile_width
    rows = [band.core_bottom - band.core_top for band in wide.bands]
    assert max(rows[1:-1]) * 4 * 40_000 * 4 <= BAND_PIXELS
    assert max(rows) <= max(rows[1:-1]) + wide.halo


def test_streaming_plans_take_the_smallest_tiles_that_the_halo_share_allows():
    predictor = Predictor(Windows(ModelInfo("fake", "super-resolution", 2, multiple=16, halo=32)))
    streamed = predictor.plan_for(9_000, 12_000, streaming=True)
    assert streamed.tile_height < predictor.tile
    assert 1 - 1 / (1 + streamed.overhead) <= 0.15


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_memory_pressure_halves_the_batch_then_the_tile_and_is_remembered(error, caplog):
    image = noise(96, 96, 3)
    model = Hungry(30 * 30, error)
    predictor = Predictor(model, tile=52, batch=4)
    with caplog.at_level(logging.WARNING):
        output = predictor(image)
    np.testing.assert_array_equal(output, Predictor(Windows(), tile=200)(image))
    assert predictor.tile <= 28
    assert predictor.call_pixels <= 52 * 52 // 2
    # 4 tiles, 2 tiles, 1 tile: then the tile; each step is said once
    said = [record.getMessage() for record in caplog.records]
    assert [f"at {count} tiles of 52 x 52" in said[i] for i, count in enumerate([4, 2, 1])] == [True] * 3
    settings_now = predictor.tile, predictor.call_pixels
    caplog.clear()
    np.testing.assert_array_equal(predictor(image), output)
    assert (predictor.tile, predictor.call_pixels) == settings_now
    assert not caplog.records


def test_halving_the_batch_is_enough_where_one_tile_fits():
    model = Hungry(2 * 24 * 24, OUT_OF_MEMORY[0])
    predictor = Predictor(model, tile=24, batch=8)
    image = noise(70, 70, 3)
    np.testing.assert_array_equal(predictor(image), Predictor(Windows())(image))
    assert predictor.tile == 24
    assert {call[0] for call in model.calls} <= {1, 2}
    # a limit in pixels, so that smaller tiles still fill their batches
    assert predictor.call_pixels == 2 * 24 * 24


def test_bands_survive_memory_pressure():
    image = noise(80, 70, 3)
    predictor = Predictor(Hungry(20 * 20, OUT_OF_MEMORY[1]), tile=40, batch=2)
    cut = predictor.plan_for(80, 70, streaming=True)
    bands = list(predictor.bands(cut, lambda top, bottom: image[top:bottom]))
    np.testing.assert_array_equal(np.concatenate(bands), Predictor(Windows(), tile=200)(image))


def test_below_the_smallest_tile_it_is_the_image_that_fails():
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


def test_defaults_are_derived():
    predictor = Predictor(Windows(ModelInfo("fake", "super-resolution", 2, multiple=16, halo=16)))
    assert predictor.tile == default_tile(halo=16, multiple=16)
    assert predictor.batch == 1
    assert predictor.plan_for(1000, 1100) == plan_for_model(predictor.info, 1000, 1100)


def test_info_and_digest_are_passed_on():
    model = Windows()
    assert Predictor(model).digest is None
    model.digest = "abc"
    assert Predictor(model).digest == "abc"
    assert Predictor(model).info is INFO


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision_is_the_products_and_not_the_parameters(precision):
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
    with pytest.raises(UsageError, match=r"precision 'float16' .* legal are float32, bfloat16"):
        Predictor(Windows(), precision="float16")
    with pytest.raises(UsageError, match="precision 'int8'"):
        Predictor(Windows(), precision="int8")


def test_wrong_settings_are_refused_in_a_sentence():
    with pytest.raises(UsageError, match="legal is 12 or more"):
        Predictor(Windows(), tile=11)
    with pytest.raises(UsageError, match="batch 0"):
        Predictor(Windows(), batch=0)
    with pytest.raises(UsageError, match="device 'gpu'"):
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
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UsageError, match="legal are"):
        Predictor(Windows())(image)


def test_a_model_that_breaks_its_promise_is_named():
    model = Windows()
    predictor = Predictor(model)
    model.info = ModelInfo("liar", "super-resolution", 3, multiple=4, halo=4)
    with pytest.raises(
        ModelError, match=r"'fake' returned shape \(1, 3, 12, 12\) .* promises \(1, 3, 8, 8\)"
    ):
        predictor(noise(4, 4, 3))


def test_output_that_is_not_finite_fails_the_image_and_is_never_written():
    predictor = Predictor(Windows(), conditions={"offset": float("nan")})
    with pytest.raises(ImageError, match="not finite in float32") as caught:
        predictor(noise(4, 4, 3))
    assert caught.value.reason == "bug"
