"""Transparent pictures and grey pictures in three channels: the same in memory and on disk, in every form of file."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

import imgtx
import pipeline.stages.transform as transform_stage
from imgtx.codecs import Picture
from imgtx.codecs import decode as decode_picture
from imgtx.inference.predictor import Predictor
from imgtx.models.info import ModelInfo
from pipeline.job import make_job
from pipeline.spec import Job, RunSpec
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import WORK
from tests.pipeline.stages.test_known_pixels import Negative
from tests.pipeline.stages.test_stages import through_stages
from tests.support.small_models import Windows
from tests.support.zoo import photo, saved

DIGEST = "0" * 64
IN_MEMORY, ON_DISK = 50, 0.001
HALVES = np.arange(90) < 48


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    info = ModelInfo("fake", "super-resolution", scale=2, multiple=4, halo=4)
    return job_for(Windows(info), tmp_path, monkeypatch)


def job_for(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Job:
    def load(*_, **__) -> Predictor:
        return Predictor(model, tile=48)

    model.digest = DIGEST
    monkeypatch.setattr(imgtx, "load", load)
    monkeypatch.setattr(transform_stage, "local_model", lambda *_: None)
    (tmp_path / "source").mkdir()
    spec = RunSpec(
        str(tmp_path / "source"), str(tmp_path / "out"), model.info.task, "fake", settings, format="png"
    )
    return make_job(spec, model.info, DIGEST)


def made(job: Job, name: str, data: bytes, megapixels: float) -> tuple[Picture, list[str]]:
    """Run one file through all stages; return the output and the row's notes."""
    (Path(job.spec.source) / name).write_bytes(data)
    job = replace(job, spec=replace(job.spec, stream_megapixels=megapixels))
    (row,) = through_stages(job, to_table([{"key": name, "size": 1, "output": "a.png"}], WORK))
    assert (row["status"], row["message"]) == ("written", "")
    output = (Path(job.spec.destination) / "images/a.png").read_bytes()
    return decode_picture(output, max_pixels=10**7), row["notes"]


def both(job: Job, name: str, data: bytes) -> Picture:
    """Return the output, after checking that the path through disk gives the same pixels and notes."""
    (memory, notes), (disk, same_notes) = (made(job, name, data, m) for m in (IN_MEMORY, ON_DISK))
    np.testing.assert_array_equal(memory.pixels, disk.pixels)
    assert (memory.alpha is None) == (disk.alpha is None)
    if memory.alpha is not None and disk.alpha is not None:
        np.testing.assert_array_equal(memory.alpha, disk.alpha)
    assert notes == same_notes
    return memory


def vips_file(samples: np.ndarray, suffix: str, **options) -> bytes:
    space = {(np.uint8, True): "srgb", (np.uint8, False): "b-w", (np.uint16, True): "rgb16"}
    kind = space.get((samples.dtype.type, samples.shape[2] > 2), "grey16")
    image = pyvips.Image.new_from_array(samples).copy(interpretation=kind)
    return image.write_to_buffer(suffix, **options)


def forms(colour: int) -> dict[str, bytes]:
    """Return a light picture over hidden pixels of a colour, in every form of transparency that files have."""
    alpha = np.where(HALVES, 255, 0) * np.ones((60, 1), int)
    # An edge with one column half and one nearly transparent.
    alpha[:, 47], alpha[:, 48] = 128, 3
    light = np.where(alpha[..., None] > 0, 240, colour) * np.ones(3, int)
    rgba = np.dstack([light, alpha]).astype(np.uint8)
    wide = np.dstack([light * 257, alpha * 257]).astype(np.uint16)
    palette = Image.fromarray(np.where(HALVES, 0, 1).astype(np.uint8) * np.ones((60, 1), np.uint8), "P")
    palette.putpalette([240] * 3 + [colour] * 3)
    out = io.BytesIO()
    palette.save(out, "PNG", transparency=bytes([255, 0]))
    return {
        "rgba.png": saved(rgba),
        "rgba16.png": vips_file(wide, ".png"),
        "la.png": vips_file(rgba[..., [0, 3]], ".png"),
        "la16.png": vips_file(wide[..., [0, 3]], ".png"),
        "palette.png": out.getvalue(),
        "key.png": saved(np.where(HALVES, 240, colour).astype(np.uint8) * np.ones((60, 1), np.uint8),
                         transparency=colour),
        "straight.tif": saved(rgba, "TIFF"),
        "straight16.tif": vips_file(wide, ".tif"),
        "associated.tif": vips_file(rgba, ".tif", premultiply=True),
        "rgba.webp": saved(rgba, "WEBP", lossless=True, exact=True),
    }  # fmt: skip


@pytest.mark.parametrize("name", forms(0))
def test_every_form_of_transparency_hides_its_colours_from_the_model(job, name):
    dark, bright = (both(job, name, forms(colour)[name]) for colour in (0, 99))
    np.testing.assert_array_equal(dark.pixels, bright.pixels)
    assert dark.alpha is not None
    # As displayed over black, where hidden colours do not matter. A colour multiplied by alpha 3 in 8 bits is 61 off.
    steps = 8 if name == "associated.tif" else 2
    full = np.iinfo(dark.pixels.dtype).max
    shown = dark.pixels * (dark.alpha[..., None] / full)
    assert np.abs(shown - dark.alpha[..., None] * (240 / 255)).max() <= steps * full / 255


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_in_three_channels_comes_back_grey(job, depth):
    grey = photo(60, 90, 1, depth)[..., None]
    expected = both(job, "one.png", vips_file(grey, ".png"))
    found = both(job, "three.png", vips_file(np.repeat(grey, 3, axis=2), ".png"))
    np.testing.assert_array_equal(found.pixels, np.repeat(expected.pixels, 3, axis=2))
    # One pixel in colour makes a picture in colour.
    speck = np.repeat(grey, 3, axis=2)
    speck[-1, -1, 0] ^= 16
    assert np.ptp(both(job, "speck.png", vips_file(speck, ".png")).pixels[-1, -1]) > 1


def test_colours_that_nobody_sees_do_not_make_a_picture_coloured(job):
    grey = np.repeat(photo(60, 90, 1)[..., None], 3, axis=2)
    hidden = np.random.default_rng(0).integers(0, 256, grey.shape, np.uint8)
    rgba = np.dstack(
        [np.where(HALVES[:, None], grey, hidden), np.where(HALVES, 255, 0) * np.ones((60, 1), int)]
    )
    found = both(job, "a.png", saved(rgba.astype(np.uint8)))
    assert np.ptp(found.pixels.astype(int), axis=2).max() == 0


class Tinting(Negative):
    """Return a negative with too much red."""

    def forward(self, batch, state):
        return (1 - batch[:, :-1]) * batch.new_tensor([1.0, 0.5, 0.5])[:, None, None]


@pytest.mark.parametrize("coloured", [False, True], ids=["grey", "colour"])
def test_holes_are_filled_from_what_is_visible_and_all_else_stays(tmp_path, monkeypatch, coloured):
    """Outside the holes even hidden colours come back; a hole in a grey picture is filled with grey."""
    job = job_for(Tinting(), tmp_path, monkeypatch, mask_color="#ff00ff")
    rng = np.random.default_rng(0)
    visible = photo(60, 90) if coloured else np.repeat(photo(60, 90, 1)[..., None], 3, axis=2)
    alpha = np.where(HALVES, 255, 0) * np.ones((60, 1), int)
    hole = np.zeros((60, 90), bool)
    hole[10:50, 30:60] = True

    def painted(seed: int) -> np.ndarray:
        hidden = np.random.default_rng(seed).integers(0, 200, visible.shape, np.uint8)
        colours = np.where(alpha[..., None] > 0, visible, hidden)
        colours[hole] = [255, 0, 255]
        return np.dstack([colours, alpha]).astype(np.uint8)

    image = painted(int(rng.integers(1000)))
    found = both(job, "a.png", saved(image))
    np.testing.assert_array_equal(found.pixels[~hole], image[~hole][:, :3])
    other = both(job, "b.png", saved(painted(7)))
    np.testing.assert_array_equal(found.pixels[hole], other.pixels[hole])
    tint = np.ptp(found.pixels[hole].astype(int), axis=1).max()
    assert (tint > 0) == coloured
    by_library = Predictor(Tinting(), tile=48)(image, hole)
    np.testing.assert_array_equal(by_library[..., :3], found.pixels)
