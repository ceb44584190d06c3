"""Settings that Ray, torch and hypothesis read once, when they are imported or started."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from imgtx.inference import processor
from pipeline.cluster.environment import local_settings

# Tests share the machine with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A run sets these before it first imports Ray. Here other tests import Ray before tests/end_to_end/ray starts it.
for name, value in local_settings().items():
    os.environ.setdefault(name, value)

# The same examples every time, so that a failure is due to a change; `--hypothesis-profile=random` looks for new ones.
# No deadline: a shared machine may pause for seconds during an example.
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("fixed", COMMON, derandomize=True)
settings.register_profile("random", COMMON, derandomize=False)
# pytest's plugin loads the profile of its option after this.
settings.load_profile("fixed")


PROCESSOR = processor.CPUINFO


@pytest.fixture(autouse=True, scope="session")
def a_processor_that_emulates_nothing() -> Iterator[None]:
    """Tests in bfloat16 and float16 are small: they run on processors that emulate these too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "CPUINFO", Path("/nonexistent"))
        yield


@pytest.fixture
def the_real_processor(monkeypatch) -> None:
    """Let code that chooses its precision see the processor: VGG-16 takes minutes in bfloat16 where it is emulated."""
    monkeypatch.setattr(processor, "CPUINFO", PROCESSOR)
