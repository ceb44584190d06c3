"""The protocol for style transfer: its measures on pictures whose strokes are known, and its rows on a small model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgtx
from imgtx.errors import UsageError
from imgtx.imageops.metrics import ssim
from imgtx.models.weights import load_model, save_weights
from imgtx.training.features.random_filters import RandomFilters
from jobs.evaluation import style_measures, style_transfer
from jobs.evaluation.colour_transfer import mean_and_deviation, optimal_transport
from jobs.evaluation.datasets import find_datasets
from jobs.evaluation.model_card import package
from jobs.evaluation.protocol import run_protocol
from jobs.evaluation.protocols import PROTOCOLS
from jobs.evaluation.style_measures import equalised
from jobs.evaluation.style_transfer import UNCHANGED, Measures, Pair, at_ssim, luma
from tests.support.small_style import painting, save_fitted_style, save_tiny_style
from tests.support.zoo import photo


@pytest.fixture(autouse=True)
def random_networks(monkeypatch):
    """Random filters instead of the trained networks, which no test can download."""
    monkeypatch.setattr(
        style_measures,
        "networks",
        lambda: {name: RandomFilters(seed) for seed, name in enumerate(("mobilenet", "random"))},
    )
    monkeypatch.setattr(style_transfer, "CONTENT_SIDE", 128)
    monkeypatch.setattr(style_transfer, "STYLE_SIDE", 128)
    monkeypatch.setattr(style_transfer, "magenta", lambda: None)
    monkeypatch.setattr(style_transfer, "optimisation", lambda pictures: None)


def folders(tmp_path: Path, styles: int = 3) -> list[Path]:
    for name, pictures in (
        ("contents", [photo(130, 140), photo(128, 150)]),
        ("styles", [painting(seed, 128, 160) for seed in range(styles)]),
    ):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    return [tmp_path / "contents", tmp_path / "styles"]


def test_equalised_images_differ_by_no_change_of_brightness():
    image = photo(40, 50)
    darker = (image // 2).astype(np.uint8)
    assert np.abs(equalised(image) - equalised(darker)).mean() < 0.02
    assert equalised(np.zeros((4, 4, 3), np.uint8)).tolist() == [[0.5] * 4] * 4


@pytest.mark.parametrize("transfer", [mean_and_deviation, optimal_transport])
def test_colour_transfer_gives_the_styles_colours(transfer):
    # Far from black and white, where nothing is cut off.
    image, style = (photo(40, 50) // 4 + 100), (painting(3) // 4 + 60)
    output = transfer(image.astype(np.uint8), style.astype(np.uint8))
    assert output.shape == image.shape
    # Means of logarithms, or of the colours themselves.
    assert np.allclose(output.mean((0, 1)), style.mean((0, 1)), atol=6)
    before = np.abs(image.mean((0, 1)) - style.mean((0, 1)))
    assert before.min() > 12


def test_a_grey_picture_takes_colours_too():
    grey = np.repeat(photo(40, 50)[..., :1], 3, axis=2)
    assert optimal_transport(grey, painting(1)).shape == grey.shape


def test_the_style_itself_is_nearest_and_colours_do_not_count():
    contents, styles = [photo(128, 128)], [painting(seed, 128, 128) for seed in range(3)]
    measures = Measures(contents, styles)
    unchanged = measures.score(contents[0], Pair(0, 1))
    painted = measures.score(styles[1], Pair(0, 1))
    graded = measures.score(optimal_transport(contents[0], styles[1]), Pair(0, 1))
    for name, distance in unchanged.distances.items():
        assert painted.distances[name] == pytest.approx(0, abs=1e-3)
        assert graded.distances[name] > 0.7 * distance > 0
    assert painted.style_found
    assert unchanged.content_found
    assert unchanged.ssim == pytest.approx(1)


def test_the_strength_at_which_ssim_is_as_wanted():
    content, style = photo(128, 128), painting(2, 128, 128)
    measures, pairs = Measures([content], [style, painting(4, 128, 128)]), [Pair(0, 0)]
    strength, (score,) = at_ssim(0.5, [style], pairs, [content], measures)
    assert 0 < strength < 1
    assert score.ssim == pytest.approx(0.5, abs=0.03)
    already = ssim(luma(style), luma(content))
    assert at_ssim(already - 0.01, [style], pairs, [content], measures)[0] == 1


def test_rows_compare_the_model_with_colour_transfer(tmp_path):
    model = save_tiny_style(tmp_path / "tiny.safetensors")
    report = run_protocol(PROTOCOLS["style"], model, find_datasets(folders(tmp_path)))
    rows = {row.method: row.means for row in report.rows}
    assert list(rows) == [UNCHANGED, "Reinhard", "optimal transport", "tiny"]
    assert rows[UNCHANGED]["style %"] == 0
    assert rows[UNCHANGED]["ssim"] == pytest.approx(1)
    assert rows[UNCHANGED]["content found %"] == 100
    assert rows["tiny"]["ssim"] < 1
    assert {row.images for row in report.rows} == {6}


def test_weights_fitted_to_a_style_are_measured_in_it(tmp_path):
    model = save_fitted_style(tmp_path / "tiny.safetensors", "1")
    report = run_protocol(PROTOCOLS["style"], model, find_datasets(folders(tmp_path)))
    assert {(row.condition, row.images) for row in report.rows} == {("in 1", 2)}
    (tmp_path / "styles" / "1.png").unlink()
    with pytest.raises(UsageError, match="styles does not hold 1, which these weights were fitted to"):
        run_protocol(PROTOCOLS["style"], model, find_datasets([tmp_path / "contents", tmp_path / "styles"]))


def test_a_folder_of_styles_is_needed(tmp_path):
    model, (contents, _) = save_tiny_style(tmp_path / "tiny.safetensors"), folders(tmp_path)
    with pytest.raises(UsageError, match="expected a folder of contents and one of styles"):
        run_protocol(PROTOCOLS["style"], model, find_datasets([contents]))


def test_one_style_cannot_be_mistaken(tmp_path):
    model = save_tiny_style(tmp_path / "tiny.safetensors")
    with pytest.raises(UsageError, match="has one style: give two or more"):
        run_protocol(PROTOCOLS["style"], model, find_datasets(folders(tmp_path, styles=1)))


def test_a_card_says_halo_and_quality(tmp_path):
    model = save_tiny_style(tmp_path / "tiny.safetensors")
    info = load_model(model).info
    record = {"steps": 1, "minutes": 0.1, "torch": "2", "spec": {"styles": "here"}, "notes": ["too short"]}
    save_weights(Path(model), load_model(model).network, replace(info, training=record))
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(200, 220)).save(tmp_path / "photos" / "a.png")
    made = package(
        Path(model), photos=tmp_path / "photos", benchmarks=folders(tmp_path), out=tmp_path / "out"
    )
    card = made.card.read_text()
    assert f"- halo {made.info.halo} px" in card
    assert "- too short\n" in card
    assert "| contents | in 3 styles | tiny |" in card
    assert "styles" not in made.info.training["spec"]
    assert load_model(made.weights).info == made.info


def test_weights_fitted_to_a_style_are_packaged_with_it(tmp_path):
    model = save_fitted_style(tmp_path / "tiny.safetensors", "1")
    fitted = load_model(model)
    record = {"steps": 1, "minutes": 0.1, "torch": "2", "spec": {}}
    save_weights(Path(model), fitted.network, replace(fitted.info, training=record), own=fitted.own)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(200, 220)).save(tmp_path / "photos" / "a.png")
    made = package(
        Path(model), photos=tmp_path / "photos", benchmarks=folders(tmp_path), out=tmp_path / "out"
    )
    assert "- again: `imgtx style fit 1.jpg -o tiny.safetensors --photos PHOTOS`" in made.card.read_text()
    assert load_model(made.weights).info.style == "1"
    image = photo(64, 64)
    before, after = (imgtx.load(str(path))(image).astype(int) for path in (model, made.weights))
    assert np.abs(before - after).max() <= 2
