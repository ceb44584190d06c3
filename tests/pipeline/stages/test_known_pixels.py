"""Known pixels stay unchanged to the bit, even if the model changes every pixel it is given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from torch import Tensor, nn

import imgtx
from imgtx.codecs import decode as decode_picture
from imgtx.degradations.holes import random_mask
from imgtx.inference.predictor import Predictor
from imgtx.models.info import ModelInfo
from pipeline.job import make_job
from pipeline.spec import Job, RunSpec
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import WORK
from tests.pipeline.stages.test_stages import through_stages
from tests.support.zoo import photo

INFO = ModelInfo("negative", "inpainting", 1, 4, 4, 4, masks=True)
DIGEST = "0" * 64


class Negative(nn.Module):
    """Return the negative of the whole picture and ignore the mask: no pixel of 8 or 16 bits is its own negative."""

    info, digest = INFO, DIGEST

    def prepare(self, conditions: dict[str, Any]) -> None:
        return None

    def forward(self, batch: Tensor, state: None) -> Tensor:
        return 1 - batch[:, :-1]


def drawn(height: int, width: int) -> np.ndarray:
    return random_mask(np.random.default_rng(0), height, width, "thin")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [None, 32])
def test_the_library_changes_only_the_hole(depth, channels, tile):
    image, mask = photo(70, 90, channels, depth), drawn(70, 90)
    made = Predictor(Negative(), tile=tile)(image, mask)
    np.testing.assert_array_equal(made[~mask], image[~mask])
    changed = made[mask] != image[mask]
    assert changed.mean() > 0.9


def test_alpha_is_unchanged():
    image, mask = photo(40, 52, 4), drawn(40, 52)
    made = Predictor(Negative())(image, mask)
    np.testing.assert_array_equal(made[..., 3], image[..., 3])
    np.testing.assert_array_equal(made[~mask], image[~mask])


def test_a_batch_of_tiles_with_and_without_holes_changes_only_the_holes():
    image, mask = photo(130, 130), np.zeros((130, 130), bool)
    mask[3:9, 100:120] = True
    made = Predictor(Negative(), tile=32, batch=8)(image, mask)
    np.testing.assert_array_equal((made != image).any(axis=2) & ~mask, np.zeros_like(mask))
    assert (made != image).any(axis=2)[mask].all()


def as_png(pixels: np.ndarray) -> bytes:
    return pyvips.Image.new_from_array(pixels).pngsave_buffer()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job whose stages run the negative."""
    monkeypatch.setattr(imgtx, "load", lambda *_, **__: Predictor(Negative()))
    monkeypatch.setattr("pipeline.stages.transform.local_model", lambda *_: None)
    for name in ("source", "masks"):
        (tmp_path / name).mkdir()
    spec = RunSpec(
        str(tmp_path / "source"),
        str(tmp_path / "out"),
        "inpainting",
        "negative",
        {"masks": str(tmp_path / "masks")},
    )
    return make_job(spec, INFO, DIGEST)


@pytest.mark.parametrize("megapixels", [50, 0.001], ids=["in memory", "on disk"])
@pytest.mark.parametrize(("channels", "depth"), [(3, 8), (3, 16), (1, 8)])
def test_a_run_writes_known_pixels_unchanged(job, tmp_path, megapixels, channels, depth):
    image, mask = photo(90, 110, channels, depth), drawn(90, 110)
    (tmp_path / "source/a.png").write_bytes(as_png(image))
    (tmp_path / "masks/a.png").write_bytes(as_png(np.where(mask, 255, 0).astype(np.uint8)))
    job = replace(job, spec=replace(job.spec, stream_megapixels=megapixels))
    mask_input = {"role": "mask", "key": "a.png", "version": ""}
    work = to_table([{"key": "a.png", "size": 1, "inputs": [mask_input], "output": "a.png"}], WORK)
    (row,) = through_stages(job, work)
    assert (row["status"], row["message"]) == ("written", "")
    made = decode_picture((tmp_path / "out/images/a.png").read_bytes(), max_pixels=10**6).pixels
    expected = image if image.ndim == 3 else image[..., None]
    np.testing.assert_array_equal(made[~mask], expected[~mask])
    assert (made[mask] != expected[mask]).any(axis=1).mean() > 0.9
