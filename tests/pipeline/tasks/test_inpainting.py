"""Pictures with masks through stages and plan: which pixels change, and which pictures run again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode as decode_picture
from imgtx.degradations.holes import random_mask
from imgtx.models.weight_file import read_info
from pipeline.job import make_job
from pipeline.ledger.ledger import Ledger
from pipeline.planning.plan import make_plan
from pipeline.sources import open_source
from pipeline.spec import Job, RunSpec
from pipeline.storage.store import open_store
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import NO_MASK, OUTCOME, WORK
from pipeline.tasks.base import Opened
from pipeline.tasks.inpainting import INPAINTING
from tests.pipeline.stages.test_stages import through_stages
from tests.support.archive import save_tiny_model
from tests.support.ledger_rows import outcome
from tests.support.zoo import exif_block, photo, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", scale=1, holes=True)


@pytest.fixture
def job(tmp_path: Path, model: str) -> Job:
    info, digest = read_info(model)
    for name in ("source", "masks"):
        (tmp_path / name).mkdir()
    uris = {name: str(tmp_path / name) for name in ("source", "masks")}
    spec = RunSpec(uris["source"], str(tmp_path / "out"), "inpainting", model, {"masks": uris["masks"]})
    return make_job(spec, info, digest)


def put(root: str | None, key: str, data: bytes) -> None:
    path = Path(str(root)) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    return random_mask(np.random.default_rng(seed), height, width, "thin")


def as_file(mask: np.ndarray) -> bytes:
    return saved(np.where(mask, 255, 0).astype(np.uint8))


def through(job: Job, key: str, mask: str, output: str = "") -> dict[str, Any]:
    inputs = [{"role": "mask", "key": mask, "version": ""}] if mask else []
    work = to_table([{"key": key, "size": 1, "inputs": inputs, "output": output or key}], WORK)
    (row,) = through_stages(job, work)
    return row | dict(row["measures"])


def written(job: Job, row: dict[str, Any]) -> np.ndarray:
    assert (row["status"], row["message"]) == ("written", "")
    picture = decode_picture(
        (Path(job.spec.destination) / "images" / row["output"]).read_bytes(), max_pixels=10**7
    )
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
@pytest.mark.parametrize(("channels", "depth"), [(3, 8), (1, 8), (1, 16), (4, 8)])
def test_pixels_outside_the_hole_are_unchanged_to_the_bit(job, name, channels, depth):
    image, mask = photo(40, 52, channels, depth), drawn(40, 52)
    source = "a.png" if depth == 16 or channels == 4 else name
    kind = {"png": "PNG", "tif": "TIFF", "bmp": "BMP"}[source[2:]]
    put(job.spec.source, source, saved(image, kind))
    put(job.spec.settings["masks"], "a.png", as_file(mask))
    row = through(job, source, "a.png", output=name if channels < 4 and depth == 8 else "a.tif")
    pixels = written(job, row)
    expected = image if image.ndim == 3 else image[..., None]
    np.testing.assert_array_equal(pixels[~mask], expected[~mask])
    assert (pixels[mask] != expected[mask]).any(axis=1).mean() > 0.9
    assert row["hole_share"] == pytest.approx(mask.mean())
    np.testing.assert_array_equal(pixels.squeeze(), imgtx.load(job.spec.model)(image, mask))


def test_a_picture_too_large_for_memory_gives_the_same_pixels(job, monkeypatch):
    image, mask = photo(300, 340), drawn(300, 340)
    # Larger than a tile.
    mask[40:280, 30:200] = True
    put(job.spec.source, "a.png", saved(image))
    put(job.spec.settings["masks"], "a.png", as_file(mask))
    ordinary = through(job, "a.png", "a.png")
    usual = written(job, ordinary)
    large = replace(job, spec=replace(job.spec, stream_megapixels=0.01))
    row = through(large, "a.png", "a.png")
    np.testing.assert_array_equal(written(job, row), usual)
    assert row["hole_share"] == pytest.approx(ordinary["hole_share"])
    assert row["hole_share"] > 0.4
    put(job.spec.settings["masks"], "a.png", as_file(mask[:-1]))
    assert (through(large, "a.png", "a.png")["reason"], through(job, "a.png", "a.png")["reason"]) == (
        "bad_mask",
    ) * 2
    put(job.spec.settings["masks"], "a.png", b"no image")
    assert (through(large, "a.png", "a.png")["reason"], through(job, "a.png", "a.png")["reason"]) == (
        "bad_mask",
    ) * 2


def test_a_bad_mask_becomes_a_row_that_says_what_to_do(job):
    put(job.spec.source, "a.png", saved(photo(30, 20)))
    put(job.spec.settings["masks"], "a.png", as_file(drawn(20, 30)))
    row = through(job, "a.png", "a.png")
    assert (row["status"], row["stage"], row["reason"]) == ("failed", "decode", "bad_mask")
    assert row["message"].startswith("the mask is 30 x 20, the picture 20 x 30; they must have the same size")
    # What was measured before the mask was refused is recorded.
    assert "noise_level" in row
    put(job.spec.settings["masks"], "a.png", as_file(drawn(90, 80)))
    assert through(job, "a.png", "a.png")["message"].startswith("the mask is 80 x 90")
    put(job.spec.settings["masks"], "a.png", as_file(drawn(30, 20))[:-40])
    row = through(job, "a.png", "a.png")
    assert row["reason"] == "bad_mask"
    assert row["message"].startswith("the mask cannot be used (")


def test_a_mask_is_turned_by_its_own_orientation(job):
    mask = drawn(30, 20)
    put(job.spec.source, "a.png", saved(photo(30, 20)))
    put(job.spec.settings["masks"], "a.png", as_file(mask))
    upright = through(job, "a.png", "a.png")
    stored = saved(np.rot90(np.where(mask, 255, 0).astype(np.uint8)), "PNG", exif=exif_block(6))
    put(job.spec.settings["masks"], "a.png", stored)
    assert through(job, "a.png", "a.png")["out_sha256"] == upright["out_sha256"]


def test_without_a_mask_a_picture_has_no_hole(job):
    image = photo(33, 47)
    put(job.spec.source, "a.png", saved(image))
    row = through(job, "a.png", "")
    np.testing.assert_array_equal(written(job, row), image)
    assert row["hole_share"] == 0


@pytest.mark.parametrize("megapixels", [50, 0.001])
def test_pixels_of_the_mask_colour_are_filled(job, megapixels):
    image, mask = photo(60, 52), drawn(60, 52)
    image[mask] = (250, 3, 255)
    put(job.spec.source, "a.png", saved(image))
    spec = replace(job.spec, settings={"mask_color": "#ff00FF"}, stream_megapixels=megapixels)
    row = through(make_job(spec, job.info, job.recipe.model_digest), "a.png", "")
    pixels = written(job, row)
    np.testing.assert_array_equal(pixels[~mask], image[~mask])
    assert row["hole_share"] == pytest.approx(mask.mean())
    # No paint is left.
    assert np.abs(pixels[mask].astype(int) - (250, 3, 255)).max(axis=1).min() > 20


def test_the_noise_level_of_every_picture_is_measured(job):
    grain = np.random.default_rng(0).normal(127, 20, (80, 90, 3)).clip(0, 255).astype(np.uint8)
    put(job.spec.source, "a.png", saved(grain))
    assert through(job, "a.png", "")["noise_level"] == pytest.approx(20, rel=0.1)


class TestPlan:
    def plan(self, job: Job, ledger: Ledger, **fields: Any) -> dict[str, tuple[str, str, str]]:
        """Return (class, mask, inputs) of each key that would run, and record all as written."""
        spec = replace(job.spec, settings=job.spec.settings | fields)
        opened = Opened(open_source(spec.source, INPAINTING.sources), INPAINTING.open_inputs(spec))
        made = make_plan(
            INPAINTING.list(opened, spec, local_destination=True), ledger, recipe="r", requested_format="same"
        )
        self.made = made
        done = [
            outcome(row["key"], **{name: row[name] for name in ("output", "version", "inputs")})
            for row in made.work.slice().to_pylist()
        ]
        ledger.append(to_table(done, OUTCOME), recipe="r", run="x")
        return {
            row["key"]: (row["cause"], "".join(i["key"] for i in row["inputs"]), row["inputs"])
            for row in made.work.slice().to_pylist()
        }

    def test_a_mask_has_its_pictures_name_or_that_with_png(self, job, tmp_path):
        for key in ("a.png", "b/c.JPG", "d.tif", "e.webp", "notes.txt", "g.jpg ", "h.jpg", "i.tif ."):
            put(job.spec.source, key, b"x")
        for key in ("a.png", "b/c.png", "d.tif", "d.png", "f.png", "notes.png", "g.png", "h.png  ", "i.tif"):
            put(job.spec.settings["masks"], key, b"m")
        ledger = Ledger(open_store(str(tmp_path / "out")))
        planned = self.plan(job, ledger)
        assert {key: mask for key, (_, mask, _) in planned.items()} == {
            "a.png": "a.png", "b/c.JPG": "b/c.png", "d.tif": "d.tif", "g.jpg ": "g.png", "h.jpg": "h.png  ",
            "i.tif .": "i.tif",
        }  # fmt: skip
        left = {row["key"]: row["reason"] for row in self.made.left_out.slice().to_pylist()}
        assert left == {"e.webp": NO_MASK, "notes.txt": "suffix"}
        versions = {**dict(zip(*_listed(job.spec.settings["masks"]), strict=True))}
        assert planned["d.tif"][2] == [{"role": "mask", "key": "d.tif", "version": versions["d.tif"]}]
        whole = self.plan(job, ledger, missing_mask="no-hole")
        assert {key: entry[:2] for key, entry in whole.items()} == {"e.webp": ("new", "")}

    def test_a_changed_mask_runs_only_its_picture_again(self, job, tmp_path):
        for key in ("a.png", "b.png", "c.png"):
            put(job.spec.source, key, b"x")
            put(job.spec.settings["masks"], key, b"m")
        ledger = Ledger(open_store(str(tmp_path / "out")))
        assert len(self.plan(job, ledger)) == 3
        assert self.plan(job, ledger) == {}
        put(job.spec.settings["masks"], "b.png", b"another mask")
        assert [(k, e[0]) for k, e in self.plan(job, ledger).items()] == [("b.png", "changed")]
        (Path(str(job.spec.settings["masks"])) / "c.png").unlink()
        assert [(k, e[0]) for k, e in self.plan(job, ledger, missing_mask="no-hole").items()] == [
            ("c.png", "changed")
        ]
        # c.png is now skipped, and nothing else changed.
        assert self.plan(job, ledger) == {}
        put(job.spec.settings["masks"], "c.png", b"m")
        assert [*self.plan(job, ledger)] == ["c.png"]


def _listed(root: str | None) -> tuple[list[str], list[str]]:
    rows = [row for batch in open_store(str(root)).list() for row in batch.to_pylist()]
    return [row["key"] for row in rows], [row["version"] for row in rows]
