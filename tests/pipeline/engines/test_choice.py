"""Which engine a run takes, and what is refused."""

import pytest

from imgtx.errors import UsageError
from imgtx.inference.cores import usable_cores
from imgtx.memory import Memory
from pipeline.engines import choice
from pipeline.engines.choice import MAX_BYTES, MAX_IMAGES, check_engine, choose_engine
from pipeline.spec import RunSpec


def spec(**fields: object) -> RunSpec:
    return RunSpec("in", "out", **fields)


@pytest.mark.parametrize(
    ("given", "images", "size", "gpu", "address", "chosen"),
    [
        ({}, 1, 1, False, "", "local"),
        ({}, MAX_IMAGES, MAX_BYTES, False, "", "local"),
        ({}, MAX_IMAGES + 1, 1, False, "", "ray"),
        ({}, 1, MAX_BYTES + 1, False, "", "ray"),
        ({}, 1, 1, True, "", "ray"),
        ({"gpus": 0}, 1, 1, True, "", "local"),
        ({"gpus": 1}, 1, 1, False, "", "ray"),
        ({"workers": 4, "min_workers": 2}, 1, 1, False, "", "ray"),
        ({"address": "head:6379"}, 1, 1, False, "", "ray"),
        ({}, 1, 1, False, "head:6379", "ray"),
        ({"address": "local"}, 1, 1, False, "head:6379", "local"),
        ({"engine": "ray"}, 1, 1, False, "", "ray"),
        ({"engine": "local"}, 10**6, 1 << 40, True, "head:6379", "local"),
    ],
)
def test_auto_is_local_for_small_work_on_cpus_of_this_machine(
    given, images, size, gpu, address, chosen, monkeypatch
):
    monkeypatch.setattr(choice, "gpu_in_sight", lambda: gpu)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert choose_engine(spec(**given), images, size) == chosen


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"engine": "dask"}, "--engine dask: must be one of auto, ray, local"),
        ({"engine": "local", "address": "auto"}, "--engine local --address auto"),
        ({"engine": "local", "workers": 2, "min_workers": 1}, "leave out --min-workers"),
        ({"engine": "local", "gpus": 2}, "one GPU at most"),
    ],
)
def test_what_the_local_engine_cannot_do_is_refused(given, named):
    with pytest.raises(UsageError, match=named):
        check_engine(spec(**given))


def test_auto_is_local_where_ray_finds_too_little_memory(monkeypatch):
    monkeypatch.setattr(choice, "gpu_in_sight", lambda: False)
    monkeypatch.setattr(choice, "memory_at_hand", lambda: Memory(1200 << 20, 1200 << 20, "a container"))
    assert choose_engine(spec(), MAX_IMAGES + 1, 1) == "local"
    assert choose_engine(spec(engine="ray"), 1, 1) == "ray"
    assert choose_engine(spec(address="head:6379"), 1, 1) == "ray"


def test_no_gpu_is_in_sight_where_it_is_hidden(monkeypatch):
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not choice.gpu_in_sight()


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_a_container_has_the_cores_of_its_share(tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)
    everywhere = usable_cores(tmp_path / "absent")
    assert usable_cores(tmp_path / "cpu.max") == (cores or everywhere)


def test_other_systems_than_linux_take_ray(monkeypatch):
    monkeypatch.setattr(choice, "ON_LINUX", False)
    assert choose_engine(spec(), 1, 1) == "ray"
    with pytest.raises(UsageError, match="--engine local: needs Linux"):
        check_engine(spec(engine="local"))
