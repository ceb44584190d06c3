"""Runs over one table of prompts: their pixels, to compare between engines and after kills."""

import json
from pathlib import Path

import numpy as np

from imgtx.codecs import decode
from jobs.run.driver import run
from jobs.run.tally import Summary, Tally
from pipeline.spec import RunSpec
from tests.support.archive import Destination, assert_sound, look

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


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generate(table: Path, out: Path, model: str, engine: str, workers: int) -> Summary:
    settings = {"key": "id"}
    spec = RunSpec(
        str(table), str(out), "text-to-image", model, settings, format="png", engine=engine, workers=workers
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
