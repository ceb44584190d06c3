"""A style transfer training end to end, with a small network and random instead of trained features."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

import imgtx
from imgtx.errors import UsageError
from imgtx.models.weights import load_model
from imgtx.training.features import vgg16
from imgtx.training.style import stylising
from imgtx.training.style.spec import StyleSpec
from jobs.train.specs import make_spec
from jobs.train.stylised import train_style
from jobs.train.terminal import run_training
from tests.support.small_style import Mixer, painting
from tests.support.zoo import photo

MODEL = {
    "dim": 16, "heads": 2, "window": 4, "encoder_blocks": 1, "decoder_blocks": 1, "style_blocks": 1,
    "merged_blocks": 0, "detail_channels": 4, "half_channels": 8, "style_dim": 16, "mix_blocks": 1,
    "ffn_ratio": 1.0, "code": 8,
}  # fmt: skip


@pytest.fixture
def values(tmp_path: Path, monkeypatch) -> dict:
    torch.manual_seed(0)
    network = vgg16.Vgg16().eval()
    state = network.state_dict()

    def load() -> vgg16.Vgg16:
        fresh = vgg16.Vgg16()
        fresh.load_state_dict(state)
        return fresh

    monkeypatch.setattr(vgg16, "load", load)
    monkeypatch.setattr(stylising, "SAMPLED", 1)
    for name, picture in (("photos", photo(140, 150)), ("styles", painting(1, 140, 150))):
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(tmp_path / name / "a.png")
    return {
        "objective": "style", "name": "tiny", "train": str(tmp_path / "photos"), "styles": str(tmp_path / "styles"),
        "steps": 2, "batch": 1, "per_style": 1, "style_side": 128, "pieces": 1, "valid_images": 1,
        "precision": "float32", "model": MODEL,
    }  # fmt: skip


def run(values: dict, folder: Path) -> Path:
    return run_training(make_spec(values, Path("spec.toml"), on_ray=False), folder, Console(stderr=True))


def test_weights_come_out_that_stylise(values, tmp_path):
    weights = run(values, tmp_path / "run")
    model = load_model(weights)
    assert model.info.training["steps"] == 2
    assert model.info.training["history"][-1]["valid_loss"] > 0
    output = imgtx.load(weights)(photo(40, 50), style=painting(1))
    assert output.shape == (40, 50, 3)
    sheet = Image.open(tmp_path / "run" / "strip.png")
    assert sheet.size == (512, 512)


def test_a_training_continues_where_it_stopped(values, tmp_path):
    run(values | {"steps": 1}, tmp_path / "run")
    run(values, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


def test_one_picture_is_a_style(values, tmp_path):
    values["styles"] = str(tmp_path / "styles" / "a.png")
    assert run(values | {"train": "", "steps": 1}, tmp_path / "run").is_file()


def test_pictures_that_cannot_be_used_are_left_out_and_counted(values, tmp_path, capsys):
    Image.fromarray(photo(60, 70)).save(tmp_path / "photos" / "small.png")
    (tmp_path / "styles" / "b.png").write_bytes(b"no image")
    run(values | {"steps": 1}, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "left out 1 of 2 images of" in said
    assert "1 too small; " in said
    (line,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["left_out"] == 2
    (tmp_path / "styles" / "a.png").unlink()
    with pytest.raises(UsageError, match=r"none of the 1 images of .*styles can be trained on: 1 unusable"):
        run(values, tmp_path / "run")


def test_an_unknown_objective_is_named(values):
    with pytest.raises(UsageError, match="must be text-to-image or style"):
        make_spec(values | {"objective": "painting"}, Path("spec.toml"), on_ray=False)


def test_workers_are_refused(values):
    with pytest.raises(UsageError, match="--workers is not for style"):
        make_spec(values, Path("spec.toml"), on_ray=True)


def taught(values: dict, folder: Path, teacher: str, **changes) -> Path:
    given = {
        "teacher": teacher,
        "teacher_pictures": 2,
        "crop": 96,
        "style_side": 256,
        "model": MODEL | {"code": 100},
    }
    Image.fromarray(photo(256, 260)).save(Path(values["train"]) / "a.png")
    spec = make_spec(values | given | changes, Path("spec.toml"), on_ray=False)
    assert isinstance(spec, StyleSpec)
    return train_style(spec, folder, lambda line: None, teacher=Mixer())


def test_three_trainings_learn_from_a_teacher(values, tmp_path):
    painting_weights = taught(values, tmp_path / "one", "painting", steps=1)
    styles_weights = taught(values, tmp_path / "two", "styles", init_from=str(painting_weights))
    weights = taught(
        values, tmp_path / "three", "both", init_from=str(styles_weights), steps=1, crop=144,
        loss_weights={"low": 1.0, "content": 0.3, "sliced": 1.0, "colours": 1.0},
    )  # fmt: skip
    states = [load_model(path).network.state_dict() for path in (painting_weights, styles_weights, weights)]
    changed = [
        {name.partition(".")[0] for name in a if not torch.equal(a[name], b[name])}
        for a, b in pairwise(states)
    ]
    # Only the style encoder learns numbers.
    assert changed[0] == {"style"}
    assert {"style", "stem", "head_norm", "to_keys_values"} <= changed[1]
    model = load_model(weights)
    assert model.info.training["history"][-1]["valid_loss"] > 0
    # Content, style, and the two outputs beside them.
    assert Image.open(tmp_path / "three" / "strip.png").size == (512, 512)


def test_a_teacher_teaches_colours(values, tmp_path):
    def error(steps: int) -> float:
        weights = taught(
            values, tmp_path / f"{steps}", "painting", steps=steps, peak_lr=0.01, average=0.5,
            loss_weights={"seen": 0.0, "look": 0.0, "shift": 0.0},
        )  # fmt: skip
        return load_model(weights).info.training["history"][-1]["valid_loss"]

    assert error(30) < 0.8 * error(1)
