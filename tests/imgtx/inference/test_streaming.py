"""Streaming tile by tile makes the same calls and pixels as the whole image in memory, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtx.errors import UsageError
from imgtx.imageops.geometry import Tile
from imgtx.inference.predictor import Predictor
from imgtx.inference.tiling import split
from tests.support.small_models import OUT_OF_MEMORY, Hungry, Nearest, Windows, noise


def streamed(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """Return the pieces of `tiles` in their places; 7 where there is none."""
    scale = predictor.info.scale
    canvas = np.full((image.shape[0] * scale, image.shape[1] * scale, image.shape[2]), 7, image.dtype)
    cut = predictor.plan_for(*image.shape[:2])
    for place, pixels in predictor.tiles(cut, lambda window: part(image, window)):
        canvas[place.top : place.bottom, place.left : place.right] = pixels
    return canvas


def part(image: np.ndarray, window: Tile) -> np.ndarray:
    return image[window.top : window.bottom, window.left : window.right]


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 3])),
    st.integers(12, 60),
    st.integers(1, 5),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_streamed_equals_run(shape, tile, batch, dtype):
    image = noise(*shape, dtype=dtype)
    predictor = Predictor(Windows(), tile=tile, batch=batch)
    cut = predictor.plan_for(*shape[:2])
    (expected,) = predictor.run([(cut, split(image, cut))])
    np.testing.assert_array_equal(streamed(predictor, image), expected)


def test_streaming_makes_the_same_calls_as_run():
    """Batches are the same with and without streaming: on a GPU the sums of other shapes may round differently."""
    image = noise(70, 50, 3)
    whole, pieces = Windows(), Windows()
    Predictor(whole, tile=16, batch=3)(image)
    streamed(Predictor(pieces, tile=16, batch=3), image)
    assert pieces.calls == whole.calls
    assert max(call[0] for call in pieces.calls) == 3


@pytest.mark.parametrize("batch", [1, 3])
def test_streaming_reads_ahead_at_most_one_call(batch):
    predictor = Predictor(Windows(), tile=16, batch=batch)
    image = noise(61, 37, 3)
    read = []

    def read_window(window: Tile) -> np.ndarray:
        read.append(window)
        return part(image, window)

    cut = predictor.plan_for(61, 37)
    for done, (place, _) in enumerate(predictor.tiles(cut, read_window)):
        assert done < len(read) <= done + batch
        core = cut.cores[done]
        assert (place.top, place.left) == (2 * core.top, 2 * core.left)
    assert len(read) == cut.count
    assert max(max(window.height, window.width) for window in read) <= 16


def test_streaming_memory_does_not_grow_with_the_image():
    """The image has 16 bits, whose output is allocated by numpy too, where tracemalloc sees it."""

    def peak(width: int) -> int:
        predictor = Predictor(Nearest(), tile=64)
        cut = predictor.plan_for(64, width)
        assert len(cut.cores) == len(cut.tiles) > width // 64
        tracemalloc.start()
        pieces = predictor.tiles(cut, lambda window: np.zeros((window.height, window.width, 3), np.uint16))
        pixels = sum(place.height * place.width for place, _ in pieces)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert pixels == 4 * 64 * width
        return most

    # The first call fills caches.
    peak(1_000)
    narrow, wide = peak(4_000), peak(40_000)
    output_tile = (2 * 64) ** 2 * 3 * np.dtype(np.uint16).itemsize
    assert output_tile < wide < 5 * output_tile
    assert wide < 1.1 * narrow


def test_streaming_refuses_input_that_the_model_does_not_accept():
    predictor = Predictor(Windows())
    cut = predictor.plan_for(9, 9)
    with pytest.raises(UsageError, match="2 channels"):
        next(predictor.tiles(cut, lambda window: noise(9, 9, 2)))
    with pytest.raises(UsageError, match="float32"):
        next(predictor.tiles(cut, lambda window: np.zeros((9, 9, 3), np.float32)))
    with pytest.raises(ValueError, match="plan cuts"):
        next(predictor.tiles(cut, lambda window: noise(9, 8, 3)))


def test_streaming_survives_memory_pressure():
    image = noise(80, 70, 3)
    model = Hungry(20 * 20, OUT_OF_MEMORY[1])
    predictor = Predictor(model, tile=40, batch=4)
    np.testing.assert_array_equal(streamed(predictor, image), Predictor(Windows(), tile=200)(image))
    assert predictor.tile <= 20
    settings_now = predictor.tile, predictor.call_pixels
    np.testing.assert_array_equal(streamed(predictor, image), Predictor(Windows(), tile=200)(image))
    assert (predictor.tile, predictor.call_pixels) == settings_now
