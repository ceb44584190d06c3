"""What a check found, and how findings are counted."""

from collections.abc import Iterable
from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found, in one line. remedy: what to do about a warning or a problem."""

    check: str
    level: str
    text: str
    remedy: str = ""


def count(findings: Iterable[Finding], level: str) -> int:
    return sum(finding.level == level for finding in findings)
