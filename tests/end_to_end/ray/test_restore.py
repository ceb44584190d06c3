"""Filling holes end to end on S3: masks beside images, accounting, reruns, verify."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgtx.codecs import decode
from imgtx.degradations.holes import random_mask
from jobs.inspect.status import run_verify
from jobs.run.driver import run
from jobs.run.prepare import plan_run, prepare
from jobs.run.tally import Tally
from pipeline.spec import RunSpec
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import IMAGES
from tests.support.archive import assert_sound, look, save_tiny_model
from tests.support.zoo import photo, saved

MASKS = {key: random_mask(np.random.default_rng(n), 40, 52, "thin") for n, key in enumerate("abcd")}


def ignore(tally: Tally) -> None:
    pass


def white(mask: np.ndarray) -> bytes:
    return saved(np.where(mask, 255, 0).astype(np.uint8))


@pytest.fixture
def spec(bucket: str, tmp_path: Path) -> RunSpec:
    model = save_tiny_model(tmp_path / "holes.safetensors", scale=1, holes=True)
    source, masks = open_store(f"{bucket}/in"), open_store(f"{bucket}/masks")
    for key, mask in MASKS.items():
        source.write(f"{key}.png", saved(photo(40, 52)))
        masks.write(f"{key}.png", white(mask))
    source.write("none.png", saved(photo(40, 52)))
    source.write("wrong.png", saved(photo(41, 52)))
    masks.write("wrong.png", white(MASKS["a"]))
    uri = {"source": source.uri, "destination": f"{bucket}/out"}
    inpainting = {"task": "inpainting", "model": model, "settings": {"masks": masks.uri}}
    return RunSpec(**uri, **inpainting, gpus=0, workers=1, engine="ray")


def pixels(store: Store, key: str) -> np.ndarray:
    return decode(store.read(key), max_pixels=10**6).pixels


def test_a_changed_mask_in_s3_reruns_its_image(spec: RunSpec):
    summary = run(spec, ignore)
    assert (summary.written, summary.skipped, summary.failed, summary.accounted) == (4, 1, 1, True)
    found = look(spec.destination)
    assert_sound(found)
    reasons = {key: row["reason"] for key, row in found.rows.items()}
    assert (reasons["none.png"], reasons["wrong.png"]) == ("no_mask", "bad_mask")
    out = open_store(spec.destination)
    for key, mask in MASKS.items():
        made = pixels(out, f"{IMAGES}{key}.png")
        np.testing.assert_array_equal(made[~mask], photo(40, 52)[~mask])
        assert (made[mask] != photo(40, 52)[mask]).any(axis=1).mean() > 0.9
        assert dict(found.rows[f"{key}.png"]["measures"])["hole_share"] == pytest.approx(mask.mean())
    # The same picture, four masks.
    assert len({found.outputs[f"{key}.png"] for key in MASKS}) == 4

    masks = open_store(spec.settings["masks"])
    masks.write("b.png", white(MASKS["a"]))
    planned = plan_run(prepare(spec)).work.slice().to_pylist()
    assert [(row["key"], row["cause"]) for row in planned] == [("b.png", "changed")]
    assert run_verify(spec.destination, None, deep=True, fix=False).counts["changed"] == 1
    assert run(spec, ignore).written == 1
    again = look(spec.destination)
    changed = {key for key, digest in again.outputs.items() if found.outputs[key] != digest}
    assert changed == {"b.png"}
    assert again.outputs["b.png"] == found.outputs["a.png"]
    version = masks.stat("b.png")[1]
    assert again.rows["b.png"]["inputs"] == [{"role": "mask", "key": "b.png", "version": version}]
    assert run_verify(spec.destination, None, deep=True, fix=False).problems.num_rows == 0

    whole = run(replace(spec, settings=spec.settings | {"missing_mask": "no-hole"}), ignore)
    assert (whole.written, whole.skipped, whole.accounted) == (1, 0, True)
    np.testing.assert_array_equal(pixels(out, f"{IMAGES}none.png"), photo(40, 52))
