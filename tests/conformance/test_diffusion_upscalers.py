"""Upscalers of diffusers under `imgtx upscale`: noise by pixel position, blended tiles, the same picture each time.

Each is a tiny one with random weights (`tests/support/tiny_pipelines.py`).
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import imgtx
from imgtx.errors import ModelError, UsageError
from imgtx.inference.predictor import Predictor
from imgtx.models.adapters.positional_noise import PositionalNoise
from imgtx.models.references import digest_of, find_source, load_model, read_info
from jobs.models.probe import ProbeOptions, describe, probe_model
from pipeline.job import make_job
from pipeline.spec import RunSpec
from tests.support.tiny_pipelines import UPSCALERS, save_pipeline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)
SCALES = {"stable-diffusion-upscale": 4, "latent-diffusion-upscale": 2}


@pytest.fixture(params=UPSCALERS, scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(request.param, tmp_path_factory.mktemp("upscalers") / request.param)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_pictures_come_out_the_same_whole_in_batches_and_on_disk(folder: Path):
    reference = f"diffusers:{folder}?steps=2"
    upscale = imgtx.load(reference, device="cpu")
    assert isinstance(upscale, Predictor)
    picture, scale = photo(40, 52), SCALES[folder.name]
    made = upscale(picture)
    assert made.shape == (40 * scale, 52 * scale, 3)
    torch.manual_seed(1)
    batched = Predictor(load_model(reference), device="cpu", batch=3)
    assert furthest(batched(picture), made) <= 1
    cut = upscale.plan_for(40, 52)
    assert cut.count > 1
    streamed = np.zeros_like(made)
    for place, pixels in upscale.tiles(
        cut, lambda w: picture[w.top : w.top + w.height, w.left : w.left + w.width]
    ):
        streamed[place.top : place.bottom, place.left : place.right] = pixels
    np.testing.assert_array_equal(streamed, made)
    other = imgtx.load(f"{reference}&seed=1", device="cpu")(picture)
    assert furthest(other, made) > 1


def test_show_says_that_tiles_are_blended_and_probe_has_nothing_to_measure(folder: Path):
    info, _ = read_info(folder)
    assert (info.task, info.scale, info.blended, info.largest) == (
        "super-resolution",
        SCALES[folder.name],
        True,
        32,
    )
    shown = describe(str(folder))
    assert "tiled output does not equal untiled output" in shown["model"]["tiles"]
    assert shown["probe"].startswith("none: the model draws noise")
    with pytest.raises(UsageError, match="is not probed: the model draws noise"):
        probe_model(str(folder), ProbeOptions())
    spec = RunSpec("in", "out", model=str(folder), self_ensemble=True)
    with pytest.raises(UsageError, match=r"--self-ensemble with --model .* leave it out"):
        make_job(spec, info, "0" * 64)


def test_steps_noise_level_and_seed_are_in_the_digest_and_checked(folder: Path):
    plain = f"diffusers:{folder}"
    references = [plain, *(f"{plain}?{more}" for more in ("steps=2", "noise_level=3", "seed=4"))]
    assert len({digest_of(find_source(reference)) for reference in references}) == 4
    for wrong in ("steps=0", "steps=two", "seed=-1", "colour=1"):
        with pytest.raises(UsageError, match="for upscalers steps=N, noise_level=N, seed=N"):
            read_info(f"{plain}?{wrong}")


def test_tiles_that_overlap_get_the_same_noise_where_they_do():
    def drawn(places: list[tuple[int, int]], seed: int = 0) -> list[torch.Tensor]:
        noise, made = PositionalNoise(seed, places, (32, 32)), []
        with noise:
            made.extend(torch.randn((1, 4, 64, 64), generator=g)[0] for g in noise.generators)
            made.extend(torch.randn((len(places), 3, 32, 32)))
        return made

    one, other, coarse, coarse_other = drawn([(0, 0), (16, 24)])
    torch.testing.assert_close(one[:, 32:, 48:], other[:, :32, :16])
    torch.testing.assert_close(coarse[:, 16:, 24:], coarse_other[:, :16, :8])
    assert abs(float(one.mean())) < 0.05
    assert abs(float(one.std()) - 1) < 0.05
    assert not torch.equal(drawn([(0, 0)], seed=1)[0], one)
    torch.testing.assert_close(drawn([(0, 0)])[0], one)
    with PositionalNoise(0, [(0, 0)], (32, 32)), pytest.raises(ModelError, match="has no place in 1 tiles"):
        torch.randn(5)
