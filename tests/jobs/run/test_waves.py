"""Images that came back without a row run again, alone; those that do so repeatedly are recorded as failed."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from jobs.run.driver import DISTURBED_PASSES, ISOLATED_PASSES, Session
from pipeline.cluster.pool import Pool
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import WORK

POOL = Pool(1, 0.5, 0.0, 0.25, 16, 1 << 20)


def work_of(*keys: str) -> pa.Table:
    return to_table([{"key": key, "size": 1, "version": "", "mask": "", "output": key} for key in keys], WORK)


class Passes:
    """A session whose passes end as given: the lost keys, and the machines of the cluster afterwards."""

    def __init__(self, *ends: tuple[tuple[str, ...], set[str]]):
        self.ends, self.machines, self.blamed = list(ends), frozenset({"a", "b"}), []
        # Rows a block of each pass.
        self.made: list[int] = []

    def wave(self, monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
        monkeypatch.setattr("pipeline.cluster.session.machines", lambda: self.machines)
        Session._wave(SimpleNamespace(metrics=None, _pass=self._pass, _take=self._take), work_of(*keys), POOL)

    def _take(self, rows: pa.Table) -> None:
        self.blamed += [(row["key"], row["reason"]) for row in rows.to_pylist()]

    def _pass(self, work: pa.Table, pool: Pool) -> tuple[pa.Table, bool]:
        self.made.append(pool.rows_per_block)
        lost, machines = self.ends.pop(0)
        self.machines = frozenset(machines)
        return work_of(*lost), True


BOTH, ONE = {"a", "b"}, {"a"}


def test_an_image_lost_once_runs_alone_and_is_not_blamed(monkeypatch):
    passes = Passes((("x", "y"), BOTH), ((), BOTH))
    passes.wave(monkeypatch, "x", "y", "z")
    assert (passes.made, passes.blamed) == ([16, 1], [])


def test_an_image_that_ends_its_worker_each_time_is_blamed(monkeypatch):
    passes = Passes(*[(("x",), BOTH)] * (1 + ISOLATED_PASSES))
    passes.wave(monkeypatch, "x", "y")
    assert passes.blamed == [("x", "worker_crash")]


def test_images_of_a_lost_machine_run_again_in_whole_blocks(monkeypatch):
    passes = Passes((("x", "y"), ONE), ((), ONE))
    passes.wave(monkeypatch, "x", "y", "z")
    assert (passes.made, passes.blamed) == ([16, 16], [])


def test_a_machine_lost_while_images_run_alone_is_not_their_fault(monkeypatch):
    passes = Passes((("x",), BOTH), (("x",), BOTH), (("x",), ONE), (("x",), ONE), ((), ONE))
    passes.wave(monkeypatch, "x")
    assert (passes.made, passes.blamed) == ([16, 1, 1, 16, 1], [])


def test_an_image_with_which_machine_after_machine_is_lost_is_blamed(monkeypatch):
    ends = [(("x",), {number}) for number in range(20)]
    passes = Passes(*ends)
    passes.wave(monkeypatch, "x")
    assert passes.made == [16] * (1 + DISTURBED_PASSES) + [1] * ISOLATED_PASSES
    assert passes.blamed == [("x", "worker_crash")]
