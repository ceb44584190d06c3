"""`imgtx models probe` on a pipeline that makes images: what it measures, writes and prints."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgtx.models.generation import Generation
from imgtx.models.references import load_model, read_info
from imgtx.probing import generating
from jobs.cli import main
from tests.support.tiny_pipelines import save_pipeline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pipeline("stable-diffusion", tmp_path / "sd")


def test_probe_writes_a_sidecar_that_runs_and_show_read(folder: Path):
    done = CliRunner().invoke(main, ["models", "probe", str(folder), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers["precisions"]["float32"]["seconds_per_image"] > 0
    assert (
        answers["precisions"]["float32"]["memory_mb"] is None
        or answers["precisions"]["float32"]["memory_mb"] >= 0
    )
    assert answers["batch_difference_levels"] <= 1
    assert answers["repeats_exactly"]
    assert answers["largest_batch"]["images"] >= 1
    assert answers["model"]["components"]["unet"]["parameters"] > 1000
    info, digest = read_info(folder)
    assert info.batches
    assert "float32" in info.dtypes
    assert Generation.of(info).batch == answers["largest_batch"]["images"]
    shown = json.loads(CliRunner().invoke(main, ["models", "show", str(folder)]).stdout)
    assert (shown["digest"], shown["probe"]["size"]) == (digest, [32, 32])


def test_a_model_whose_batches_differ_gets_one_image_a_call(folder: Path, monkeypatch):
    monkeypatch.setattr(generating, "_batch_difference", lambda *arguments: (7, True))
    monkeypatch.setattr(generating, "_largest_batch", lambda *arguments: {"images": 8, "by": "trial"})
    model = load_model(folder)
    model.info = replace(model.info, dtypes=("float32",))
    info = generating.probe_generation(model).info
    assert (info.batches, Generation.of(info).batch) == (False, 1)


def test_the_table_answers_what_users_ask_and_compiling_is_refused(folder: Path):
    table = CliRunner().invoke(main, ["models", "probe", str(folder), "--device", "cpu"]).stdout
    for words in (
        "StableDiffusionPipeline",
        "32 x 32 px in 50 steps",
        "s an image",
        "largest batch",
        "written to",
    ):
        assert words in table
    done = CliRunner().invoke(main, ["models", "probe", str(folder), "--device", "cpu", "--compile"])
    assert done.exit_code == 2
    assert "makes images from text: leave it out" in done.stderr
