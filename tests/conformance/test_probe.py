"""The probe on models whose reach, batches and precisions are known, and how runs use its results."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from imgtx.codecs import Header
from imgtx.errors import ImageError, UsageError
from imgtx.inference.predictor import Predictor
from imgtx.inference.tiling import plan_for_model
from imgtx.models.info import ModelInfo
from imgtx.models.references import read_info
from imgtx.probing.precisions import choose_fastest, measure_precisions
from imgtx.probing.probe import MIN_PHOTO, batch_difference, find_seams, probe
from jobs.cli import main
from pipeline.job import make_job
from pipeline.spec import RunSpec
from pipeline.tasks.images import admit
from tests.conformance.architectures import save
from tests.conformance.conftest import without_spandrel
from tests.support.small_models import Windows, noise

INFO = ModelInfo("fake", "super-resolution", scale=1, multiple=1, halo=32)


class Centred(nn.Module):
    """Subtracts the mean of the whole image, which no tile knows."""

    info = INFO

    def prepare(self, conditions):
        return None

    def forward(self, batch, state=None):
        return (batch - batch.mean((2, 3), keepdim=True) + 0.5).clamp(0, 1)


class Picky(Centred):
    """Takes one image per call, in float32 only."""

    def forward(self, batch, state=None):
        assert len(batch) == 1
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("expected scalar type Float")
        return batch


def grain(side: int = MIN_PHOTO) -> np.ndarray:
    return noise(side, side, 3)


def test_the_probe_finds_a_grid_that_the_info_does_not_declare():
    """The windows have 4 pixels, but any size is declared: only tiles on multiples of 4 show no seam."""

    class Undeclared(Windows):
        def forward(self, batch, state):
            info, self.info = self.info, replace(self.info, multiple=4)
            padding = [-batch.shape[3] % 4, -batch.shape[2] % 4]
            padded = nn.functional.pad(batch, (0, padding[0], 0, padding[1]), "replicate")
            try:
                output = super().forward(padded, state or 0.0)
            finally:
                self.info = info
            return output[:, :, : 2 * batch.shape[2], : 2 * batch.shape[3]]

    model = Undeclared(ModelInfo("fake", "super-resolution", scale=2, multiple=1, halo=0))
    seams = find_seams(model, [grain(160)], "cpu", 1.0, halos=(9,))
    assert (seams["within"], seams["multiple"] % 4) == (True, 0)


def test_a_model_with_global_context_is_detected_and_runs_on_whole_images():
    photo = grain()
    photo[MIN_PHOTO // 2 :] //= 4
    found = probe(Centred(), [photo])
    assert found.measured["seams"]["within"] is False
    assert "looks at the whole image" in found.measured["not_tileable_because"]
    assert found.info.untiled > 0
    assert plan_for_model(found.info, 3000, 5000).count == 1
    model = Centred()
    model.info = found.info
    image = noise(90, 120, 3)
    whole = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255).float()
    expected = (model(whole)[0].permute(1, 2, 0) * 255 + 0.5).floor().numpy()
    np.testing.assert_array_equal(Predictor(model)(image), expected.astype(np.uint8))


def test_an_image_above_the_models_limit_is_refused_from_its_header():
    info = replace(INFO, scale=2, untiled=1_000_000)
    job = make_job(RunSpec("in", "out", model="m"), info, "digest")
    sizes = {"format": "png", "depth": 8, "channels": 3}
    header = Header(
        **{f: sizes.get(f) for f in Header.__dataclass_fields__} | {"height": 1000, "width": 1001}
    )
    with pytest.raises(ImageError, match=r"needs the whole picture at once and takes at most 1\.0") as caught:
        admit(header, job)
    assert caught.value.reason == "too_large"
    admit(replace(header, width=1000), job)


def test_a_whole_image_that_does_not_fit_fails_and_is_never_tiled():
    class Hungry(Centred):
        info = replace(INFO, untiled=10**6)

        def forward(self, batch, state=None):
            raise MemoryError

    with pytest.raises(ImageError, match="this model cannot be tiled"):
        Predictor(Hungry())(grain(400))


def test_a_precision_that_does_not_run_is_reported_and_left_out():
    model = Picky()
    assert batch_difference(model, grain(), "cpu") == float("inf")
    found = measure_precisions(model, torch.rand(1, 3, 64, 64))
    assert "expected scalar type" in found["bfloat16"]["fails"]
    assert "GPU" in found["float16"]["fails"]
    assert choose_fastest(found)[0] == "float32"


def timed(plain: float, last: float, levels: float = 0.0, **more: float) -> dict[str, float]:
    return {
        "seconds_per_megapixel": plain,
        "channels_last_seconds_per_megapixel": last,
        "channels_last_levels": levels,
    } | more


@pytest.mark.parametrize(
    ("bfloat16", "chosen"),
    [
        (timed(0.5, 0.5, db=60), ("bfloat16", False)),
        # The deviation is too large.
        (timed(0.5, 0.5, db=40), ("float32", False)),
        # The gain is too small.
        (timed(0.95, 0.95, db=60), ("float32", False)),
        (timed(0.5, 0.3, db=60), ("bfloat16", True)),
        # Fast in one layout only.
        (timed(2.0, 0.3, db=60), ("bfloat16", True)),
        # That layout changes pixels.
        (timed(0.5, 0.3, levels=0.6, db=60), ("bfloat16", False)),
        # It is not a module, so it has no layouts.
        ({"seconds_per_megapixel": 0.5, "db": 60}, ("bfloat16", False)),
    ],
)
def test_a_precision_and_a_layout_must_be_exact_and_faster(bfloat16, chosen):
    assert choose_fastest({"float32": timed(1.0, 0.95), "bfloat16": bfloat16}) == chosen


def test_a_precision_is_compared_with_float32_in_its_faster_layout():
    assert choose_fastest({"float32": timed(4.0, 0.3), "bfloat16": timed(2.0, 2.0, db=60)}) == (
        "float32",
        True,
    )


def test_measuring_layouts_restores_the_models_layout():
    model = nn.Conv2d(3, 3, 3, padding=1)
    model.info, model.prepare = INFO, None
    forward, model.forward = model.forward, lambda batch, state: forward(batch)
    with torch.inference_mode():
        found = measure_precisions(model, torch.rand(1, 3, 32, 32))
    assert model.weight.is_contiguous()
    assert found["float32"]["channels_last_levels"] < 0.5
    assert found["bfloat16"]["channels_last_seconds_per_megapixel"] > 0


def test_unsuitable_photos_are_refused():
    for photos in ([], [noise(100, 400, 3)], [noise(400, 400, 4)]):
        with pytest.raises(UsageError, match="expected 8-bit RGB photos"):
            probe(Centred(), photos)


@without_spandrel
def test_probe_writes_a_sidecar_that_runs_and_show_read(tmp_path: Path):
    model = str(save("Compact", tmp_path))
    done = CliRunner().invoke(main, ["models", "probe", model, "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.stderr
    answers = json.loads(done.stdout)
    info, digest = read_info(model)
    assert info.halo == answers["info"]["halo"] == 16
    assert info.batches
    assert answers["seams"]["levels"] <= 1
    assert answers["precisions"]["bfloat16"]["db"] > 30
    assert info.largest == answers["largest_tile"]["side"]
    assert answers["memory_mb_per_megapixel"] > 0
    assert answers["model"]["architecture"] == "RealESRGAN Compact"
    shown = json.loads(CliRunner().invoke(main, ["models", "show", model]).stdout)
    assert (shown["digest"], shown["halo"]) == (digest, 16)
    assert shown["probe"]["precisions"] == answers["precisions"]
    assert shown["model"] == answers["model"]
    table = CliRunner().invoke(main, ["models", "probe", model, "--device", "cpu"]).stdout
    for word in ("halo", "float32", "bfloat16", "largest tile", f"written to {model}.imgtx.json"):
        assert word in table


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sr-x2", "--levels", "0"), "--levels 0.0: give a number"),
        (("sr-x2", "--photos", "nowhere"), "no photos at nowhere"),
        (("no.pth",), "no model file at no.pth"),
    ],
)
def test_mistakes_end_in_one_line(arguments, complaint):
    done = CliRunner().invoke(main, ["models", "probe", *arguments])
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
