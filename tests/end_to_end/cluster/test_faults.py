"""Faults of a cluster, one by one. Each test prints a row of docs/explanation/faults.md.

pytest tests/end_to_end/cluster -s

In this order: a test continues with the machines that the one before it left, and the last one ends the head.
"""

import time

import pytest

from pipeline.cluster.pool import ROWS_PER_BLOCK
from tests.end_to_end.cluster.conftest import COUNT, DELAY, MODEL, Undisturbed, begin, report
from tests.end_to_end.cluster.hosts import GATEWAY
from tests.end_to_end.cluster.nodes import CODEC, MODEL_ACTOR, WITHIN, Cluster, Run
from tests.end_to_end.cluster.s3proxy import Answer
from tests.support.archive import look

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

MODELS = 2
CUT_SECONDS = 20.0
# Notice that a cloud gives before it removes a machine.
NOTICE_SECONDS = 110
SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
INTERNAL = (500, "InternalError", "We encountered an internal error. Please try again.")
EXPIRED = (400, "ExpiredToken", "The provided token has expired.")


def begun(cluster: Cluster, destination: str, *options: str) -> Run:
    """Start a run and wait until it is at work."""
    run = begin(cluster, destination, *options)
    run.wait_for(lambda: run.put >= COUNT // 6)
    return run


def finished(run: Run, undisturbed: Undisturbed, event: str) -> None:
    """Assert that the run succeeds with the outputs of the undisturbed one."""
    assert run.finish() == 0, run.log.read_text()
    report(event, run, undisturbed)
    undisturbed.equals(look(f"s3://{run.destination}"))


def test_an_actor_is_killed(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "actor")
    cluster.nodes["gpu-1"].processes(MODEL_ACTOR)[0].kill()
    finished(run, undisturbed, "SIGKILL of a model actor")


def test_a_worker_is_killed(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "worker")
    codecs: list = []
    run.wait_for(lambda: bool(codecs.extend(cluster.nodes["cpu"].processes(CODEC)) or codecs))
    codecs[0].kill()
    finished(run, undisturbed, "SIGKILL of a worker that decodes or encodes")


@pytest.mark.parametrize("answer", [SLOW_DOWN, INTERNAL], ids=["slow-down", "internal-error"])
def test_storage_is_unavailable_for_a_while(cluster: Cluster, undisturbed: Undisturbed, answer: Answer):
    run = begun(cluster, answer[1].lower())
    before = len(cluster.proxy.requests)
    cluster.proxy.answers = lambda request: answer
    time.sleep(CUT_SECONDS)
    cluster.proxy.answers = None
    refused = cluster.proxy.refused(before)
    finished(run, undisturbed, f"S3 answers {answer[0]} {answer[1]} for {CUT_SECONDS:g} s, {refused} times")
    assert refused


def test_one_machine_loses_its_connection_to_storage(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "cut")
    cluster.nodes["cpu"].host.cut(GATEWAY)
    time.sleep(CUT_SECONDS)
    cluster.nodes["cpu"].host.heal(GATEWAY)
    finished(run, undisturbed, f"no network between a machine and S3 for {CUT_SECONDS:g} s")


def test_credentials_expire(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "expired")
    run.wait_for(lambda: bool(run.asked("PUT", "s3://expired/ledger/")))
    cluster.proxy.answers = lambda request: EXPIRED
    code = run.finish()
    cluster.proxy.answers = None
    assert code != 0, run.log.read_text()
    assert "Traceback" not in run.log.read_text()
    done = look("s3://expired")
    assert 0 < len(done.outputs) < COUNT
    assert {key: undisturbed.found.outputs[key] for key in done.outputs} == done.outputs
    again = cluster.upscale("archive", "expired", "--model", MODEL)
    finished(
        again, undisturbed, f"credentials expire: exit code {code}; renewed, the same command takes the rest"
    )
    assert again.summary()["current"] == len(done.outputs)


def test_a_machine_without_a_model_joins(cluster: Cluster, undisturbed: Undisturbed):
    run = begin(cluster, "joined")
    run.wait_for(lambda: bool(run.asked("GET", "s3://archive/")))
    # The running tasks take a minute now: the machine joins during them.
    cluster.proxy.delay = 40 * DELAY
    joined = cluster.add("cpu-2", cpus=2).host.address
    cluster.proxy.delay = DELAY
    source, images = f"s3://{run.source}/", f"s3://{run.destination}/images/"
    finished(run, undisturbed, "a machine without a model joins")
    fetched, put = (sum(run.asked(*what, by=joined).values()) for what in (("GET", source), ("PUT", images)))
    print(f"  {fetched} images decoded there, {put} put from there")
    assert fetched or put
    assert run.put_twice == run.fetched_twice == 0


def test_a_machine_without_a_model_is_lost(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "fewer-codecs")
    run.wait_for(lambda: bool(cluster.nodes["cpu-2"].processes(CODEC)))
    cluster.remove("cpu-2")
    finished(run, undisturbed, "machine without a model lost")
    # Held by its four tasks of half a CPU.
    assert run.put_twice <= 4 * ROWS_PER_BLOCK


def test_a_machine_is_preempted(cluster: Cluster, undisturbed: Undisturbed):
    run, leaving = begun(cluster, "preempted"), cluster.nodes["gpu-1"]
    run.wait_for(lambda: bool(leaving.processes(MODEL_ACTOR)))
    # So that work is left for the others.
    cluster.proxy.delay = 10 * DELAY
    began = time.monotonic()
    cluster.preempt("gpu-1", NOTICE_SECONDS)
    run.wait_for(lambda: not leaving.processes(MODEL_ACTOR) and not leaving.processes(CODEC))
    took = time.monotonic() - began
    # Long before its deadline: the objects that it stores for others are lost.
    cluster.remove("gpu-1")
    cluster.proxy.delay = DELAY
    finished(
        run, undisturbed, f"preemption notice; nothing is at work there {took:.0f} s later, and it is taken"
    )
    assert took < NOTICE_SECONDS
    assert run.put_twice == 0
    # At most a batch of the actor there is repeated.
    assert run.fetched_twice <= ROWS_PER_BLOCK


@pytest.mark.parametrize(("name", "gpus"), [("gpu-4", 1), ("cpu-4", 0)])
def test_a_machine_loses_its_network(cluster: Cluster, undisturbed: Undisturbed, name: str, gpus: int):
    cluster.add(name, cpus=2 - gpus, gpus=gpus)
    run = begun(cluster, f"unplugged-{name}")
    run.wait_for(lambda: bool(cluster.nodes[name].processes(MODEL_ACTOR if gpus else CODEC)))
    began = time.monotonic()
    gone = cluster.unplug(name)
    finished(run, undisturbed, f"{name} unplugged")
    print(f"  the run ended {time.monotonic() - began:.0f} s later")
    gone.host.kill()


def test_a_machine_is_lost_and_not_replaced(cluster: Cluster, undisturbed: Undisturbed):
    cluster.add("gpu-3", cpus=1, gpus=1)
    run = begun(cluster, "lost")
    cluster.remove("gpu-3")
    finished(run, undisturbed, "machine lost, none comes")


def test_the_head_is_lost_and_the_command_is_rerun(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "headless")
    run.wait_for(lambda: bool(run.asked("PUT", "s3://headless/ledger/")))
    # The driver is killed with it; the other machines are not notified.
    cluster.remove("head")
    lost = time.monotonic()
    run.process.wait(30)
    left = [cluster.nodes.pop(name) for name in [*cluster.nodes]]
    done = look("s3://headless")
    cluster.begin("head", cpus=0, head=True)
    cluster.wait("head")
    cluster.begin("gpu-9", cpus=1, gpus=1)
    cluster.begin("cpu-9", cpus=2)
    cluster.wait("gpu-9", "cpu-9")
    again = cluster.upscale("archive", "headless", "--model", MODEL)
    # Repeated work was done by both.
    again.since = run.since
    put, recorded = len(done.files), len(done.rows)
    finished(
        again, undisturbed, f"head lost, {put} images put, {recorded} recorded; the command again elsewhere"
    )
    assert 0 < again.summary()["current"] == recorded < COUNT
    for node in left:
        node.process.wait(WITHIN)
    print(f"  the machines of the old cluster had ended after {time.monotonic() - lost:.0f} s")
