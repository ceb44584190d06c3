"""The quality gate that a new version must pass to become the latest: a rule on PSNR-Y.

A version passes if no dataset loses more than `worse_by` dB against the current version, and if `better_on` (by default
the mean over the datasets) gains at least `better_by` dB. Both versions are measured in the same run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from imgtx.errors import UsageError

# PSNR-Y in dB by dataset; None if the outputs equal the clean images.
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Gate:
    """The rule; all in dB."""

    # What any dataset may lose, in dB of PSNR-Y.
    worse_by: float = 0.05
    # What `better_on` has to gain, in dB of PSNR-Y.
    better_by: float = 0.0
    # A dataset's name; empty means the mean over all datasets.
    better_on: str = ""


@dataclass(frozen=True)
class Verdict:
    """The decision; `why` gives its numbers, for the state of the date and, if it passed, the history of `latest`."""

    passed: bool
    why: str


def check_gate(gate: Gate, datasets: list[str]) -> None:
    """Raise UsageError for a rule that cannot be applied to these datasets."""
    if not (gate.worse_by >= 0 and math.isfinite(gate.worse_by)) or not math.isfinite(gate.better_by):
        raise UsageError(
            f"[gate] worse_by = {gate.worse_by} and better_by = {gate.better_by}: expected numbers of dB, the "
            "first 0 or more"
        )
    if gate.better_on and gate.better_on not in datasets:
        raise UsageError(
            f"[gate] better_on = {gate.better_on!r}: expected one of the datasets {', '.join(datasets)}"
        )


def judge(gate: Gate, *, current: Scores, candidate: Scores) -> Verdict:
    """Compare the candidate with the current version; both were measured on the same datasets."""
    gains = {name: _number(candidate[name]) - _number(current[name]) for name in current}
    # Equal to the clean images both times: no gain. Not a number: counts as a loss.
    gains = {name: 0.0 if candidate[name] == current[name] else gain for name, gain in gains.items()}
    numbers = ", ".join(f"{name} {gain:+.3f} dB" for name, gain in gains.items())
    lost = [name for name, gain in gains.items() if not gain >= -gate.worse_by]
    if lost:
        return Verdict(False, f"refused: {numbers}; {', '.join(lost)} may lose at most {gate.worse_by:g} dB")
    gain = gains[gate.better_on] if gate.better_on else fmean(gains.values())
    where = gate.better_on or "the mean"
    if not gain >= gate.better_by:
        return Verdict(False, f"refused: {numbers}; {where} must gain at least {gate.better_by:g} dB")
    return Verdict(
        True, f"passed: {numbers}; none lost more than {gate.worse_by:g} dB, {where} gained {gain:.3f}"
    )


def _number(score: float | None) -> float:
    return math.inf if score is None else score
