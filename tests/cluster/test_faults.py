"""What can go wrong on a cluster, one by one. Each test prints a row of docs/faults.md.

pytest tests/cluster -s

In this order: a test goes on with the machines that the one before it left, and the last one ends the head.
"""

import time

import pytest

from tests.archive import look
from tests.cluster.conftest import COUNT, MODEL, Undisturbed, begin, report
from tests.cluster.hosts import GATEWAY
from tests.cluster.nodes import CODEC, MODEL_ACTOR, Cluster, Run
from tests.cluster.s3proxy import Answer

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

MODELS = 2
CUT_SECONDS = 20.0
SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
INTERNAL = (500, "InternalError", "We encountered an internal error. Please try again.")
EXPIRED = (400, "ExpiredToken", "The provided token has expired.")


def begun(cluster: Cluster, destination: str, *options: str) -> Run:
    """A run in the middle of its work."""
    run = begin(cluster, destination, *options)
    run.wait_for(lambda: run.put >= COUNT // 6)
    return run


def finished(run: Run, undisturbed: Undisturbed, event: str) -> None:
    """The run ends well, and as the undisturbed one."""
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
def test_storage_refuses_for_a_while(cluster: Cluster, undisturbed: Undisturbed, answer: Answer):
    run = begun(cluster, answer[1].lower())
    before = len(cluster.proxy.requests)
    cluster.proxy.answers = lambda request: answer
    time.sleep(CUT_SECONDS)
    cluster.proxy.answers = None
    refused = cluster.proxy.refused(before)
    finished(run, undisturbed, f"S3 answers {answer[0]} {answer[1]} for {CUT_SECONDS:g} s, {refused} times")
    assert refused


def test_one_machine_is_cut_off_from_storage(cluster: Cluster, undisturbed: Undisturbed):
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


def test_a_machine_is_lost_and_none_comes(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "lost")
    cluster.remove("gpu-1")
    finished(run, undisturbed, "machine lost, none comes")


def test_the_head_is_lost_and_the_command_given_again(cluster: Cluster, undisturbed: Undisturbed):
    run = begun(cluster, "headless")
    run.wait_for(lambda: bool(run.asked("PUT", "s3://headless/ledger/")))
    for name in [*cluster.nodes]:
        cluster.remove(name)
    run.process.wait(30)
    done = look("s3://headless")
    cluster.begin("head", cpus=0, head=True)
    cluster.wait("head")
    cluster.begin("gpu-9", cpus=1, gpus=1)
    cluster.begin("cpu-9", cpus=2)
    cluster.wait("gpu-9", "cpu-9")
    again = cluster.upscale("archive", "headless", "--model", MODEL)
    again.since = run.since  # what is done twice was done by both
    put, recorded = len(done.files), len(done.rows)
    finished(
        again, undisturbed, f"head lost, {put} images put, {recorded} recorded; the command again elsewhere"
    )
    assert again.summary()["current"] == recorded
