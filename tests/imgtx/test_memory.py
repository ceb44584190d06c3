"""The memory that a process may use is that of its container or job, by files as the kernel writes them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from imgtx.memory import killed_for_memory, memory_at_hand
from tests.support.source_tree import ROOT

MB = 1 << 20


def machine(root: Path, cgroup: str, total: int = 64_000, free: int = 60_000) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: {total << 10} kB\nMemFree: 1 kB\nMemAvailable: {free << 10} kB\n"
    )
    (root / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 7\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def put(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def v2(folder: Path, limit: object, used: int, cached: int = 0, kills: int = 0) -> None:
    stat = f"anon 1\ninactive_file {cached * MB}\nactive_file 0"
    put(
        folder,
        memory__max=limit,
        memory__current=used * MB,
        memory__stat=stat,
        memory__events=f"oom 1\noom_kill {kills}",
    )


def v1(folder: Path, limit: int, used: int, cached: int = 0, kills: int = 0) -> None:
    put(
        folder,
        memory__limit_in_bytes=limit,
        memory__usage_in_bytes=used * MB,
        memory__stat=f"cache 5\ntotal_inactive_file 0\ntotal_active_file {cached * MB}",
        memory__oom_control=f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}",
    )


def at_hand(root: Path) -> tuple[int, int]:
    memory = memory_at_hand(root)
    assert memory
    return memory.total // MB, memory.free // MB


def test_without_a_limit_it_is_the_machines(tmp_path: Path):
    root = machine(tmp_path, "0::/user.slice\n")
    v2(root / "sys/fs/cgroup/user.slice", "max", 5)
    assert at_hand(root) == (64_000, 60_000)
    assert "this machine" in memory_at_hand(root).describe()
    assert killed_for_memory(root) == 0


def test_a_container_of_version_2_sees_its_own_group_as_the_outermost(tmp_path: Path):
    root = machine(tmp_path, "0::/\n")
    v2(root / "sys/fs/cgroup", 1200 * MB, used=500, cached=300, kills=3)
    assert at_hand(root) == (1200, 1000)
    assert "this container or job" in memory_at_hand(root).describe()
    assert killed_for_memory(root) == 3


def test_a_container_of_version_1_finds_its_group_under_no_path(tmp_path: Path):
    root = machine(tmp_path, "5:cpu:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab\n")
    v1(root / "sys/fs/cgroup/memory", 2000 * MB, used=700, cached=100, kills=2)
    assert at_hand(root) == (2000, 1400)
    assert killed_for_memory(root) == 2


@pytest.mark.parametrize("inner", ["max", 4000 * MB])
def test_a_limit_above_counts_too_as_that_of_a_slurm_job_around_its_step(tmp_path: Path, inner):
    root = machine(tmp_path, "0::/slurm/job_1/step_0/task_0\n")
    v2(root / "sys/fs/cgroup/slurm/job_1/step_0/task_0", inner, used=10)
    v2(root / "sys/fs/cgroup/slurm/job_1", 3000 * MB, used=1000)
    assert at_hand(root) == (3000, 2000)


def test_no_limit_of_version_1_is_a_number(tmp_path: Path):
    root = machine(tmp_path, "4:memory:/\n")
    v1(root / "sys/fs/cgroup/memory", 9223372036854771712, used=5)
    assert at_hand(root) == (64_000, 60_000)


def test_a_limit_that_slows_down_counts(tmp_path: Path):
    root = machine(tmp_path, "0::/\n")
    v2(root / "sys/fs/cgroup", 2000 * MB, used=100)
    put(root / "sys/fs/cgroup", memory__high=900 * MB)
    assert at_hand(root) == (900, 800)


def test_a_busy_machine_has_less_than_its_container_may_use(tmp_path: Path):
    root = machine(tmp_path, "0::/\n", free=300)
    v2(root / "sys/fs/cgroup", 1200 * MB, used=100)
    assert at_hand(root) == (64_000, 300)


def test_a_group_outside_of_the_container(tmp_path: Path):
    root = machine(tmp_path, "0::/../sibling\n")
    v2(root / "sys/fs/cgroup", 1200 * MB, used=1300)
    assert at_hand(root) == (1200, 0)


def test_other_systems_do_not_tell(tmp_path: Path):
    assert memory_at_hand(tmp_path) is None
    assert killed_for_memory(tmp_path) == 0


def test_without_groups_the_machine_counts_who_was_killed(tmp_path: Path):
    assert killed_for_memory(machine(tmp_path, "")) == 7


# Blocks that the C library keeps when they are freed, because the last one is in use.
FREED = """
import re
from imgtx.memory import return_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

blocks = [bytearray(b"x" * (1 << 20)) for _ in range(128)]
last = blocks.pop()
blocks.clear()
before = resident()
return_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_a_worker_has_freed_goes_back_to_the_system():
    kept = {name: str(1 << 30) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
    environment = os.environ | kept | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FREED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100
