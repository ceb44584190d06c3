"""Say what a run or plan leaves out: files that are no images by their names, and what its selection does not take."""

from collections.abc import Mapping

from imgtx.printable import printable

# Suffixes that are named.
MOST = 8


def skipped_line(skipped: int, listed: int, kinds: Mapping[str, int]) -> str:
    """Return how many of the listed files are skipped, and of which suffixes; "" where none is.

    kinds: as in a Plan; {} in the records of an imgtx that did not count them.
    """
    if not skipped:
        return ""
    # By number: JSON keeps the order, and another program that wrote it may not.
    most = sorted(kinds.items(), key=lambda item: -item[1])
    named = [f"{count} {printable(kind) or 'without a suffix'}" for kind, count in most[:MOST]]
    rest = sum(count for _, count in most[MOST:])
    named += [f"{rest} others"] if rest else []
    return f"{skipped} of {listed} listed are skipped" + (f": {', '.join(named)}" if named else "")


def not_listed_line(not_listed: Mapping[str, int]) -> str:
    """Return what the selection left out, "" where nothing. A folder counts once, however much is in it."""
    counts = ", ".join(f"{count} {reason}" for reason, count in not_listed.items() if count)
    return f"not listed (files and whole folders): {counts}" if counts else ""
