"""The protocols of models that restore, with fake models: controls and conditions with known results."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors import safe_open

import imgtx
from imgtx.errors import UsageError
from imgtx.imageops.metrics import hole_scores, psnr, ssim, ssim_map
from imgtx.models.weights import load_model, save_weights
from jobs.evaluation import baselines as controls
from jobs.evaluation import inpainting as hole_protocol
from jobs.evaluation.datasets import find_datasets
from jobs.evaluation.model_card import dated, package
from jobs.evaluation.protocol import run_protocol
from jobs.evaluation.protocols import PROTOCOLS
from jobs.evaluation.report import print_protocol
from jobs.evaluation.restoration import CONDITIONS, INPUT, compressed, noisy
from tests.support.archive import save_tiny_model
from tests.support.zoo import photo


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    for folder, names in (("b100", ("1", "2", "3")), ("live1", ("a",))):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            Image.fromarray(photo(40 + 3 * number, 52)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "cbsd68.txt").write_text("1\n3\n")
    return tmp_path


@pytest.fixture
def restore(tmp_path: Path) -> str:
    """A model that returns its input: its head is zero."""
    return untrained(tmp_path / "same.safetensors", holes=False)


def untrained(path: Path, *, holes: bool) -> str:
    model = load_model(save_tiny_model(path, scale=1, holes=holes))
    model.network.head.weight.data.zero_()
    save_weights(path, model.network, model.info)
    return str(path)


def means(report, value: str = "psnr") -> dict[tuple[str, str, str], float]:
    return {(row.dataset, row.condition, row.method): row.means[value] for row in report.rows}


def test_a_list_selects_images_of_the_folders_beside_it(benchmarks):
    (listed,) = find_datasets([benchmarks / "cbsd68.txt"])
    assert (listed.name, [file.name for file in listed.files]) == ("cbsd68", ["1.png", "3.png"])
    (benchmarks / "cbsd68.txt").write_text("1\n9\n")
    with pytest.raises(UsageError, match="names 2 images, and 9 is in no folder beside it"):
        find_datasets([benchmarks / "cbsd68.txt"])


def test_noise_uses_the_papers_seed_and_is_not_clipped():
    clean = np.full((30, 40, 3), 250, np.uint8)
    # As the papers do it; imgtx must give the same.
    np.random.seed(0)
    np.testing.assert_array_equal(noisy(clean, 25), clean + np.random.normal(0, 25, clean.shape))
    assert noisy(clean, 25).max() > 255


def test_offsets_move_the_blocks_and_not_the_image():
    clean = photo(64, 64)
    outputs = [compressed(clean, 20, offset) for offset in range(8)]
    assert all(output.shape == clean.shape for output in outputs)
    assert len({output.tobytes() for output in outputs}) == 8
    assert min(psnr(output, clean) for output in outputs) > 25
    steps = [np.abs(np.diff(output.astype(int), axis=0)).mean(axis=(1, 2)) for output in outputs]
    excess = [[step[(8 - k - 1) % 8 :: 8].mean() for k in range(8)] for step in steps]
    assert all(np.argmax(excess[offset]) == offset for offset in (0, 4))


@pytest.mark.parametrize("name", CONDITIONS)
def test_an_identity_model_scores_like_its_input(name, benchmarks, restore, tmp_path, monkeypatch):
    monkeypatch.setattr(controls, "imported", lambda name: None)
    out = tmp_path / "report.json"
    report = run_protocol(PROTOCOLS[name], restore, find_datasets([benchmarks / "cbsd68.txt"]), out_json=out)
    found = means(report)
    for condition, _, _ in CONDITIONS[name]:
        mine = found["cbsd68", condition, "same"]
        if condition == "clean":
            assert mine == np.inf
        elif name == "denoise":
            # Clipping to 8 bits helps.
            assert mine >= found["cbsd68", condition, INPUT]
        else:
            assert mine == found["cbsd68", condition, INPUT]
    assert len(report.rows) == 2 * len(CONDITIONS[name]) - (name == "no-harm")
    assert json.loads(out.read_text())["text"] == PROTOCOLS[name].text
    console = Console(width=160, record=True)
    print_protocol(report, PROTOCOLS[name].published, console)
    printed = console.export_text()
    assert ("DnCNN (published)" in printed) == (name == "denoise")


def test_noise_is_passed_as_floats_tile_by_tile(benchmarks, tmp_path):
    from jobs.evaluation.restoration import restored

    predictor = imgtx.load(save_tiny_model(tmp_path / "tiny.safetensors", scale=1))
    image = photo(100, 120)
    whole = predictor(image)
    for tile in (predictor.tile, 64):
        predictor.tile = tile
        made = restored(predictor, image.astype(np.float64))
        # one level of difference where the last bit of a float decides
        np.testing.assert_allclose(made.astype(int), whole.astype(int), atol=1)
        assert np.mean(made != whole) < 0.01


class TestHoles:
    def test_scores_cover_the_hole_alone(self):
        clean = photo(60, 70)
        hole = np.zeros((60, 70), bool)
        hole[20:40, 20:50] = True
        output = clean.copy()
        output[hole] = np.clip(clean[hole].astype(int) + 10, 0, 255)
        scores = hole_scores(output, clean, hole)
        assert scores["l1"] == pytest.approx(10, abs=0.5)
        assert scores["psnr"] == pytest.approx(28.13, abs=0.3)
        assert 0 < scores["ssim"] < ssim(output, clean) < 1
        same = hole_scores(clean, clean, hole)
        assert (same["ssim"], same["l1"], same["spectrum"]) == (1, 0, 1)
        flat = clean.copy()
        flat[15:45, 15:55] = 127
        assert hole_scores(flat, clean, hole)["spectrum"] == 0
        assert ssim_map(output, clean)[0].mean() == ssim(output, clean)
        with pytest.raises(UsageError, match="the mask has no hole"):
            hole_scores(clean, clean, ~hole & hole)

    def test_an_untrained_model_equals_the_fill_and_all_rows_share_their_masks(
        self, benchmarks, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(hole_protocol, "SQUARE", 32)
        model = untrained(tmp_path / "fills.safetensors", holes=True)
        report = run_protocol(PROTOCOLS["holes"], model, find_datasets([benchmarks / "live1"]))
        found = means(report)
        conditions = {row.condition for row in report.rows}
        assert conditions == {
            f"{size} {kind}" for size in hole_protocol.SIZES for kind in ("thin", "medium", "thick")
        }
        for condition in conditions:
            assert found["live1", condition, "fills"] == found["live1", condition, hole_protocol.FILL]

    @pytest.mark.skipif(
        len(controls.fillers()) < 3, reason=f"{controls.INSTALL}, and the rest of the controls run"
    )
    def test_every_control_fills_a_gradient(self):
        clean = np.broadcast_to(np.arange(50, 114, dtype=np.uint8)[None, :, None], (64, 64, 3)).copy()
        hole = np.zeros((64, 64), bool)
        hole[28:34, 20:40] = True
        damaged = np.where(hole[..., None], 0, clean).astype(np.uint8)
        for name, work in controls.fillers().items():
            output = work(damaged, hole)
            np.testing.assert_array_equal(output[~hole], clean[~hole], name)
            assert np.abs(output.astype(int) - clean)[hole].max() < 6, name

    @pytest.mark.skipif(controls.imported("cv2") is None, reason=controls.INSTALL)
    def test_non_local_means_reduces_noise(self):
        clean = photo(64, 64)
        damaged = noisy(clean, 15).clip(0, 255).round().astype(np.uint8)
        better = controls.non_local_means(damaged, controls.STRENGTH * 15)
        assert psnr(better, clean) > psnr(damaged, clean) + 1


@pytest.mark.parametrize(("protocol", "task"), [("denoise", "inpainting"), ("holes", "restoration")])
def test_a_protocol_refuses_models_of_other_tasks(protocol, task, benchmarks, monkeypatch):
    fake = SimpleNamespace(info=SimpleNamespace(task=task, name="fake"))
    monkeypatch.setattr(imgtx, "load", lambda *given, **options: fake)
    monkeypatch.setattr("jobs.evaluation.protocol.local_model", lambda *given: "fake")
    with pytest.raises(
        UsageError, match=f"evaluate --protocol {protocol} was given fake, a model for {task}"
    ):
        run_protocol(PROTOCOLS[protocol], "fake", find_datasets([benchmarks / "live1"]))


def test_published_rows_name_measured_conditions():
    measured = {condition for name in CONDITIONS for condition, _, _ in CONDITIONS[name]}
    published = [condition for protocol in PROTOCOLS.values() for _, condition in protocol.published]
    assert published
    assert {*published} <= measured


@pytest.mark.parametrize("holes", [False, True])
def test_a_card_names_the_protocol_of_its_task(holes, benchmarks, tmp_path, monkeypatch):
    monkeypatch.setattr(hole_protocol, "SQUARE", 32)
    monkeypatch.setattr(controls, "imported", lambda name: None)
    path = Path(save_tiny_model(tmp_path / "tiny.safetensors", scale=1, holes=holes))
    model = load_model(path)
    spec = {"degradation": "holes" if holes else "restoration", "loss": "mse", "init_from": "", "model": {}}
    spec |= {
        "batch": 1,
        "crop": 16,
        "precision": "float32",
        "peak_lr": 1,
        "average": 0,
        "seed": 0,
        "valid_images": 1,
    }
    facts = {
        "data": "none",
        "spec": spec,
        "started_from": {},
        "steps": 1,
        "minutes": 1,
        "history": [],
        "torch": "2",
    }
    save_weights(path, model.network, replace(model.info, training=facts))
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(144, 160)).save(tmp_path / "photos" / "p.png")

    made = package(
        path,
        photos=tmp_path / "photos",
        benchmarks=[benchmarks / name for name in ("b100", "live1")],
        out=tmp_path / "out",
        half=holes,
    )
    card, values = made.card.read_text(), json.loads(made.card.with_suffix(".json").read_text())
    with safe_open(made.weights, framework="numpy") as file:
        stored = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - no dict
    assert stored == {np.dtype("float16" if holes else "float32")}
    assert (f"{16 if holes else 32} bits" in card, "PHOTOS --half`" in card) == (True, holes)
    assert made.info.training["metrics"]
    assert "mean square, weight average" in " ".join(card.split())
    if holes:
        assert card.startswith("# tiny\n\nInpainting: ")
        gains = [row["means"]["psnr"] for row in values["holes"]["rows"][:2]]
        assert "Gain over that fill in the hole (b100, 256 px): thin" in card
        assert f"thin {gains[0] - gains[1]:+.2f} dB" in card
        assert [*values] == ["holes", "digest"]
        # All of the given datasets.
        assert {row["dataset"] for row in values["holes"]["rows"]} == {"b100", "live1"}
    else:
        assert card.startswith("# tiny\n\nRestoration at the same size: ")
        assert [*values] == ["denoise", "jpeg", "no-harm", "offsets", "digest"]
        assert {row["dataset"] for row in values["jpeg"]["rows"]} == {"live1"}
        assert f"| live1 | quality 10 | tiny | {values['jpeg']['rows'][1]['means']['psnr']:.2f} |" in card
    assert load_model(made.weights).info.halo == made.info.halo


def test_weights_that_are_packaged_again_keep_their_commit_and_day():
    first = {"commit": "6f20f34", "finished": "2026-11-30"}
    assert dated({"steps": 1} | first) == {"steps": 1} | first
    assert {"commit", "finished"} <= dated({"steps": 1}).keys()
