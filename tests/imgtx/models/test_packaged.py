"""The packaged super-resolution models: files, cards and scores agree, and the weights perform as stated.

The scores were measured by `imgtx evaluate` and are in the JSON; here they are compared with what is said of them,
and the weights with bicubic and with their own tiles on photos of `examples/`.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize, modcrop
from imgtx.inference.predictor import Predictor
from imgtx.models.weight_file import file_digest, find_weights, packaged_folder, packaged_models, read_info
from imgtx.models.weights import load_model

EXAMPLES = Path(__file__).parents[3] / "examples"
BICUBIC, ARCHIVE = ("sr-x2", "sr-x3", "sr-x4"), ("sr-x2-archive", "sr-x4-archive")
NAMES = BICUBIC + ARCHIVE
# Their tests: test_packaged_restoring.py, test_packaged_drawing.py and test_packaged_style.py.
RESTORING = ("restore", "inpaint")
DRAWING = ("text-to-image",)
PAINTING = ("style",)
# Fitted to one style each, from style.
FITTED = ("style-hokusai", "style-kandinsky", "style-munch")
DATASETS = {"set5": 5, "set14": 14, "b100": 100, "kodak24": 24}

# What a packaged model must reach: PSNR-Y of Set5 in dB, and dB above bicubic on parts of photos, where these
# reach 3 to 4 (x2) and 2 to 4 (x4).
MIN_SET5 = {"sr-x2": 36.8, "sr-x3": 32.4, "sr-x4": 30.4}
MIN_MARGIN = {2: 1.5, 3: 1.2, 4: 1.0}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def scores(name: str) -> dict[str, Any]:
    return json.loads((packaged_folder() / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def card(name: str) -> str:
    return (packaged_folder() / f"{name}.md").read_text(encoding="utf-8")


def part(photo: str, top: int, left: int, height: int, width: int) -> np.ndarray:
    pixels = decode((EXAMPLES / photo).read_bytes(), max_pixels=10**6).pixels
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


class TestWhatIsSaid:
    def test_each_model_has_weights_a_card_and_scores(self):
        assert set(packaged_models()) == {*NAMES, *RESTORING, *DRAWING, *PAINTING, *FITTED}
        found = {path.name for path in packaged_folder().iterdir()}
        pictures = {f"{name}-{kind}.png" for name in NAMES + RESTORING for kind in ("curves", "strip")}
        assert {
            f"{name}{end}" for name in packaged_models() for end in (".safetensors", ".md", ".json")
        } == found - pictures

    def test_the_digest_is_that_of_the_file_everywhere(self, name, scores, card):
        digest = file_digest(find_weights(name))
        assert read_info(name)[1] == digest
        assert scores["digest"] == digest
        assert re.findall(r"\b[0-9a-f]{64}\b", card) == [digest]

    def test_scores_card_and_weights_belong_to_one_model(self, name, scores, card):
        info, _ = read_info(name)
        assert (scores["model"], scores["scale"]) == (name, info.scale)
        assert card.startswith(f"# {name}\n")
        assert f"halo {info.halo} px, multiple {info.multiple} px" in card
        assert f"licence: {info.licence}\n" in card
        assert scores["protocol"] in card

    def test_the_means_equal_those_of_the_images(self, scores):
        assert {d["name"]: len(d["images"]) for d in scores["datasets"]} == DATASETS
        for dataset in scores["datasets"]:
            for quantity in ("psnr_y", "ssim_y", "bicubic_psnr_y", "bicubic_ssim_y"):
                mean = np.mean([image[quantity] for image in dataset["images"]])
                assert dataset["means"][quantity] == pytest.approx(mean, abs=1e-9), (
                    dataset["name"],
                    quantity,
                )

    def test_the_cards_table_shows_the_rounded_means(self, scores, card):
        rows = {}
        for line in re.findall(r"^\| (?!dataset)(\w.*) \|$", card, re.MULTILINE):
            dataset, *cells = line.split(" | ")
            rows[dataset] = cells
        assert rows == {
            dataset["name"]: [
                str(len(dataset["images"])),
                f"{dataset['means']['psnr_y']:.2f}",
                f"{dataset['means']['bicubic_psnr_y']:.2f}",
                f"{dataset['means']['ssim_y']:.4f}",
                f"{dataset['means']['bicubic_ssim_y']:.4f}",
            ]
            for dataset in scores["datasets"]
        }

    def test_the_weights_carry_the_same_scores(self, name, scores):
        carried = read_info(name)[0].training["metrics"]
        assert carried == {d["name"]: round(d["means"]["psnr_y"], 3) for d in scores["datasets"]}

    def test_each_model_exceeds_its_target_and_bicubic_everywhere(self, scores):
        means = {dataset["name"]: dataset["means"] for dataset in scores["datasets"]}
        assert means["set5"]["psnr_y"] >= MIN_SET5.get(scores["model"], 0.0)
        for dataset in DATASETS:
            for quantity in ("psnr_y", "ssim_y"):
                assert means[dataset][quantity] > means[dataset][f"bicubic_{quantity}"], (dataset, quantity)


class TestWhatTheyDo:
    @pytest.mark.parametrize(
        ("photo", "top", "left"),
        [("astronaut.jpg", 120, 100), ("coffee.webp", 120, 100), ("camera.png", 60, 120)],
    )
    @pytest.mark.parametrize("name", BICUBIC, indirect=True)
    def test_each_model_restores_reduced_photos_better_than_bicubic(self, name, photo, top, left):
        model = imgtx.load(name, device="cpu")
        scale, clean = model.info.scale, modcrop(part(photo, top, left, 128, 128), model.info.scale)
        small = imresize(clean, 1 / scale)
        ours, control = (
            psnr_y(enlarged, clean, crop=scale) for enlarged in (model(small), imresize(small, scale))
        )
        assert ours > control + MIN_MARGIN[scale]

    def test_tiles_leave_no_seam_with_the_packaged_halo(self, name):
        model = load_model(name)
        info = model.info
        # 16 bits, so that rounding hides nothing. With half the halo the difference is 1.5 (x2) and 3 (x4) of 255.
        photo = part("camera.png", 60, 120, 176, 208).astype(np.uint16) * 257
        whole, tiled = (Predictor(model, tile=side) for side in (512, 2 * info.halo + 2 * info.multiple))
        assert whole.plan_for(176, 208).count == 1
        assert tiled.plan_for(176, 208).count >= 12
        difference = np.abs(tiled(photo).astype(int) - whole(photo))
        assert difference.max() <= 65535 / 255

    def test_a_batch_of_four_equals_four_of_one(self, name):
        model = load_model(name)
        tile = 2 * model.info.halo + 2 * model.info.multiple
        side = tile + model.info.multiple
        photo = part("astronaut.jpg", 60, 120, side, side)
        one, four = (Predictor(model, tile=tile, batch=batch) for batch in (1, 4))
        assert four.plan_for(side, side).count == 4
        assert four.call_pixels >= 4 * 96 * 96
        difference = np.abs(one(photo).astype(int) - four(photo))
        assert difference.max() <= 1
