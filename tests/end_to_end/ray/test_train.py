"""Two workers train one network with the losses and weights of one process, up to rounding."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from imgtx.errors import UsageError
from imgtx.training.feeds import Data
from imgtx.training.loop import run
from imgtx.training.spec import TrainSpec
from imgtx.training.state import Training
from jobs.train.images import TRAIN, VALID, decode_keys, load_valid, part_of
from jobs.train.ray import RayTrainConfig, train_on_ray
from jobs.train.stream import Images, Shard, Stream
from pipeline.storage.store import open_store
from tests.support.archive import fill

MODEL = {
    "dim": 16, "heads": 1, "window": 4, "encoder_blocks": 1, "decoder_blocks": 1,
    "detail_channels": 4, "detail_blocks": 1,
}  # fmt: skip


@pytest.fixture
def spec(bucket: str) -> TrainSpec:
    """Return a spec of a hundred steps on images in a bucket; in batches of five the workers' shares differ."""
    fill(open_store(f"{bucket}/images"), 9)
    return TrainSpec(
        "tiny", f"{bucket}/images", f"{bucket}/images", steps=100, batch=5, crop=8, crops_per_image=4,
        precision="float32", valid_images=2, validate_minutes=60, checkpoint_minutes=60, model=MODEL,
    )  # fmt: skip


def test_two_workers_equal_one_process_up_to_rounding(spec: TrainSpec, bucket: str, tmp_path: Path):
    lines: list[dict[str, Any]] = []
    weights = train_on_ray(spec, RayTrainConfig(2, f"{bucket}/training"), tmp_path, lines.append)
    root = open_store(f"{bucket}/training/tiny")
    listed = decode_keys(root.read("keys.parquet"))
    store = open_store(spec.train)
    images = Images(store, part_of(listed, TRAIN), spec.scale)
    stream = Stream(images, spec.crop_settings, seed=spec.seed, batch=5, crops=4, shard=Shard())
    alone: list[dict[str, Any]] = []
    data = Data(stream, load_valid(store, part_of(listed, VALID).to_pylist(), spec.scale))
    single = run(Training(spec, tmp_path / "alone"), data, alone.append)

    assert [line["step"] for line in lines] == [50, 100, 100]
    for ours, theirs in zip(lines, alone, strict=True):
        (name,) = {"loss", "valid_psnr_y"} & ours.keys()
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3)
    one, other = load_file(weights), load_file(single)
    assert all(abs(one[name] - other[name]).max() < 2e-3 for name in one)
    assert (tmp_path / "strip.png").is_file()

    again: list[dict[str, Any]] = []
    # The training is finished: nothing is left to do.
    train_on_ray(spec, RayTrainConfig(2, f"{bucket}/training"), tmp_path, again.append)
    assert [line["step"] for line in again] == [100]
    with pytest.raises(UsageError, match="began with seed = 0, now 1"):
        train_on_ray(replace(spec, seed=1), RayTrainConfig(2, f"{bucket}/training"), tmp_path, again.append)
