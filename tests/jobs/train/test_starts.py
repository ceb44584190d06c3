"""How trainings start, whatever they learn: one at a time in a folder, and without a trace where they are refused."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from imgtx.errors import LeaseHeldError, UsageError
from imgtx.models.weights import load_model
from imgtx.training.folder import held_folder
from jobs.train import terminal
from jobs.train.specs import make_spec
from jobs.train.terminal import run_training
from tests.support.zoo import photo, saved

RESTORING = {
    "name": "tiny", "steps": 4, "batch": 2, "crop": 8, "precision": "float32", "valid_images": 1,
    "model": {
        "dim": 16, "heads": 1, "window": 4, "encoder_blocks": 1, "decoder_blocks": 1,
        "detail_channels": 4, "detail_blocks": 1, "ffn_ratio": 1.0,
    },
}  # fmt: skip
DRAWING = {
    "objective": "text-to-image", "name": "tiny", "steps": 2, "batch": 2, "precision": "float32",
    "scene_share": 0.5, "valid_prompts": 4,
    "model": {"patch": 16, "dim": 16, "heads": 2, "blocks": 1, "text_blocks": 1, "max_tokens": 24},
}  # fmt: skip
STYLISING = {"objective": "style", "name": "tiny", "steps": 1, "precision": "float32"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(saved(photo(48, 64 + number)))
    return folder


def start(values: dict[str, Any], folder: Path) -> Path:
    return run_training(make_spec(values, Path("spec.toml"), on_ray=False), folder, Console(stderr=True))


@pytest.mark.parametrize("kind", ["restoring", "drawing", "stylising"])
def test_a_refused_start_leaves_nothing_behind(kind, photos, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    values = {
        "restoring": RESTORING | {"train": str(photos), "valid": str(empty)},
        "drawing": DRAWING | {"pictures": str(empty)},
        "stylising": STYLISING | {"train": str(photos), "styles": str(empty)},
    }[kind]
    with pytest.raises(UsageError):
        start(values, tmp_path / "runs" / "tiny")
    assert not (tmp_path / "runs").exists()


def test_weights_that_are_missing_leave_nothing_behind(photos, tmp_path):
    values = RESTORING | {"train": str(photos), "valid": str(photos)}
    with pytest.raises(UsageError, match="no weight file"):
        start(values | {"init_from": "gone.safetensors"}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    start(values, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UsageError, match="began with batch = 2, now 3"):
        start(values | {"batch": 3}, tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("kind", ["restoring", "drawing", "stylising"])
def test_a_folder_in_use_is_refused_and_untouched(kind, photos, tmp_path):
    values = {
        "restoring": RESTORING | {"train": str(photos), "valid": str(photos)},
        "drawing": DRAWING | {"scene_share": 1.0},
        "stylising": STYLISING | {"train": str(photos), "styles": str(photos)},
    }[kind]
    folder = tmp_path / "run"
    with held_folder(folder):
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(LeaseHeldError, match="one process at a time may"):
            start(values, folder)
        assert sorted(path.name for path in folder.iterdir()) == before


def test_weights_in_storage_are_fetched_once_and_recorded_as_they_were_named(photos, tmp_path, monkeypatch):
    values = RESTORING | {"train": str(photos), "valid": str(photos)}
    reference, asked = "s3://bucket/models/first@0001", []
    first = start(values, tmp_path / "first")

    def local(given: str, endpoint_url: str | None) -> str:
        asked.append(given)
        return str(first)

    monkeypatch.setattr(terminal, "local_model", local)
    start(values | {"init_from": reference}, tmp_path / "run")
    weights = start(values | {"init_from": reference, "steps": 6}, tmp_path / "run")
    assert asked == [reference]
    training = load_model(weights).info.training
    assert (training["spec"]["init_from"], training["started_from"]["steps"]) == (reference, 4)


def test_a_training_says_where_it_continues_and_what_it_trained(photos, tmp_path, capsys):
    values = RESTORING | {"train": str(photos), "valid": str(photos)}
    start(values, tmp_path / "run")
    said = capsys.readouterr().err
    assert "continuing" not in said
    assert "trained 4 steps: " in said
    start(values | {"steps": 6}, tmp_path / "run")
    said = capsys.readouterr().err
    assert "continuing at step 4, after " in said
    assert "trained 2 steps: " in said
    start(values | {"steps": 6}, tmp_path / "run")
    assert "trained" not in capsys.readouterr().err
