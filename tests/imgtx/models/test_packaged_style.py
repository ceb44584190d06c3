"""The packaged style transfer weights: card and file agree, styles differ, and tiles leave no seam."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode
from imgtx.degradations.dead_leaves import dead_leaves
from imgtx.inference.predictor import Predictor
from imgtx.models.weight_file import file_digest, find_weights, packaged_folder, read_info
from imgtx.models.weights import load_model
from jobs.evaluation.style_card import InOneStyle
from tests.imgtx.models.test_packaged import FITTED, PAINTING
from tests.support.small_style import painting

(NAME,) = PAINTING
EXAMPLES = Path(__file__).parents[3] / "examples"
STYLES = {"leaves": dead_leaves(np.random.default_rng(1), 256, 256), "strokes": painting(3, 256, 256)}
LARGEST = 6_000_000
LARGEST_FITTED = 1_500_000


def part(photo: str, top: int, left: int, height: int, width: int) -> np.ndarray:
    pixels = decode((EXAMPLES / photo).read_bytes(), max_pixels=10**6).pixels
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def whole_and_tiled(model, photo: np.ndarray) -> list[np.ndarray]:
    """Return what a model paints in one tile, and in tiles as small as its halo allows."""
    info, (height, width) = model.info, photo.shape[:2]
    whole, tiled = (Predictor(model, tile=side) for side in (512, 2 * info.halo + 2 * info.multiple))
    assert whole.plan_for(height, width).count == 1
    assert tiled.plan_for(height, width).count >= 4
    return [predictor(photo).astype(int) for predictor in (whole, tiled)]


@pytest.fixture
def deep() -> np.ndarray:
    """Return a photo in 16 bits, so that rounding hides nothing."""
    return part("astronaut.jpg", 20, 120, 256, 288).astype(np.uint16) * 257


@pytest.mark.parametrize("name", [NAME, *FITTED])
def test_weights_card_and_scores_belong_to_one_model(name):
    path, info = find_weights(name), read_info(name)[0]
    card = (packaged_folder() / f"{name}.md").read_text(encoding="utf-8")
    scores = json.loads((packaged_folder() / f"{name}.json").read_text(encoding="utf-8"))
    assert path.stat().st_size < (LARGEST_FITTED if name in FITTED else LARGEST)
    assert scores["digest"] == file_digest(path)
    assert re.findall(r"\b[0-9a-f]{64}\b", card) == [file_digest(path)]
    assert card.startswith(f"# {name}\n")
    assert f"licence: {info.licence}\n" in card
    assert f"halo {info.halo} px, multiple {info.multiple} px" in card


@pytest.mark.parametrize("style", STYLES)
def test_tiles_leave_no_seam_with_the_packaged_halo(style, deep):
    whole, tiled = whole_and_tiled(InOneStyle(load_model(NAME), STYLES[style]), deep)
    assert np.abs(tiled - whole).max() <= 65535 / 255


def test_styles_change_a_photo_and_differ():
    photo, stylise = part("astronaut.jpg", 20, 120, 128, 128), imgtx.load(NAME)
    np.testing.assert_array_equal(stylise(photo, style=STYLES["leaves"], strength=0), photo)
    leaves, strokes = (stylise(photo, style=style).astype(int) for style in STYLES.values())
    assert np.abs(leaves - photo).mean() > 8
    assert np.abs(leaves - strokes).mean() > 8


@pytest.mark.parametrize("name", ["leaves", "coffee.webp", "chelsea.jpg"])
def test_a_photo_gets_the_mean_colour_of_its_style(name):
    photo = part("astronaut.jpg", 20, 120, 128, 128)
    style = STYLES[name] if name in STYLES else part(name, 0, 60, 256, 256)
    before, after = (
        np.abs(pixels.mean((0, 1)) - style.mean((0, 1))).sum()
        for pixels in (photo, imgtx.load(NAME)(photo, style=style))
    )
    assert after < before / 3


def test_a_grey_photo_gets_colours_unless_they_are_kept():
    grey, stylise = part("camera.png", 60, 120, 96, 96), imgtx.load(NAME)
    painted = stylise(grey, style=STYLES["strokes"])
    assert painted.shape == (96, 96, 3)
    assert np.ptp(painted.astype(int), axis=2).mean() > 5
    assert stylise(grey, style=STYLES["strokes"], preserve_color=True).squeeze().ndim == 2


@pytest.mark.parametrize("name", FITTED)
def test_fitted_weights_paint_their_style_without_a_seam(name, deep):
    model = load_model(name)
    assert name == f"style-{model.info.style.split('_')[0]}"
    whole, tiled = whole_and_tiled(model, deep)
    assert np.abs(whole - deep).mean() > 8 * 257
    assert np.abs(tiled - whole).max() <= 65535 / 255
