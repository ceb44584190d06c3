"""The exit code of a run: one rule for the command, for a nightly run and for `imgtx watch`."""

from collections.abc import Mapping
from typing import Any

from imgtx.errors import DONE, FAILURES, INTERRUPTED
from pipeline.spec import RunSpec
from pipeline.tables.schemas import REASONS


def exit_code(spec: RunSpec, run: Mapping[str, Any]) -> int:
    """Return the exit code of a run that has ended.

    run: the content of its `summary.json` or `status.json`.
    Of what was skipped only files that are not images by their names count, not what a rule of the user's leaves out.
    """
    if run["state"] == "interrupted":
        return INTERRUPTED
    meant = run["listed"] - run["left"]
    # Skipped files that are images are counted by their reason.
    kinds = run.get("skipped_kinds", {"": run["skipped"]})
    by_name = sum(count for kind, count in kinds.items() if kind not in REASONS)
    within = run["failed"] <= spec.failures_allowed(meant) and by_name <= spec.skips_allowed(meant)
    good = run["state"] == "done" and run.get("accounted", True) and within
    return DONE if good else FAILURES
