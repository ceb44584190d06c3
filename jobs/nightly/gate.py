"""The gate that a new version passes before it becomes the latest: a stated rule on PSNR-Y, nothing else.

It passes if no dataset loses more than `worse_by` dB against the current version, and if `better_on` (or, where none
is named, the mean over the datasets) gains `better_by` dB or more. Both are measured in the same run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from imgtx.errors import UsageError

# PSNR-Y in dB by dataset; None where the output equals the clean images
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Gate:
    """The rule; all in dB."""

    worse_by: float = 0.05
    better_by: float = 0.0
    better_on: str = ""


@dataclass(frozen=True)
class Verdict:
    """`why` says it in numbers: it goes into the night's state and, where it passed, beside the pointer."""

    passed: bool
    why: str


def check_gate(gate: Gate, datasets: list[str]) -> None:
    """UsageError for a rule that cannot be applied to these datasets."""
    if not (gate.worse_by >= 0 and math.isfinite(gate.worse_by)) or not math.isfinite(gate.better_by):
        raise UsageError(
            f"[gate] worse_by = {gate.worse_by} and better_by = {gate.better_by}; legal are numbers of dB, the first "
            "0 or more"
        )
    if gate.better_on and gate.better_on not in datasets:
        raise UsageError(f"[gate] better_on = {gate.better_on!r}; the datasets are {', '.join(datasets)}")


def judge(gate: Gate, *, current: Scores, candidate: Scores) -> Verdict:
    """Hold the candidate against the current version; both were measured on the same datasets."""
    gains = {name: _number(candidate[name]) - _number(current[name]) for name in current}
    # what equals the clean images twice has gained nothing; what is no number has lost everything
    gains = {name: 0.0 if candidate[name] == current[name] else gain for name, gain in gains.items()}
    told = ", ".join(f"{name} {gain:+.3f} dB" for name, gain in gains.items())
    lost = [name for name, gain in gains.items() if not gain >= -gate.worse_by]
    if lost:
        return Verdict(False, f"refused: {told}; {', '.join(lost)} may lose {gate.worse_by:g} dB at most")
    gain = gains[gate.better_on] if gate.better_on else fmean(gains.values())
    where = gate.better_on or "the mean"
    if not gain >= gate.better_by:
        return Verdict(False, f"refused: {told}; {where} has to gain {gate.better_by:g} dB or more")
    return Verdict(
        True, f"passed: {told}; none lost more than {gate.worse_by:g} dB, {where} gained {gain:.3f}"
    )


def _number(score: float | None) -> float:
    return math.inf if score is None else score
