"""The rule by which new weights become the latest."""

import math

import pytest

from imgtx.errors import UsageError
from jobs.nightly.gate import Gate, check_gate, judge

CURRENT = {"a": 30.0, "b": 35.0}


@pytest.mark.parametrize(
    ("gate", "candidate", "passed"),
    [
        (Gate(), {"a": 30.0, "b": 35.0}, True),
        (Gate(), {"a": 30.1, "b": 35.0}, True),
        (Gate(), {"a": 30.1, "b": 34.96}, True),
        # `b` loses more than 0.05.
        (Gate(), {"a": 31.0, "b": 34.94}, False),
        # The mean loses.
        (Gate(), {"a": 29.98, "b": 35.0}, False),
        (Gate(better_by=0.1), {"a": 30.1, "b": 35.05}, False),
        (Gate(better_by=0.1, better_on="a"), {"a": 30.125, "b": 35.0}, True),
        (Gate(better_by=0.1, better_on="b"), {"a": 30.5, "b": 35.0}, False),
        (Gate(better_by=-0.02), {"a": 29.98, "b": 35.0}, True),
        (Gate(worse_by=0.0), {"a": 31.0, "b": 34.999}, False),
        (Gate(), {"a": math.nan, "b": 36.0}, False),
        # Equal to the clean images: the infinite PSNR.
        (Gate(), {"a": None, "b": 35.0}, True),
    ],
)
def test_the_gate_applies_its_rule(gate: Gate, candidate: dict[str, float | None], passed: bool):
    verdict = judge(gate, current=CURRENT, candidate=candidate)
    assert verdict.passed == passed
    assert verdict.why.startswith("passed: a " if passed else "refused: a ")


def test_losing_a_perfect_score_fails_the_gate():
    current = {"a": None, "b": 35.0}
    assert not judge(Gate(), current=current, candidate={"a": 60.0, "b": 36.0}).passed
    assert judge(Gate(), current=current, candidate={"a": None, "b": 35.0}).passed


def test_a_verdict_contains_its_numbers():
    verdict = judge(Gate(), current=CURRENT, candidate={"a": 31.0, "b": 34.9})
    assert verdict.why == "refused: a +1.000 dB, b -0.100 dB; b may lose at most 0.05 dB"


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Gate(worse_by=-1), "worse_by = -1"),
        (Gate(worse_by=math.nan), "worse_by = nan"),
        (Gate(better_by=math.inf), "better_by = inf"),
        (Gate(better_on="c"), "better_on = 'c': expected one of the datasets a, b"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_reported(gate: Gate, words: str):
    with pytest.raises(UsageError, match=words):
        check_gate(gate, ["a", "b"])
