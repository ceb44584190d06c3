"""Contact sheets: what is on them, what is left out, what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from jobs.cli import main
from tests.support.archive import save_tiny_model
from tests.support.small_style import painting, save_tiny_style
from tests.support.zoo import photo, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_style(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder with `photos/` of a grey, a 16 bit and a large picture and a broken one, and `styles/` of two."""
    for name in ("photos", "styles"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos/a.png").write_bytes(saved(photo(60, 80, 1)))
    (tmp_path / "photos/b.png").write_bytes(saved(photo(60, 80, 1, 16)))
    (tmp_path / "photos/c.jpg").write_bytes(saved(photo(300, 200), "JPEG"))
    (tmp_path / "photos/broken.png").write_bytes(b"none")
    (tmp_path / "styles/monet.png").write_bytes(saved(painting(0)))
    (tmp_path / "styles/a name that is far too long for its column.png").write_bytes(saved(painting(1)))
    return tmp_path


def sheet(folders: Path, model: str, *more: str, photos: str = "photos", output: str = "sheet.png") -> Result:
    given = [str(folders / photos), str(folders / "styles"), "-o", str(folders / output), "--model", model]
    return CliRunner().invoke(main, ["style", "sheet", *given, "--side", "96", *more])


def test_photos_by_styles_and_what_is_left_out(folders, model):
    result = sheet(folders, model)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folders}/sheet.png: 3 photos in 2 styles\n"
    assert "left out: broken.png" in result.stderr
    pixels = np.asarray(Image.open(folders / "sheet.png"))
    # A style, two small photos and the reduced one, each above its name.
    assert pixels.shape[0] > 70 + 60 + 60 + 96 + 4 * 20
    assert pixels.shape[1] > 80 + 2 * 90
    found = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in painting(0).reshape(-1, 3).tolist()} <= found
    again = sheet(folders, model, output="again.png")
    assert again.exit_code == 0
    assert (folders / "again.png").read_bytes() == (folders / "sheet.png").read_bytes()


def test_single_pictures_and_limits(folders, model):
    result = sheet(folders, model, "--styles", "1", photos="photos/c.jpg", output="sheet.webp")
    assert result.stdout.endswith("1 photos in 1 styles\n")
    assert Image.open(folders / "sheet.webp").format == "WEBP"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--strength", "1.5"], "strength 1.5: must be 0"),
        (["--styles", "0"], "--styles 0: give a whole number of 1 or more"),
        (["-o", "sheet.txt"], "--output sheet.txt: the name must end in one of .png"),
    ],
)
def test_what_cannot_be_drawn_is_refused(folders, model, more, complaint):
    refused = sheet(folders, model, *more)
    assert refused.exit_code == 2
    assert re.search(re.escape(complaint), refused.stderr), refused.stderr


def test_models_and_folders_that_do_not_serve(folders, model, tmp_path):
    other = save_tiny_model(tmp_path / "other.safetensors")
    assert "is for super-resolution: give one for style transfer" in sheet(folders, other).stderr
    (folders / "empty").mkdir()
    assert "holds no picture that can be used" in sheet(folders, model, photos="empty").stderr
