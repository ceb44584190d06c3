"""A pipeline of diffusers makes images from a table with real actors, which fetch it from storage."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode
from jobs.run.driver import run
from jobs.run.tally import Tally
from pipeline.spec import RunSpec
from pipeline.storage.store import open_store
from tests.support.archive import assert_sound, look
from tests.support.tiny_pipelines import save_pipeline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)

ROWS = [
    {"id": "dog", "prompt": "dog", "seed": 1},
    {"id": "shapes", "prompt": "a red circle above a blue square", "seed": 2**40},
    {"id": "negative", "prompt": "dog", "seed": 1, "negative": "a cat", "guidance": 4.0},
    {"id": "wide", "prompt": "dog", "seed": 1, "width": 64},
    {"id": "odd", "prompt": "dog", "seed": 1, "width": 33},
]


def ignore(tally: Tally) -> None:
    pass


def test_a_pipeline_in_storage_makes_a_table_and_only_a_changed_row_again(bucket: str, tmp_path: Path):
    folder = save_pipeline("pixart-sigma", tmp_path / "pixart")
    models = open_store(f"{bucket}/models/pixart")
    for file in folder.rglob("*"):
        if file.is_file():
            models.write(file.relative_to(folder).as_posix(), file.read_bytes())
    table = tmp_path / "prompts.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    spec = RunSpec(
        str(table),
        f"{bucket}/out",
        task="text-to-image",
        model=f"diffusers:{bucket}/models/pixart",
        settings={"steps": 2, "size": "32x32", "key": "id"},
        format="png",
        gpus=0,
        workers=1,
        engine="ray",
        max_failed="1",
    )
    first = run(spec, ignore)
    assert (first.written, first.failed) == (4, 1)
    found = look(spec.destination)
    assert_sound(found)
    assert found.rows["odd"]["reason"] == "bad_value"
    generator = imgtx.load(folder, device="cpu")
    out = open_store(f"{bucket}/out/images")
    for row in ROWS[:4]:
        asked = {"steps": 2, "width": 32, "height": 32} | {k: v for k, v in row.items() if k != "id"}
        made = decode(out.read(f"{row['id']}.png"), max_pixels=10**6).pixels
        assert np.abs(made.astype(int) - generator(**asked)).max() <= 1, row
    changed = [ROWS[0] | {"seed": 2}, *ROWS[1:4]]
    table.write_text("".join(json.dumps(row) + "\n" for row in changed))
    again = run(spec, ignore)
    assert (again.written, again.current) == (1, 3)
