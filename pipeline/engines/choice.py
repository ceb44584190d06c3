"""Which engine a run takes: `--engine`, and what `auto` means."""

import os
import sys
from pathlib import Path

from imgtx.errors import UsageError
from imgtx.memory import memory_at_hand
from pipeline.cluster.address import address_of
from pipeline.cluster.memory import RAY_BASE, needed
from pipeline.engines.base import AUTO, ENGINES, LOCAL, RAY
from pipeline.spec import RunSpec

# What `auto` takes for small. `python -m bench.engines` finds no size at which Ray costs less on one machine with CPUs:
# its start takes 12 CPU seconds more, and each small file more too. The limits are where its start no longer matters.
# They are in bytes, because megapixels are not known before images are read.
MAX_IMAGES, MAX_BYTES = 2_000, 1 << 30
# The local engine's processes end with their parent by a call that only Linux has.
ON_LINUX = sys.platform == "linux"


def check_engine(spec: RunSpec) -> None:
    """Raise UsageError for an engine that does not exist, or that cannot do what else the spec asks for."""
    if spec.engine not in ENGINES:
        raise UsageError(f"--engine {spec.engine}: must be one of {', '.join(ENGINES)}")
    if spec.engine != LOCAL:
        return
    if not ON_LINUX:
        raise UsageError(f"--engine local: needs Linux, and this is {sys.platform}; take --engine ray")
    if spec.address:
        raise UsageError(
            f"--engine local --address {spec.address}: a cluster needs --engine ray; leave one out"
        )
    if spec.min_workers:
        raise UsageError("--engine local --min-workers: only a Ray cluster grows; leave out --min-workers")
    if spec.gpus and spec.gpus > 1:
        raise UsageError(f"--engine local --gpus {spec.gpus:g}: it uses one GPU at most; take --engine ray")


def choose_engine(spec: RunSpec, images: int, size: int) -> str:
    """Return LOCAL or RAY for a run over `images` images of `size` bytes together.

    `auto` is local for small work on CPUs of this machine, and for any work where Ray finds too little memory.
    """
    if spec.engine != AUTO:
        return spec.engine
    elsewhere = address_of(spec) or spec.min_workers
    memory = memory_at_hand()
    small = images <= MAX_IMAGES and size <= MAX_BYTES
    small |= memory is not None and memory.free < needed(RAY_BASE)
    return LOCAL if small and not elsewhere and not uses_gpu(spec) and ON_LINUX else RAY


def uses_gpu(spec: RunSpec) -> bool:
    """Return whether the model will run on a GPU of this machine, without torch, which takes seconds to import."""
    return bool(spec.gpus) or (spec.gpus is None and gpu_in_sight())


def gpu_in_sight() -> bool:
    """Return whether this machine has a CUDA or ROCm device that is not hidden from this process."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists())
