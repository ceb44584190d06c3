"""Pools fit the machines: every actor can be placed, and the stages around the models always find a CPU."""

import json
from pathlib import Path

import pytest

from imgtx.errors import ClusterError, UsageError
from pipeline.cluster.address import address_of, check_address
from pipeline.cluster.environment import FORWARDED, WORKER_ENVIRONMENT, joined_environment
from pipeline.cluster.pool import ROWS_PER_BLOCK, size_pool
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
        # Two on one GPU, one on the other.
        (RunSpec("in", "out", workers=3), {"CPU": 16, "GPU": 2}, 1000, 3, 0.5),
        (RunSpec("in", "out", gpus=0.5), {"CPU": 16, "GPU": 1}, 10, 1, 0.5),
    ],
)
def test_a_pool_fits_the_machines(spec, resources, images, actors, gpus_each):
    pool = size_pool(spec, resources, images)
    assert (pool.actors, pool.actor_gpus) == (actors, gpus_each)
    assert pool.actors * pool.actor_gpus <= resources.get("GPU", 0)
    assert pool.fused == (not gpus_each)
    assert pool.actors * pool.actor_cpus <= resources["CPU"]
    if not pool.fused:
        # Otherwise the tasks never get a CPU.
        assert pool.actors * pool.actor_cpus + pool.task_cpus <= resources["CPU"]
        # decode waits for the models with its CPU in hand: without bounds it would hold all that encode needs
        left = resources["CPU"] - pool.actors * pool.actor_cpus - pool.decoders * pool.task_cpus
        assert left >= pool.task_cpus or pool.decoders == 1
    assert 1 <= pool.rows_per_block <= ROWS_PER_BLOCK
    assert pool.rows_per_block * pool.actors <= max(images, pool.actors)


def test_a_pool_for_lost_images_runs_each_alone():
    pool = size_pool(SPEC, {"CPU": 2}, 1000).isolated()
    assert (pool.rows_per_block, pool.tasks_in_flight) == (1, 1)


def test_no_call_waits_for_an_actor_whose_machine_is_gone():
    pool = size_pool(SPEC, {"CPU": 2}, 1000)
    assert (pool.restarts, pool.retries) == (-1, 0)


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


@pytest.mark.parametrize(
    ("spec", "resources", "sizes", "gpus_each", "cpus_each"),
    [
        (
            RunSpec("in", "out", workers=8, min_workers=2),
            {"CPU": 16, "GPU": 2},
            {"min_size": 2, "max_size": 8},
            1,
            0.5,
        ),
        (
            RunSpec("in", "out", workers=8, min_workers=2, gpus=4),
            {"CPU": 16, "GPU": 1},
            {"min_size": 2, "max_size": 8},
            0.5,
            0.5,
        ),
        (
            RunSpec("in", "out", workers=3, min_workers=1),
            {"CPU": 2},
            {"min_size": 1, "max_size": 3},
            0,
            0.75,
        ),
        (RunSpec("in", "out", workers=3, min_workers=3), {"CPU": 2}, {"size": 3}, 0, 0.5),
    ],
)
def test_a_pool_grows_with_its_cluster(spec, resources, sizes, gpus_each, cpus_each):
    pool = size_pool(spec, resources, 1000)
    assert (pool.sizes, pool.actor_gpus, pool.actor_cpus) == (sizes, gpus_each, cpus_each)
    tasks = 0 if pool.fused else pool.task_cpus
    assert (pool.min_actors or pool.actors) * pool.actor_cpus + tasks <= resources["CPU"]


def test_half_of_the_tasks_decode_and_a_pool_that_grows_is_fed_when_it_has_grown():
    fixed = size_pool(RunSpec("in", "out", workers=2), {"CPU": 16, "GPU": 2}, 1000)
    assert (fixed.decoders, fixed.encoders) == (15, 15)
    growing = size_pool(RunSpec("in", "out", workers=8, min_workers=2), {"CPU": 16, "GPU": 2}, 1000)
    assert (growing.decoders, growing.encoders) == (60, 60)


def test_ray_address_is_used_unless_the_spec_says_otherwise(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert address_of(SPEC) == "head:6379"
    assert address_of(RunSpec("in", "out", address="other:6379")) == "other:6379"
    assert address_of(RunSpec("in", "out", address="local")) is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert address_of(SPEC) is None


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "https://head:8265"])
def test_http_and_ray_client_addresses_are_answered_with_the_right_command(address):
    with pytest.raises(UsageError, match=r"imgtx submit --address https?://head:8265 -- COMMAND"):
        check_address(RunSpec("in", "out", address=address))


@pytest.mark.parametrize(
    ("address", "kind", "why"),
    [
        ("127.0.0.1:1", ClusterError, "no Ray cluster answers there"),
        ("http://head:8265", UsageError, "joins a cluster only from one of its machines"),
        ("head:port", UsageError, "the port must be a number"),
    ],
)
def test_an_address_of_the_environment_is_named_as_such(address, kind, why, monkeypatch):
    def refuse(*given, **how):
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(kind) as error:
        check_address(SPEC)
    said = str(error.value)
    assert said.startswith(f"RAY_ADDRESS={address}: ")
    assert why in said
    assert "--address local" in said
    check_address(RunSpec("in", "out", address="local"))


def test_workers_get_our_variables_and_code_once(monkeypatch):
    for name in ("RAY_JOB_CONFIG_JSON_ENV_VAR", *FORWARDED):
        monkeypatch.delenv(name, raising=False)
    alone = joined_environment()
    assert alone["env_vars"] == WORKER_ENVIRONMENT
    assert [Path(path).name for path in alone["py_modules"]] == ["imgtx", "pipeline", "jobs"]
    assert all(Path(path).is_dir() for path in alone["py_modules"])
    # inside a job, whose environment Ray merges with ours and refuses to hear of a name twice
    job = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "2"}, "working_dir": "gcs://x.zip"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    within = joined_environment()
    assert within.keys() == {"env_vars"}
    assert within["env_vars"].keys() == WORKER_ENVIRONMENT.keys() - {"OMP_NUM_THREADS"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": None, "metadata": {}}))
    assert joined_environment() == {"env_vars": WORKER_ENVIRONMENT}


def test_workers_get_the_address_of_storage_and_no_secret(monkeypatch):
    for name in FORWARDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    variables = joined_environment()["env_vars"]
    assert variables == WORKER_ENVIRONMENT | {"AWS_ENDPOINT_URL": "http://store:9000"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:pass@store:9000")
    with pytest.raises(UsageError, match="not a plain http"):
        joined_environment()
