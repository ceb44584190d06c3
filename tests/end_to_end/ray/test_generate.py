"""Images from a table of prompts on Ray: the pixels of the local engine, and a row that was edited."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.prompt_models import save_tiny_prompt_model
from tests.support.prompt_runs import ROWS, assert_same, generate, pixels, write

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_prompt_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", ROWS)


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
