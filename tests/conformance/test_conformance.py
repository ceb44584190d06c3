"""What the pipeline requires of every model, of any origin."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from imgtx.errors import UsageError
from imgtx.imageops.resize import imresize
from imgtx.inference.predictor import Predictor
from imgtx.models.adapters.spandrel import import_spandrel
from imgtx.models.references import load_model, read_info
from imgtx.probing.one_style import needing_nothing
from imgtx.probing.probe import find_seams
from tests.conformance.architectures import network
from tests.conformance.conftest import without_spandrel
from tests.support.small_models import noise

LOOKS_EVERYWHERE = ("ATD", "RCAN")


def loaded(references, kind: str) -> Any:
    return needing_nothing(load_model(references(kind)))


def batch_of(info: Any, count: int, side: int = 24) -> torch.Tensor:
    side = -(-side // info.multiple) * info.multiple
    return torch.rand(count, info.in_channels, side, side, generator=torch.Generator().manual_seed(3))


def textured(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return waves of every length with grain on them: a misplaced tile shows on these."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin((x * (3 + c) + y * (5 - c)) / 7) + np.sin((x * y) / (300 + 40 * c)) for c in range(channels)
    ]
    grain = np.random.default_rng(2).normal(0, 12, (height, width, channels))
    return (127 + 50 * np.stack(waves, -1) + grain).clip(0, 255).astype(np.uint8)


def test_images_of_every_size_and_kind_are_scaled(references, kind):
    predictor = Predictor(loaded(references, kind))
    s = predictor.info.scale
    for shape in [(1, 1), (5, 9, 3), (23, 17, 1), (13, 18, 4), (9, 6, 2)]:
        image = noise(*shape)
        output = predictor(image)
        assert output.shape == (shape[0] * s, shape[1] * s, *shape[2:])
        assert output.dtype == np.uint8
    deep = predictor(noise(7, 6, 3, dtype=np.uint16))
    assert (deep.dtype, deep.shape) == (np.uint16, (7 * s, 6 * s, 3))


def test_alpha_bypasses_the_model(references, kind):
    predictor = Predictor(loaded(references, kind))
    image = noise(12, 10, 4)
    image[:, :, 3] |= 0x20
    output = predictor(image)
    np.testing.assert_array_equal(output[:, :, :3], predictor(image[:, :, :3]))
    s = predictor.info.scale
    np.testing.assert_array_equal(output[:, :, 3], image[:, :, 3] if s == 1 else imresize(image[:, :, 3], s))


def test_hidden_colours_never_reach_the_model(references, kind):
    predictor = Predictor(loaded(references, kind))
    image = noise(12, 20, 4)
    image[:, :, 3] = np.where(np.arange(20) < 9, 255, 0)
    other = image.copy()
    other[:, 9:, :3] = 255 - other[:, 9:, :3]
    np.testing.assert_array_equal(predictor(image), predictor(other))


def test_grey_in_three_channels_goes_through_as_grey(references, kind):
    predictor = Predictor(loaded(references, kind))
    grey = noise(11, 14)
    wide, narrow = predictor(np.repeat(grey[:, :, None], 3, axis=2)), predictor(grey)
    if predictor.info.keeps_grey:
        np.testing.assert_array_equal(wide, np.repeat(narrow[:, :, None], 3, axis=2))
    else:
        # Style gives it colours, of which grey keeps the luma; the mean of rounded values is not the rounded mean.
        assert np.abs(narrow - wide @ [0.299, 0.587, 0.114]).max() <= 1.001


def test_a_batch_equals_its_images_one_by_one(references, kind):
    model = loaded(references, kind)
    batch = batch_of(model.info, 3)
    with torch.inference_mode():
        together = model(batch, None)
        alone = torch.cat([model(image[None], None) for image in batch])
    assert float((together - alone).abs().max()) < 0.5 / 255
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1


def test_a_model_repeats_its_output_exactly(references, kind):
    model = loaded(references, kind)
    batch = batch_of(model.info, 1)
    with torch.inference_mode():
        assert torch.equal(model(batch, None), model(batch, None))
    again = loaded(references, kind)
    with torch.inference_mode():
        assert torch.equal(model(batch, None), again(batch, None))
    assert model.digest == again.digest == read_info(references(kind))[1]


def test_tiles_equal_the_whole_at_the_measured_halo(references, kind):
    if kind == "packaged":
        pytest.skip("tests/imgtx/models/test_packaged.py holds it, at the halo that is in the weights")
    if kind in LOOKS_EVERYWHERE:
        pytest.skip("no halo hides its tiles: the next test")
    model = loaded(references, kind)
    levels, halos = {"SCUNet": (3.0, (64,)), "DRCT": (1.0, (16,))}.get(kind, (1.0, (16, 32)))
    seams = find_seams(model, [textured(160, 160, model.info.in_channels)], "cpu", levels, halos=halos)
    assert seams["within"], seams
    model.info = replace(model.info, halo=seams["halo"], multiple=seams["multiple"])
    halo = -(-seams["halo"] // seams["multiple"]) * seams["multiple"]
    tile = 2 * halo + max(32, seams["multiple"])
    image = textured(130, max(150, tile + 20))
    whole = Predictor(model, tile=512)(image)
    cutting = Predictor(model, tile=tile)
    assert cutting.plan_for(*image.shape[:2]).count > 1
    assert np.abs(whole.astype(int) - cutting(image)).max() <= levels


@pytest.mark.parametrize("name", [pytest.param(n, marks=without_spandrel) for n in LOOKS_EVERYWHERE])
def test_a_model_with_global_context_is_detected_and_runs_on_whole_images(references, name):
    """With global averages or category attention, a tile of a half-dark image differs from the whole."""
    model = loaded(references, name)
    picture = textured(192, 192, model.info.in_channels)
    picture[96:] //= 8
    seams = find_seams(model, [picture], "cpu", 1.0, halos=(32,))
    assert not seams["within"], seams
    model.info = replace(model.info, untiled=10**6)
    predictor = Predictor(model)
    assert predictor.plan_for(900, 1100).count == 1
    image = textured(40, 56)
    padded = np.pad(
        image, ((0, -40 % model.info.multiple), (0, -56 % model.info.multiple), (0, 0)), "reflect"
    )
    with torch.inference_mode():
        whole = model(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255, None)[0]
    expected = (whole.permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).numpy()
    s = model.info.scale
    assert np.abs(predictor(image).astype(int) - expected[: 40 * s, : 56 * s]).max() <= 1


def test_memory_pressure_leads_to_smaller_calls(references, kind):
    model = loaded(references, kind)
    if model.info.multiple > 16:
        pytest.skip("its smallest tile is larger than the picture")
    model.info = replace(model.info, halo=model.info.multiple)
    limit = (8 * model.info.multiple) ** 2

    class Hungry:
        info, prepare = model.info, model.prepare

        def __call__(self, batch: torch.Tensor, state: Any) -> torch.Tensor:
            if batch.shape[0] * batch.shape[2] * batch.shape[3] > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return model(batch, state)

    side = 12 * model.info.multiple
    predictor = Predictor(Hungry(), tile=side)
    output = predictor(textured(side, side))
    assert output.shape[0] == side * model.info.scale
    assert predictor.tile**2 <= limit


def test_a_precision_runs_or_is_refused(references, kind):
    model = loaded(references, kind)
    image = textured(24, 24)
    exact = Predictor(model)(image).astype(int)
    for precision in ("bfloat16", "float16"):
        if precision in model.info.dtypes:
            assert np.abs(Predictor(model, precision=precision)(image) - exact).mean() < 3
        else:
            with pytest.raises(UsageError, match="expected one of float32"):
                Predictor(model, precision=precision)


def test_the_adapter_equals_the_library(references, architecture):
    """Compare with the library's own call on images that fit its size rules, for colour order, range and padding."""
    spandrel = import_spandrel()
    descriptor = spandrel.ModelLoader().load_from_state_dict(network(architecture).state_dict())
    model = loaded(references, architecture)
    batch = batch_of(model.info, 1, 40)
    with torch.inference_mode():
        assert torch.equal(model(batch, None), descriptor(batch.clone()))
    info = model.info
    assert (info.scale, info.in_channels) == (descriptor.scale, descriptor.input_channels)
    assert info.task == ("super-resolution" if info.scale > 1 else "restoration")
