"""The exit code of a run: one rule for the command, for a nightly run and for `imgtx watch`."""

from collections.abc import Mapping
from typing import Any

from imgtx.errors import DONE, FAILURES, INTERRUPTED
from pipeline.spec import RunSpec


def exit_code(spec: RunSpec, run: Mapping[str, Any]) -> int:
    """Return the exit code of a run that has ended.

    run: the content of its `summary.json` or `status.json`.
    """
    if run["state"] == "interrupted":
        return INTERRUPTED
    meant = run["listed"] - run["left"]
    within = run["failed"] <= spec.failures_allowed(meant) and run["skipped"] <= spec.skips_allowed(meant)
    good = run["state"] == "done" and run.get("accounted", True) and within
    return DONE if good else FAILURES
