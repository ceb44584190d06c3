"""Fitting a small model to one style, with random instead of trained features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import imgtx
from imgtx.errors import UsageError
from imgtx.models.weights import load_model
from imgtx.training.features import vgg16
from imgtx.training.style import stylising
from jobs.style import fit as fitting
from jobs.style.fit import FitOptions, fit
from tests.support.archive import save_tiny_model
from tests.support.small_style import painting, save_fitted_style, save_tiny_style
from tests.support.zoo import photo

CONSOLE = Console(stderr=True)

pytestmark = pytest.mark.usefixtures("the_real_processor")


@pytest.fixture
def style(tmp_path: Path, monkeypatch) -> Path:
    def load() -> vgg16.Vgg16:
        torch.manual_seed(0)
        return vgg16.Vgg16().eval()

    monkeypatch.setattr(vgg16, "load", load)
    monkeypatch.setattr(stylising, "SAMPLED", 1)
    monkeypatch.setattr(fitting, "CROP", 128)
    monkeypatch.setattr(fitting, "require", lambda name: None)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(140, 150)).save(tmp_path / "photos" / "a.png")
    Image.fromarray(painting(1, 140, 150)).save(tmp_path / "style.png")
    return tmp_path / "style.png"


def test_a_fitted_model_stylises_as_its_base_does_not(style, tmp_path):
    base = save_tiny_style(tmp_path / "base.safetensors")
    options = FitOptions(model=base, photos=tmp_path / "photos", steps=2)
    fitted = fit(style, tmp_path / "own.safetensors", options, CONSOLE)
    one, other = imgtx.load(base)(photo(40, 50), style=style), imgtx.load(fitted)(photo(40, 50))
    assert np.abs(one.astype(int) - other).max() > 0
    assert not (tmp_path / "own.fitting").exists()
    training = imgtx.load(fitted).info.training
    assert training["data"] == "fitted to style.png, from base"
    assert training["started_from"]["name"] == "base"


def test_a_fitted_model_keeps_a_short_memory(style, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_TOKENS", 5)
    base = save_tiny_style(tmp_path / "base.safetensors")
    fitted = fit(style, tmp_path / "own.safetensors", FitOptions(model=base, steps=1), CONSOLE)
    own = load_model(fitted).own
    assert {memory.shape[2] for memory in (*own.keys, *own.values)} == {5}
    assert imgtx.load(fitted)(photo(40, 50)).shape == (40, 50, 3)


@pytest.mark.parametrize(
    ("picture", "output", "changes", "said"),
    [
        ("style.png", "own.pt", {}, "must end in .safetensors"),
        ("style.png", "nowhere/own.safetensors", {}, "its folder is not there"),
        ("none.png", "own.safetensors", {}, "none.png is not there: give one style picture"),
        ("flat.png", "own.safetensors", {}, "is of one colour"),
        ("style.png", "own.safetensors", {"steps": 0}, "steps = 0"),
        (
            "style.png",
            "own.safetensors",
            {"model": "fitted.safetensors"},
            "was fitted to monet: expected one for any",
        ),
        ("style.png", "own.safetensors", {"photos": "nowhere"}, "train = .*nowhere' is not a folder"),
        (
            "style.png",
            "own.safetensors",
            {"model": "sr.safetensors"},
            "is for super-resolution: expected one",
        ),
    ],
)
def test_bad_input_ends_in_one_line(style, tmp_path, picture, output, changes, said):
    Image.fromarray(np.full((80, 80, 3), 9, np.uint8)).save(tmp_path / "flat.png")
    save_tiny_model(tmp_path / "sr.safetensors")
    base = save_tiny_style(tmp_path / "base.safetensors")
    save_fitted_style(tmp_path / "fitted.safetensors")
    given = {"model": base, **changes}
    if "photos" in given:
        given["photos"] = tmp_path / given["photos"]
    if given["model"] != base:
        given["model"] = str(tmp_path / given["model"])
    with pytest.raises(UsageError, match=said) as error:
        fit(tmp_path / picture, tmp_path / output, FitOptions(**given), CONSOLE)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "own.fitting").exists()


def test_without_the_feature_network_the_command_is_named(style, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="build it with imgtx style features"):
        fit(style, tmp_path / "own.safetensors", FitOptions(), CONSOLE)
