"""One rule for the exit code of a run, whether its command, a nightly run or `imgtx watch` asks."""

import pytest

from imgtx.errors import DONE, FAILURES, INTERRUPTED
from jobs.run.exit_code import exit_code
from pipeline.spec import RunSpec

RUN = {"state": "done", "listed": 200, "left": 0, "failed": 0, "skipped": 0}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, DONE),
        ({"failed": 2}, DONE),
        ({"failed": 3}, FAILURES),
        # Images beyond --limit are not part of the share that may fail.
        ({"failed": 2, "left": 101}, FAILURES),
        ({"skipped": 10, "skipped_kinds": {".txt": 10}}, DONE),
        ({"skipped": 11, "skipped_kinds": {".txt": 9, "": 2}}, FAILURES),
        # What a rule of the user's leaves out is no file of another kind: large images, images without a mask.
        ({"skipped": 100, "skipped_kinds": {".txt": 10, "no_mask": 50}}, DONE),
        # A record of an imgtx that did not count kinds.
        ({"skipped": 11}, FAILURES),
        ({"accounted": False}, FAILURES),
        ({"state": "killed; the same command continues"}, FAILURES),
        ({"state": "interrupted", "failed": 100}, INTERRUPTED),
    ],
)
def test_exit_codes(change: dict, code: int):
    assert exit_code(RunSpec("in", "out", max_failed="1%", max_skipped="5%"), RUN | change) == code


def test_any_number_may_be_skipped_unless_a_limit_is_given():
    assert exit_code(RunSpec("in", "out"), RUN | {"skipped": 199}) == DONE
    assert exit_code(RunSpec("in", "out", max_skipped="0"), RUN | {"skipped": 1}) == FAILURES
