"""The evaluation protocol with fakes in place of a model: bicubic must equal the control row exactly."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import imgtx
from imgtx.errors import ImgtxError, UsageError
from imgtx.imageops.resize import imresize
from imgtx.inference.predictor import default_device
from imgtx.models.config import ModelConfig
from imgtx.models.info import ModelInfo
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weight_file import file_digest
from imgtx.models.weights import save_weights
from jobs.evaluation.datasets import find_datasets
from jobs.evaluation.super_resolution import (
    PUBLISHED,
    DatasetScore,
    ImageScore,
    evaluate,
    print_report,
    score,
)


class Bicubic:
    """Replaces `imgtx.inference.predictor.Predictor`; records the shapes it is given."""

    def __init__(self, scale: int = 2, task: str = "super-resolution"):
        self.scale, self.calls = scale, []
        self.info = SimpleNamespace(name="fake", task=task, scale=scale)
        self.digest, self.device, self.precision = "ab" * 32, "cpu", "float32"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.calls.append(image.shape)
        return imresize(image, self.scale)


def save(path, shape: tuple[int, ...], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, *shape[2:]), np.uint8)
    Image.fromarray(imresize(coarse, size=shape[:2])).save(path)


@pytest.fixture
def benchmarks(tmp_path):
    save(tmp_path / "set5" / "colour.png", (33, 41, 3))
    save(tmp_path / "set5" / "grey.png", (30, 28))
    save(tmp_path / "other" / "a.png", (24, 26, 3), seed=1)
    (tmp_path / "other" / "readme.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_each_subfolder_is_a_dataset(benchmarks):
    found = find_datasets([benchmarks])
    assert [(d.name, [f.name for f in d.files]) for d in found] == [
        ("other", ["a.png"]),
        ("set5", ["colour.png", "grey.png"]),
    ]
    assert find_datasets([benchmarks / "set5"]) == (found[1],)
    assert find_datasets([benchmarks / "set5", benchmarks / "other"]) == (found[1], found[0])


def test_archive_damage_is_repeatable_and_reads_grey_as_rgb(benchmarks):
    model, found = Bicubic(), find_datasets([benchmarks])
    first, again = (score(model, 2, found, "archive") for _ in range(2))
    assert [i.psnr_y for d in first for i in d.images] == [i.psnr_y for d in again for i in d.images]
    assert model.calls[1:4] == [(12, 13, 3), (16, 20, 3), (15, 14, 3)]
    for damaged, clean in zip(first, score(model, 2, found), strict=True):
        assert damaged.mean("bicubic_psnr_y") < clean.mean("bicubic_psnr_y")


def test_bicubic_as_the_model_equals_the_control_exactly(benchmarks):
    model = Bicubic()
    scores = score(model, 2, find_datasets([benchmarks]))
    for dataset in scores:
        for image in dataset.images:
            assert image.psnr_y == image.bicubic_psnr_y
            assert image.ssim_y == image.bicubic_ssim_y
            assert image.seconds > 0
    colour = scores[1].images[0]
    # 33x41 cut to 32x40, halved.
    assert (colour.name, colour.height, colour.width) == ("colour.png", 16, 20)
    # One untimed call, then every image once; a grey image stays grey.
    assert model.calls == [(12, 13, 3), (12, 13, 3), (16, 20, 3), (15, 14, 1)]


def test_a_better_model_scores_above_the_control(benchmarks):
    def closer(small):
        return np.clip(imresize(small, 2).astype(int) + 1, 0, 255).astype(np.uint8)

    (dataset,) = score(closer, 2, find_datasets([benchmarks / "other"]))
    image = dataset.images[0]
    assert image.psnr_y != image.bicubic_psnr_y
    assert (
        image.bicubic_psnr_y == score(Bicubic(), 2, find_datasets([benchmarks / "other"]))[0].images[0].psnr_y
    )


def test_means_and_rate():
    images = tuple(
        ImageScore("x", 100, 50 * (i + 1), 30.0 + i, 0.9, 28.0, 0.8, seconds=0.5) for i in range(2)
    )
    dataset = DatasetScore("d", images)
    assert dataset.mean("psnr_y") == 30.5
    assert dataset.seconds_per_megapixel == pytest.approx(1.0 / 0.015)


def test_a_report_is_printed_as_a_table_and_stored_as_json(benchmarks, monkeypatch):
    monkeypatch.setattr(imgtx, "load", lambda name, **_: Bicubic())
    out = benchmarks / "report.json"
    text = io.StringIO()
    report = evaluate("fake", [benchmarks / "set5"], out_json=out)
    print_report(report, Console(file=text, width=80, force_terminal=False))
    written = json.loads(out.read_text())
    assert written == report.to_dict()
    assert written["digest"] == "ab" * 32
    assert written["scale"] == 2
    assert "multiples of 2" in written["protocol"]
    assert {"torch", "threads", "device", "precision"} <= set(written)
    (dataset,) = written["datasets"]
    values = [image["psnr_y"] for image in dataset["images"]]
    assert dataset["means"]["psnr_y"] == pytest.approx(sum(values) / 2)
    assert dataset["means"]["seconds_per_megapixel"] > 0
    table = text.getvalue()
    assert f"{dataset['means']['psnr_y']:.2f}" in table
    assert "bicubic (control)" in table
    assert "SwinIR-light (published)" in table
    assert f"{PUBLISHED[2]['SwinIR-light']['set5']:.2f}" in table
    assert "fake+" not in table
    assert "eight views" not in table


def test_a_self_ensemble_is_marked_with_a_plus(benchmarks, monkeypatch):
    asked = {}
    monkeypatch.setattr(imgtx, "load", lambda name, **options: asked.update(options) or Bicubic())
    text = io.StringIO()
    report = evaluate("fake", [benchmarks / "set5"], self_ensemble=True)
    print_report(report, Console(file=text, width=80, force_terminal=False))
    assert asked["self_ensemble"] is report.to_dict()["self_ensemble"] is True
    assert f"{report.model}+" in text.getvalue()
    assert "the mean over eight views" in " ".join(text.getvalue().split())


def test_real_weights_are_evaluated_in_the_same_way(benchmarks):
    config = ModelConfig(dim=32, heads=1, encoder_blocks=1, decoder_blocks=1, detail_channels=4)
    info = ModelInfo("tiny", "super-resolution", scale=2, multiple=config.multiple, halo=config.multiple)
    weights = benchmarks / "tiny.safetensors"
    save_weights(weights, EncoderDecoder(config), info)
    report = evaluate(weights, [benchmarks / "set5"])
    assert (report.model, report.digest, report.device) == ("tiny", file_digest(weights), default_device())
    # Untrained weights are torch's bicubic instead of MATLAB's: good on smooth images, but not the control.
    dataset = report.datasets[0]
    assert 40 < dataset.mean("psnr_y") < dataset.mean("bicubic_psnr_y")


def test_equal_images_become_null_in_json(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40), (9, 99, 199)).save(tmp_path / "flat.png")
    monkeypatch.setattr(imgtx, "load", lambda name, **_: Bicubic())
    out = tmp_path / "report.json"
    report = evaluate("fake", [tmp_path], out_json=out)
    assert report.datasets[0].mean("psnr_y") == math.inf
    assert json.loads(out.read_text())["datasets"][0]["means"]["psnr_y"] is None


def test_missing_empty_and_wrong_datasets_are_one_sentence(benchmarks):
    with pytest.raises(UsageError, match="no dataset"):
        find_datasets([])
    with pytest.raises(UsageError, match="is no folder"):
        find_datasets([benchmarks / "nowhere"])
    with pytest.raises(UsageError, match="is no folder"):
        find_datasets([benchmarks / "set5" / "grey.png"])
    with pytest.raises(UsageError, match="no image"):
        find_datasets([benchmarks / "empty"])


@pytest.mark.parametrize(
    ("mode", "size", "part"),
    [
        ("RGB", (3, 1), "1x3"),
        ("RGB", (40, 15), "15x40"),
        ("RGBA", (40, 40), "transparency"),
        ("I;16", (40, 40), "16 bits"),
    ],
)
def test_an_image_the_protocol_cannot_use_fails_before_the_model_runs(benchmarks, mode, size, part):
    Image.new(mode, size).save(benchmarks / "set5" / "zz.png")
    model = Bicubic()
    with pytest.raises(UsageError, match=part):
        score(model, 4, find_datasets([benchmarks]))
    assert model.calls == []


def test_a_broken_image_names_its_file(benchmarks):
    (benchmarks / "set5" / "broken.png").write_bytes(b"<html>")
    with pytest.raises(UsageError, match=r"broken\.png"):
        score(Bicubic(), 2, find_datasets([benchmarks]))


def test_a_model_of_another_task_or_shape_is_refused(benchmarks, monkeypatch):
    monkeypatch.setattr(imgtx, "load", lambda name, **_: Bicubic(task="restoration"))
    with pytest.raises(UsageError, match="restoration"):
        evaluate("fake", [benchmarks])
    with pytest.raises(ImgtxError, match="returned"):
        score(Bicubic(scale=3), 2, find_datasets([benchmarks]))


def test_an_unwritable_report_is_one_sentence(benchmarks, monkeypatch):
    monkeypatch.setattr(imgtx, "load", lambda name, **_: Bicubic())
    with pytest.raises(UsageError, match="cannot be written"):
        evaluate("fake", [benchmarks], out_json=benchmarks / "no" / "r.json")


def test_the_command_offers_every_degradation_that_has_a_protocol():
    """The command lists the names itself, because its help is printed without loading NumPy."""
    from imgtx.degradations import DEGRADATIONS
    from jobs.cli.evaluate import evaluate as command

    (option,) = (p for p in command.params if p.name == "degradation")
    assert [*option.type.choices] == [kind.name for kind in DEGRADATIONS.values() if kind.protocol]
