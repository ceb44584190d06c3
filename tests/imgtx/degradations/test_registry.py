"""Adding a degradation takes one file and one line; everything else follows from its description."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from imgtx.degradations import DEGRADATIONS
from imgtx.degradations.base import Degradation
from imgtx.errors import UsageError
from imgtx.training import spec as training_spec
from imgtx.training.data.crops import Sampler
from imgtx.training.data.pairs import degrade_validation, make_pair
from imgtx.training.spec import make_train_spec, with_current_names
from tests.support.zoo import photo


@dataclass(frozen=True)
class Dimming:
    factor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise UsageError(f"factor = {self.factor}: must be more than 0, and 1 at most")


DIM = Degradation(
    "dim", "brightening", (1,), "pictures taken in the dark.",
    lambda clean, scale, rng, damage: ((clean * damage.factor).astype(np.uint8), clean), Dimming,
)  # fmt: skip


@pytest.fixture
def dim(monkeypatch) -> None:
    monkeypatch.setitem(DEGRADATIONS, "dim", DIM)
    monkeypatch.setitem(training_spec.CHOICES, "degradation", tuple(DEGRADATIONS))


def spec(**values: object):
    required = {
        "name": "x",
        "train": "-",
        "valid": "-",
        "steps": 1,
        "crop": 16,
        "batch": 4,
        "degradation": "dim",
    }
    return make_train_spec(required | {"scale": 1} | values, Path("spec.toml"), folders=False)


def test_registering_a_degradation_makes_it_trainable(dim):
    made = spec(damage={"factor": 0.25})
    assert made.task == "brightening"
    pairs = [make_pair("a", photo(40, 48), 1)]
    batch = Sampler(pairs, made.crop_settings, seed=0, batch=4).batch(0)
    assert np.array_equal(batch.small, (batch.clean * 0.25).astype(np.uint8))
    (valid,) = degrade_validation(pairs, made.crop_settings.degradation, made.crop_settings.damage)
    assert np.array_equal(valid.small, (pairs[0].clean * 0.25).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"scale": 2}, "scale = 2: with degradation = 'dim' it must be 1"),
        ({"damage": {"factor": 2.0}}, r"\[damage\]: factor = 2.0: must be"),
        ({"damage": {"facter": 0.5}}, "did you mean 'factor'"),
    ],
)
def test_a_new_degradation_checks_its_own_settings(dim, values, named):
    with pytest.raises(UsageError, match=named):
        spec(**values)


@pytest.mark.parametrize("kind", DEGRADATIONS.values(), ids=DEGRADATIONS)
def test_each_pair_has_the_declared_shapes(kind):
    for scale in kind.scales:
        damaged, clean = kind.pair(photo(24 * scale, 36 * scale), scale, np.random.default_rng(1))
        assert damaged.shape == (24, 36, 4 if kind.masks else 3)
        assert (clean.shape, clean.dtype) == ((24 * scale, 36 * scale, 3), np.uint8)


def test_records_of_earlier_versions_map_to_current_names():
    recorded = {"hold": 0.3, "shrink": 2.0, "soften": 0.8, "crop_choice": "livelier", "seed": 1}
    assert with_current_names(recorded) == {
        "constant_lr_share": 0.3, "downscale": 2.0, "blur": 0.8, "crop_choice": "higher_gradient", "seed": 1,
    }  # fmt: skip
