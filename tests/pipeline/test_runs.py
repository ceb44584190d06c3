"""Specs of earlier runs, those of earlier versions among them."""

import json
from pathlib import Path

import pytest

from imgtx.errors import UsageError
from pipeline.runs import last_spec
from pipeline.spec import RunSpec

# What every run of any task recorded before 0.1.0.
BEFORE = {
    "task": "super-resolution",
    "model": "sr-x2",
    "scale": 2,
    "format": "same",
    "quality": 92,
    "precision": "float32",
    "limit": 5,
    "workers": 3,
    "fewest_workers": 2,
    "gpus": 0.0,
    "max_failed": "1%",
    "max_megapixels": 100,
    "stream_megapixels": 50.0,
    "endpoint_url": None,
    "address": "10.0.0.1:6379",
    "masks": None,
    "missing_mask": "skip",
    "mask_color": None,
    "mask_tolerance": 8,
    "compile": False,
    "self_ensemble": False,
    "recipe": "0437afcb80d829a5",
}


def recorded(folder: Path, **changes: object) -> str:
    """Write the spec of a run into a destination and return its path."""
    path = folder / "runs" / "20260101T000000-abcd" / "spec.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(BEFORE | {"source": "in", "destination": "elsewhere"} | changes))
    return str(folder)


def test_a_run_before_0_1_0_is_read_without_the_options_of_other_tasks(tmp_path: Path):
    out = recorded(tmp_path)
    assert last_spec(out, None) == RunSpec(
        "in", out, model="sr-x2", settings={"scale": 2}, workers=3, min_workers=2, gpus=0, max_megapixels=100
    )


def test_the_options_of_its_own_task_are_kept(tmp_path: Path):
    out = recorded(tmp_path, task="inpainting", model="inpaint", scale=None, masks="masks")
    assert last_spec(out, None).settings == {"masks": "masks", "missing_mask": "skip", "mask_tolerance": 8}


def test_a_field_that_no_task_knows_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"another version of imgtx \(unknown fields of_tomorrow\)"):
        last_spec(recorded(tmp_path, of_tomorrow=1), None)


def test_copies_of_inputs_are_found_where_the_destination_is_now(tmp_path: Path):
    (tmp_path / "moved").mkdir()
    copy = "inputs/0123456789ab/monet.png"
    out = recorded(
        tmp_path / "moved", task="style-transfer", model="style", style=f"/gone/{copy}", destination="/gone/"
    )
    assert last_spec(out, None).settings["style"] == f"{out}/{copy}"
    assert last_spec(out, None).source == "in"
