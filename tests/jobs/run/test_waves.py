"""Images that came back without a row run again, alone; those that do so repeatedly are recorded as failed."""

from types import SimpleNamespace

import pyarrow as pa

from jobs.run.driver import DISTURBED_PASSES, ISOLATED_PASSES, Session
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import WORK

TOGETHER, ALONE = "together", "alone"


def work_of(*keys: str) -> pa.Table:
    return to_table([{"key": key, "size": 1, "version": "", "mask": "", "output": key} for key in keys], WORK)


class Passes:
    """A session whose passes end as given: the lost keys, and the machines of its engine afterwards."""

    def __init__(self, *ends: tuple[tuple[str, ...], set[str]]):
        self.ends, self.there, self.blamed = list(ends), frozenset({"a", "b"}), []
        # How each pass ran.
        self.made: list[str] = []
        self.whole = True

    def wave(self, *keys: str) -> None:
        Session._wave(SimpleNamespace(metrics=None, _pass=self._pass, _take=self._take), work_of(*keys), self)

    def machines(self) -> frozenset[str]:
        return self.there

    def _take(self, rows: pa.Table) -> None:
        self.blamed += [(row["key"], row["reason"]) for row in rows.to_pylist()]

    def _pass(self, work: pa.Table, engine: "Passes", *, alone: bool) -> pa.Table:
        self.made.append(ALONE if alone else TOGETHER)
        lost, machines = self.ends.pop(0)
        self.there = frozenset(machines)
        return work_of(*lost)


BOTH, ONE = {"a", "b"}, {"a"}


def test_an_image_lost_once_runs_alone_and_is_not_blamed():
    passes = Passes((("x", "y"), BOTH), ((), BOTH))
    passes.wave("x", "y", "z")
    assert (passes.made, passes.blamed) == ([TOGETHER, ALONE], [])


def test_an_image_that_ends_its_worker_each_time_is_blamed():
    passes = Passes(*[(("x",), BOTH)] * (1 + ISOLATED_PASSES))
    passes.wave("x", "y")
    assert passes.blamed == [("x", "worker_crash")]


def test_images_of_a_lost_machine_run_again_in_whole_blocks():
    passes = Passes((("x", "y"), ONE), ((), ONE))
    passes.wave("x", "y", "z")
    assert (passes.made, passes.blamed) == ([TOGETHER, TOGETHER], [])


def test_a_machine_lost_while_images_run_alone_is_not_their_fault():
    passes = Passes((("x",), BOTH), (("x",), BOTH), (("x",), ONE), (("x",), ONE), ((), ONE))
    passes.wave("x")
    assert (passes.made, passes.blamed) == ([TOGETHER, ALONE, ALONE, TOGETHER, ALONE], [])


def test_an_image_with_which_machine_after_machine_is_lost_is_blamed():
    ends = [(("x",), {number}) for number in range(20)]
    passes = Passes(*ends)
    passes.wave("x")
    assert passes.made == [TOGETHER] * (1 + DISTURBED_PASSES) + [ALONE] * ISOLATED_PASSES
    assert passes.blamed == [("x", "worker_crash")]
