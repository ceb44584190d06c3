"""The command line in this process, with the real stages and without Ray."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from imgtx.errors import USAGE
from jobs.cli import main
from jobs.run import driver
from pipeline import flow
from pipeline.cluster import session as cluster
from pipeline.engines.base import RAY
from pipeline.stages.decode import decode
from pipeline.stages.encode import encode
from pipeline.stages.publish import publish
from pipeline.stages.transform import Transform


def imgtx(*arguments: str) -> Result:
    """Run a command and restore the handler of SIGTERM, which a run sets."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(main, arguments)
    finally:
        signal.signal(signal.SIGTERM, before)


def complaint(*arguments: str, code: int = USAGE) -> str:
    """Run a command that fails and return its only line on stderr."""
    result = imgtx(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("imgtx: ")
    assert "Traceback" not in line
    return line


class InProcess:
    """What `build_dataset` returns, without Ray: the stages one after the other, one image at a time."""

    def __init__(self, work: pa.Table, job, pool):
        self.work, self.job = work, job

    def iter_batches(self, **options: Any) -> Iterator[pa.Table]:
        transform = Transform(self.job)
        for index in range(self.work.num_rows):
            table = self.work.slice(index, 1)
            for stage in (decode, transform, encode, publish):
                (table,) = stage(table) if stage is transform else stage(table, self.job)
            yield table


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Let runs use the Ray engine without starting Ray, with `InProcess` as dataset, until `patch` is undone."""

    @contextmanager
    def session(spec):
        yield {"CPU": 2.0}

    patch.setattr(driver, "choose_engine", lambda spec, images, size: RAY)
    patch.setattr(cluster, "ray_session", session)
    patch.setattr(cluster, "machines", lambda: frozenset({"this one"}))
    patch.setattr(flow, "build_dataset", InProcess)
