"""The packaged weights that restore and fill holes: cards and files agree, and photos improve."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import imgtx
from imgtx.degradations.holes import random_mask
from imgtx.imageops.holes import with_mask
from imgtx.imageops.metrics import hole_scores, psnr
from imgtx.inference.predictor import Predictor
from imgtx.models.weight_file import file_digest, find_weights, packaged_folder, read_info
from tests.imgtx.models.test_packaged import RESTORING, part

CLEAN = [part("astronaut.jpg", 96, 160, 128, 128), part("chelsea.jpg", 60, 120, 128, 128)]


@pytest.fixture(scope="module")
def restore() -> Predictor:
    return imgtx.load("restore")


@pytest.mark.parametrize("name", RESTORING)
def test_weights_card_and_scores_belong_to_one_model(name):
    digest = file_digest(find_weights(name))
    info = read_info(name)[0]
    card = (packaged_folder() / f"{name}.md").read_text(encoding="utf-8")
    scores = json.loads((packaged_folder() / f"{name}.json").read_text(encoding="utf-8"))
    assert scores["digest"] == digest
    assert re.findall(r"\b[0-9a-f]{64}\b", card) == [digest]
    assert card.startswith(f"# {name}\n")
    assert f"halo {info.halo} px, multiple {info.multiple} px" in card
    assert f"licence: {info.licence}\n" in card
    assert info.task == {"restore": "restoration", "inpaint": "inpainting"}[name]


@pytest.mark.parametrize(("sigma", "gain"), [(15, 4), (25, 5), (50, 7)])
def test_noise_is_removed(restore, sigma, gain):
    for clean in CLEAN:
        noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
        noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
        assert psnr(restore(noisy), clean) > psnr(noisy, clean) + gain


def test_jpeg_artefacts_are_reduced_and_clean_photos_are_unchanged(restore):
    gains, kept = [], []
    for clean in CLEAN:
        file = io.BytesIO()
        Image.fromarray(clean).save(file, "JPEG", quality=10)
        damaged = np.asarray(Image.open(file))
        gains.append(psnr(restore(damaged), clean) - psnr(damaged, clean))
        kept.append(psnr(restore(clean), clean))
    assert min(gains) > 0.5
    assert min(kept) > 42


def test_holes_are_filled_better_than_by_the_smooth_fill_and_nothing_else_changes():
    inpaint = imgtx.load("inpaint")
    ours, fills = [], []
    for clean in CLEAN:
        hole = random_mask(np.random.default_rng(1), *clean.shape[:2], "thin")
        made = inpaint(clean, hole)
        assert np.array_equal(made[~hole], clean[~hole])
        ours.append(hole_scores(made, clean, hole)["l1"])
        fills.append(hole_scores(with_mask(clean, hole)[..., :3], clean, hole)["l1"])
    assert np.mean(ours) < np.mean(fills)
