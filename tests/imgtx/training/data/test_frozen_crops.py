"""The crops of every recipe never change: a resumed or repeated training sees the same pixels to the bit."""

import hashlib

import numpy as np
import pytest

from imgtx.training.data.crops import Sampler
from imgtx.training.data.pairs import degrade_validation, make_pair
from imgtx.training.spec import TrainSpec
from tests.support.zoo import photo

# SHA-256 of two batches and of the validation pairs, in 8 bits and in floats. Made with the releases that
# requirements.lock pins, before degradations had files of their own.
FROZEN = {
    "bicubic": "3d4b9adb65216c83",
    "bicubic x3 energy": "66433e29172f3658",
    "bicubic uniform": "d7b93e209a53cdef",
    "bicubic of many sharpnesses": "13ec39540725c4b9",
    "archive": "7304082d34d86945",
    "archive x4": "451e9c8cfe01cd23",
    "archive of many sharpnesses": "53111fe4968e0726",
    "restoration": "0856d3eea0e477c4",
    "restoration of low quality": "ecee59a0a7f71913",
    "holes": "b8930e34ff20985c",
}
RECIPES = {
    "bicubic": {"scale": 2},
    "bicubic x3 energy": {"scale": 3, "crop_choice": "energy"},
    "bicubic uniform": {"scale": 2, "crop_choice": "uniform"},
    "bicubic of many sharpnesses": {"scale": 2, "downscale": 2.0, "blur": 0.8},
    "archive": {"scale": 2, "degradation": "archive"},
    "archive x4": {"scale": 4, "degradation": "archive", "damage": {"noise": 20.0, "skip": 0.1}},
    "archive of many sharpnesses": {"scale": 2, "degradation": "archive", "downscale": 1.5, "blur": 0.5},
    "restoration": {"scale": 1, "degradation": "restoration"},
    "restoration of low quality": {
        "scale": 1, "degradation": "restoration",
        "damage": {"noise_share": 0.3, "jpeg_share": 0.4, "low_quality_share": 0.5},
    },
    "holes": {"scale": 1, "degradation": "holes", "damage": {"thick": 0.3}},
}  # fmt: skip


def digest_of(spec: TrainSpec) -> str:
    pairs = [make_pair(str(n), photo(100 + 8 * n, 120 - 5 * n), spec.scale) for n in range(3)]
    settings = spec.crop_settings
    sampler = Sampler(pairs, settings, seed=spec.seed, batch=spec.batch)
    sha = hashlib.sha256()
    for batch in (sampler.batch(0), sampler.batch(1000)):
        sha.update(repr(batch.keys).encode() + batch.small.tobytes() + batch.clean.tobytes())
    for pair in degrade_validation(pairs, settings.degradation, settings.damage):
        sha.update(np.ascontiguousarray(pair.small).tobytes() + pair.clean.tobytes())
    return sha.hexdigest()[:16]


@pytest.mark.parametrize("name", RECIPES)
def test_crops_equal_those_of_earlier_versions(name):
    spec = TrainSpec("frozen", "-", "-", steps=1, batch=6, crop=16, seed=7, **RECIPES[name])
    assert digest_of(spec) == FROZEN[name]
