"""Pools fit the machines: every actor can be placed, and the stages around the models always find a CPU."""

import pytest

from imgtx.errors import UsageError
from pipeline.cluster import ROWS_PER_BLOCK, size_pool
from pipeline.spec import RunSpec

SPEC = RunSpec("in", "out")


@pytest.mark.parametrize(
    ("spec", "resources", "images", "actors", "gpus_each"),
    [
        (SPEC, {"CPU": 2}, 1000, 2, 0),
        (SPEC, {"CPU": 2}, 1, 1, 0),
        (RunSpec("in", "out", workers=5), {"CPU": 2}, 1000, 5, 0),
        (SPEC, {"CPU": 16, "GPU": 2}, 1000, 2, 1),
        (RunSpec("in", "out", workers=4), {"CPU": 16, "GPU": 2}, 1000, 4, 0.5),
        (RunSpec("in", "out", gpus=1), {"CPU": 16, "GPU": 2}, 1000, 1, 1),
        (RunSpec("in", "out", gpus=0), {"CPU": 4, "GPU": 2}, 1000, 4, 0),
        (SPEC, {"CPU": 16, "GPU": 8}, 2, 2, 1),
        (SPEC, {"CPU": 4, "GPU": 8}, 100, 8, 1),
        (
            RunSpec("in", "out", workers=3),
            {"CPU": 16, "GPU": 2},
            1000,
            3,
            0.5,
        ),  # two on one GPU, one on the other
        (RunSpec("in", "out", gpus=0.5), {"CPU": 16, "GPU": 1}, 10, 1, 0.5),
    ],
)
def test_a_pool_fits_the_machines(spec, resources, images, actors, gpus_each):
    pool = size_pool(spec, resources, images)
    assert (pool.actors, pool.actor_gpus) == (actors, gpus_each)
    assert pool.actors * pool.actor_gpus <= resources.get("GPU", 0)
    assert (
        pool.actors * pool.actor_cpus + pool.task_cpus <= resources["CPU"]
    )  # else the tasks starve for ever
    # decode waits for the models with its CPU in hand: without bounds it would hold all that encode needs
    left = resources["CPU"] - pool.actors * pool.actor_cpus - pool.decoders * pool.task_cpus
    assert left >= pool.task_cpus or pool.decoders == 1
    assert 1 <= pool.rows_per_block <= ROWS_PER_BLOCK
    assert pool.rows_per_block * pool.actors <= max(images, pool.actors)


def test_a_pool_for_lost_images_runs_each_alone():
    pool = size_pool(SPEC, {"CPU": 2}, 1000).isolated()
    assert (pool.rows_per_block, pool.tasks_in_flight, pool.retries) == (1, 1, 0)


@pytest.mark.parametrize(
    ("spec", "resources", "named"),
    [
        (SPEC, {"CPU": 0}, "no CPU"),
        (SPEC, {}, "no CPU"),
        (RunSpec("in", "out", gpus=2), {"CPU": 4, "GPU": 1}, "--gpus 2: the cluster has 1"),
        (RunSpec("in", "out", gpus=1), {"CPU": 4}, "--gpus 1: the cluster has 0"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(spec, resources, named):
    with pytest.raises(UsageError, match=named):
        size_pool(spec, resources, 10)
