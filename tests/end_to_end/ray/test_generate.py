"""Images from a table of prompts on Ray: the pixels of the local engine, and a row that was edited."""

import json
from pathlib import Path

import numpy as np
import pytest

from imgtx.codecs import decode
from jobs.run.driver import run
from jobs.run.tally import Summary, Tally
from pipeline.spec import RunSpec
from tests.support.archive import Destination, assert_sound, look
from tests.support.prompt_models import save_tiny_prompt_model

pytestmark = pytest.mark.timeout(1200)

ROWS = [
    {
        "id": f"row{n}",
        "prompt": f"a {'red' if n % 2 else 'blue'} star, number {n}",
        "seed": n,
        "steps": 3 + n % 2,
    }
    for n in range(24)
]


def ignore(tally: Tally) -> None:
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_prompt_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", ROWS)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generate(table: Path, out: Path, model: str, engine: str, workers: int) -> Summary:
    settings = {"key": "id"}
    spec = RunSpec(
        str(table), str(out), "text-to-image", model, settings, "png", engine=engine, workers=workers
    )
    return run(spec, ignore)


def pixels(out: Path) -> dict[str, np.ndarray]:
    found: Destination = look(str(out))
    assert_sound(found)
    files = {key: (out / "images" / row["output"]).read_bytes() for key, row in found.rows.items()}
    return {key: decode(data, max_pixels=10**6).pixels.astype(int) for key, data in files.items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    assert max(np.abs(one[key] - other[key]).max() for key in one) <= 1


def test_ray_makes_the_same_pictures_and_an_edited_row_runs_alone(table: Path, model: str, tmp_path: Path):
    local = generate(table, tmp_path / "local", model, "local", 2)
    on_ray = generate(table, tmp_path / "ray", model, "ray", 1)
    assert (local.written, on_ray.written) == (24, 24)
    assert_same(pixels(tmp_path / "local"), pixels(tmp_path / "ray"))
    write(table, [ROWS[0] | {"prompt": "a green square"}, *ROWS[1:]])
    edited = generate(table, tmp_path / "ray", model, "ray", 1)
    assert (edited.written, edited.current) == (1, 23)
    before, after = pixels(tmp_path / "local"), pixels(tmp_path / "ray")
    assert [key for key in before if not np.array_equal(before[key], after[key])] == ["row0"]
