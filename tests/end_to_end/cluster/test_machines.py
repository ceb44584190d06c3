"""A run over machines that share only S3, while one leaves and another joins. Each test prints a row of figures.

In this order: a test continues with the machines that the one before it left.
"""

import time

import pytest

from pipeline.cluster.pool import ROWS_PER_BLOCK
from tests.end_to_end.cluster.conftest import COUNT, MODEL, Undisturbed, begin, report
from tests.end_to_end.cluster.nodes import WITHIN, Cluster
from tests.support.archive import assert_sound, look

# `WITHIN` reports what hangs.
pytestmark = pytest.mark.timeout(900)

MODELS = 1
# A third of the images: while they are held back, there is work left for another machine.
HELD = "archive/2/"


def test_models_and_codecs_run_on_different_machines(cluster: Cluster, undisturbed: Undisturbed):
    run, found = undisturbed.run, undisturbed.found
    assert_sound(found)
    assert len(found.outputs) == run.summary()["written"] == COUNT
    assert run.fetched_twice == run.put_twice == 0
    machine = {name: node.host.address for name, node in cluster.nodes.items()}
    loaded = {name: sum(run.asked("GET", MODEL, by=machine[name]).values()) for name in machine}
    # Once per machine, by the processes that need it.
    assert loaded == {"head": 1, "gpu-1": 1, "cpu": 0}
    assert run.asked("GET", "s3://archive/", by=machine["cpu"])
    assert run.asked("PUT", "s3://undisturbed/images/", by=machine["cpu"])
    assert not run.asked("GET", "s3://archive/", by=machine["head"])


def test_a_machine_is_lost_and_another_joins(cluster: Cluster, undisturbed: Undisturbed):
    with cluster.proxy.holding(HELD):
        run = begin(cluster, "replaced")
        run.wait_for(lambda: run.put >= COUNT // 6)
        cluster.remove("gpu-1")
        joined = cluster.begin("gpu-2", cpus=1, gpus=1)
        run.wait_for(lambda: run.asks_for_model(joined))
    assert run.finish() == 0, run.log.read_text()
    report("machine lost, another joins", run, undisturbed)
    undisturbed.equals(look("s3://replaced"))
    # The lost machine's model was created there.
    assert run.asked("GET", MODEL, by=joined.host.address)
    # These belong to a block that was being written there.
    assert run.put_twice <= ROWS_PER_BLOCK


def test_a_machine_that_is_shut_down_finishes_its_batch_first(cluster: Cluster, undisturbed: Undisturbed):
    cluster.add("gpu-3", cpus=1, gpus=1)
    with cluster.proxy.holding(HELD):
        run = begin(cluster, "drained", "--workers", "1")
        run.wait_for(lambda: run.put > 0)
        (name,) = [name for name in ("gpu-2", "gpu-3") if run.asks_for_model(cluster.nodes[name])]
        leaving = cluster.nodes.pop(name)
        began = time.monotonic()
        leaving.terminate()
        (other,) = {"gpu-2", "gpu-3"} - {name}
        # The model is made there.
        run.wait_for(lambda: run.asks_for_model(cluster.nodes[other]))
    leaving.process.wait(WITHIN)
    took = time.monotonic() - began
    assert run.finish() == 0, run.log.read_text()
    report(f"SIGTERM to a machine, which ends after {took:.0f} s", run, undisturbed)
    undisturbed.equals(look("s3://drained"))
    assert run.put_twice == 0
    # At most one batch is repeated.
    assert run.fetched_twice <= ROWS_PER_BLOCK
