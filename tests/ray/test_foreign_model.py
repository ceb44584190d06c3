"""Somebody else's model over a small folder, through real actors: loaded there from its path."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.pixels import decode
from imgtx.sidecar import write_sidecar
from imgtx.sources import read_info
from jobs.run import run
from jobs.tally import Tally
from pipeline.spec import RunSpec
from pipeline.storage import Store
from tests.adapters.architectures import save
from tests.archive import assert_sound, fill, look
from tests.zoo import photo, saved

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed"
)


def ignore(tally: Tally) -> None:
    pass


def test_a_foreign_model_runs_resumes_and_goes_stale_with_its_precision(source: Store, tmp_path: Path):
    keys = fill(source, 5)
    source.write("alpha.png", saved(photo(40, 50, 4)))
    model = save("Compact", tmp_path)
    spec = RunSpec(source.uri, str(tmp_path / "out"), model=str(model), precision="auto", gpus=0, workers=1)
    assert run(spec, ignore).written == len(keys) + 1
    found = look(spec.destination)
    assert_sound(found)
    made = decode((tmp_path / "out/images/alpha.png").read_bytes(), max_pixels=10**6)
    expected = imgtx.load(model, device="cpu")(photo(40, 50, 4)[:, :, :3])
    np.testing.assert_array_equal(made.pixels, expected)
    # what the probe would write: the halo leaves outputs current, another precision makes them stale
    info, digest = read_info(model)
    write_sidecar(model, digest, replace(info, halo=16), {})
    assert run(spec, ignore).current == len(keys) + 1
    write_sidecar(model, digest, replace(info, dtypes=("float32", "bfloat16"), fast="bfloat16"), {})
    again = run(spec, ignore)
    assert (again.written, again.current) == (len(keys) + 1, 0)
    assert_sound(look(spec.destination))
